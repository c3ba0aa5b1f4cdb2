"""Regression of vectors on covariates: what each term explains beside the others, tested by permutation of units.

The response is the vector of an occurrence, all its directions at once, as in distance-based redundancy analysis on
Euclidean distances (McArdle and Anderson 2001, "Fitting multivariate models to community data", Ecology 82) and in the
embedding regression of Rodriguez, Spirling and Stewart (2023, "Embedding regression", Am. Political Sci. Review 117).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .energy_distance import Doubles, Floats
from .exchangeable_units import Exchange, Ints, Units

# Of a column's length: less than that left beside the other columns is none, and statistics that near are ties.
_NONE, _TIE = 1e-6, 1e-5
# A unit on which a column hangs by so much leaves nothing when it is left out.
_ALONE = 1e-8


@dataclass(frozen=True)
class Part:
    """What a term adds to the others.

    Attributes:
        own: float64 [rows, rank], orthonormal: the term's columns less what the other terms' columns tell of them.
        weights: float64 [rows, columns], `weights.T @ vectors` are its coefficients; None: not determined.
    """

    own: Doubles
    weights: Doubles | None


class Design:
    """Columns of covariates, centred, by term.

    Args:
        terms: float64 [rows, columns] each.
    """

    def __init__(self, terms: Sequence[Doubles]):
        self._terms = [term - term.mean(axis=0) for term in terms]
        # Rows with equal covariates have equal numbers, so that exchanging them is no new arrangement.
        self.kinds: Ints = np.unique(np.concatenate(terms, axis=1), axis=0, return_inverse=True)[1].ravel()

    @cached_property
    def basis(self) -> Doubles:
        """float64 [rows, rank], orthonormal, of all terms; the constant, to which it is orthogonal, left out."""
        return _span(np.concatenate(self._terms, axis=1))

    @cached_property
    def parts(self) -> list[Part]:
        return [self._part(number) for number in range(len(self._terms))]

    def constant(self, number: int) -> bool:
        """Whether all columns of a term are."""
        return not _span(self._terms[number]).shape[1]

    def _part(self, number: int) -> Part:
        term = self._terms[number]
        others = _span(np.concatenate([np.zeros((len(term), 1)), *self._terms[:number], *self._terms[number + 1 :]], 1))
        left = term - others @ (others.T @ term)
        own = _span(left, np.linalg.norm(term, axis=0))
        whole = own.shape[1] == term.shape[1]
        return Part(own, np.linalg.pinv(left).T if whole else None)


def _span(columns: Doubles, lengths: Doubles | None = None) -> Doubles:
    """An orthonormal basis of columns, each judged beside its length (before something was taken from it)."""
    lengths = np.linalg.norm(columns, axis=0) if lengths is None else lengths
    there = lengths > 0
    if not there.any():
        return columns[:, :0]
    left, values, _ = np.linalg.svd(columns[:, there] / lengths[there], full_matrices=False)
    span: Doubles = left[:, values > _NONE]
    return span


@dataclass(frozen=True)
class Effect:
    """What a term explains.

    Attributes:
        raw: partial R²: of the squared lengths that the other terms leave, the share that this one explains; at n
            occurrences it is its rank / n where there is nothing.
        estimate: the same, debiased: 0 on average where there is nothing; None where it hangs on one unit.
        norms: squared lengths of its coefficients, debiased; None where they are not determined.
    """

    raw: float
    estimate: float | None
    norms: list[float] | None


class Regression:
    """Vectors of one model regressed on the terms of a design.

    Args:
        vectors: float32 [rows, width].
        design: of the same rows.
        unit: int64 [rows], ascending from 0; what one unit says hangs together, units are independent.
    """

    def __init__(self, vectors: Floats, design: Design, unit: Ints):
        points = vectors.astype(np.float64)
        # The mean of the units' means, on which no unit weighs much: see `_noise`.
        sums = np.add.reduceat(points, np.flatnonzero(np.diff(unit, prepend=-1)), axis=0)
        points -= (sums / np.bincount(unit)[:, None]).mean(axis=0)
        # Only products of rows matter: as many coordinates as there are rows will do.
        self.points: Doubles = (
            points if len(points) >= points.shape[1] else np.asarray(np.linalg.qr(points.T, mode="r")).T
        )
        self.design, self.unit = design, unit
        self.residuals: Doubles = self.points - design.basis @ (design.basis.T @ self.points)
        self.residuals -= self.residuals.mean(axis=0)

    def effects(self) -> list[Effect]:
        return [self._effect(part) for part in self.design.parts]

    def _effect(self, part: Part) -> Effect:
        explained = part.own.T @ self.points
        of_term = float((explained**2).sum())
        left = of_term + float((self.residuals**2).sum())
        noise = self._noise(part.own)
        norms = None
        if part.weights is not None and noise is not None:
            of_weights = self._noise(part.weights)
            assert of_weights is not None
            norms = (((part.weights.T @ self.points) ** 2).sum(axis=1) - of_weights).tolist()
        raw = of_term / left if left else 0.0
        return Effect(raw, None if noise is None or not left else (of_term - float(noise.sum())) / left, norms)

    def _noise(self, weights: Doubles) -> Doubles | None:
        """What |w'y|² exceeds its expectation without noise by, for each column w; float64 [columns].

        The plain norm of a coefficient counts the noise of the mean as length, all the more at small n (as does
        `conText`). Here it is subtracted: the sum over units of w_u'y_u times w_u'e_u, with e_u the residuals of a fit
        without the unit, is unbiased whatever the variances are (Kline, Saggio and Sølvsten 2020, "Leave-out
        estimation of variance components", Econometrica 88). None where leaving a unit out leaves no fit.
        """
        basis = np.column_stack([np.full(len(self.unit), len(self.unit) ** -0.5), self.design.basis])
        starts = np.flatnonzero(np.diff(self.unit, prepend=-1))
        inner = np.add.reduceat(basis[:, :, None] * basis[:, None, :], starts, axis=0)
        rest = np.eye(basis.shape[1]) - inner
        if np.linalg.eigvalsh(rest)[:, 0].min() < _ALONE:
            return None
        # (I - H_u)^-1 = I + Q_u (I - Q_u'Q_u)^-1 Q_u'
        shares = np.add.reduceat(basis[:, :, None] * weights[:, None, :], starts, axis=0)
        lifted = weights + np.einsum("nk,nkc->nc", basis, np.linalg.solve(rest, shares)[self.unit])
        noise = [
            np.add.reduceat(weight[:, None] * self.points, starts, axis=0)
            * np.add.reduceat(lift[:, None] * self.residuals, starts, axis=0)
            for weight, lift in zip(weights.T, lifted.T, strict=True)
        ]
        return np.array([one.sum() for one in noise])

    def exchange(self) -> Exchange:
        """Units of equal size are exchanged as wholes, with all their residuals; one of a size of its own stays."""
        return Exchange(Units(self.unit, self.design.kinds), equal_sizes=True)

    def p_values(self, permutations: int, random: np.random.Generator) -> Doubles:
        """Of each term, by permutation of what the other terms leave (Freedman and Lane 1983, "A nonstochastic
        interpretation of reported significance levels", J. Business & Economic Statistics 1), with whole blocks
        (Winkler et al. 2014, "Permutation inference for the general linear model", NeuroImage 92).

        All terms share their permutations, so that one product of matrices serves them all: with Q the basis of the
        design, E the residuals of the full fit and A = Q'own, the permuted residuals of the fit without a term are
        Q'PE + Q'PQ A (own'Y) in the coordinates of Q.

        Returns:
            float64 [terms]; what is found for a term of rank 0 means nothing.
        """
        basis, parts = self.design.basis, self.design.parts
        inside = [basis.T @ part.own for part in parts]
        explained = [part.own.T @ self.points for part in parts]
        of_residuals = float((self.residuals**2).sum())
        first = np.unique(self.design.kinds, return_index=True)[1]
        kinds = np.ascontiguousarray(basis[first].T, dtype=np.float32)
        right = np.column_stack([self.residuals, basis]).astype(np.float32)
        rank, width = basis.shape[1], self.points.shape[1]
        beyond = np.zeros(len(parts), np.int64)
        observed = [float((one**2).sum()) / ((one**2).sum() + of_residuals) for one in explained]
        # Rows of labels, of columns of the basis and of products lie in memory together.
        numbers = (rank + 1) * (len(self.unit) + 2 * width)
        for labels in self.exchange().shuffled(permutations, random, numbers):
            products = np.take(kinds, labels, axis=1).reshape(-1, len(self.unit)) @ right
            products = products.reshape(rank, len(labels), width + rank)
            for number, (own, share) in enumerate(zip(inside, explained, strict=True)):
                moved = (products[:, :, width:] @ own.astype(np.float32)) @ share.astype(np.float32)
                moved += products[:, :, :width]
                of_term = (np.tensordot(own.T.astype(np.float32), moved, 1) ** 2).sum(axis=(0, 2), dtype=np.float64)
                of_all = (moved**2).sum(axis=(0, 2), dtype=np.float64)
                statistic = of_term / (of_residuals + (share**2).sum() - of_all + of_term)
                beyond[number] += int((statistic >= observed[number] * (1 - _TIE)).sum())
        p_values: Doubles = (beyond + 1) / (permutations + 1)
        return p_values

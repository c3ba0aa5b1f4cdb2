"""Regression of vectors on covariates: the partial effect of each term, tested by permutation of units.

The response is the vector of an occurrence, in all dimensions at once, as in distance-based redundancy analysis on
Euclidean distances (McArdle and Anderson 2001, "Fitting multivariate models to community data", Ecology 82) and in the
embedding regression of Rodriguez, Spirling and Stewart (2023, "Embedding regression", Am. Political Sci. Review 117).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bert_tweets.common.arrays import Doubles, Floats, Ints, run_starts

from .exchangeable_units import Exchange, Units

# Singular values of scaled columns at or below this are zero.
_RANK_TOLERANCE = 1e-6
# Statistics that differ by less than this share are ties.
_TIE = 1e-5
# If the smallest eigenvalue without a unit is below this, a column depends on that unit alone.
_SINGULAR = 1e-8


@dataclass(frozen=True)
class PartialTerm:
    """A term with the other terms partialled out.

    Attributes:
        basis: float64 [rows, rank], orthonormal basis of the residuals of the term's columns on the other terms.
        weights: float64 [rows, columns], `weights.T @ vectors` are the coefficients; None: not identified.
    """

    basis: Doubles
    weights: Doubles | None


class Design:
    """The centred columns of the covariates, by term: float64 [rows, columns] each."""

    def __init__(self, terms: Sequence[Doubles]):
        self._terms = [term - term.mean(axis=0) for term in terms]
        # Rows with equal covariates have the same pattern number: exchanging them gives no new arrangement.
        self.pattern: Ints = np.unique(np.concatenate(terms, axis=1), axis=0, return_inverse=True)[1].ravel()

    @cached_property
    def basis(self) -> Doubles:
        """float64 [rows, rank], orthonormal basis of all terms, orthogonal to the constant."""
        return _span(np.concatenate(self._terms, axis=1))

    @cached_property
    def partial_terms(self) -> list[PartialTerm]:
        return [self._partial_term(number) for number in range(len(self._terms))]

    def is_constant(self, number: int) -> bool:
        """Whether all columns of a term are constant."""
        return not _span(self._terms[number]).shape[1]

    def _partial_term(self, number: int) -> PartialTerm:
        term = self._terms[number]
        others = _span(np.concatenate([np.zeros((len(term), 1)), *self._terms[:number], *self._terms[number + 1 :]], 1))
        residuals = term - others @ (others.T @ term)
        basis = _span(residuals, np.linalg.norm(term, axis=0))
        identified = basis.shape[1] == term.shape[1]
        return PartialTerm(basis, np.linalg.pinv(residuals).T if identified else None)


def _span(columns: Doubles, lengths: Doubles | None = None) -> Doubles:
    """An orthonormal basis of columns, scaled by `lengths` (by default their own) before the rank is determined."""
    lengths = np.linalg.norm(columns, axis=0) if lengths is None else lengths
    there = lengths > 0
    if not there.any():
        return columns[:, :0]
    left, values, _ = np.linalg.svd(columns[:, there] / lengths[there], full_matrices=False)
    return np.asarray(left[:, values > _RANK_TOLERANCE])


@dataclass(frozen=True)
class PartialEffect:
    """The effect of a term, given the other terms.

    Attributes:
        raw: partial R², the share of the squared lengths left by the other terms that this term explains; without an
            effect it is the rank of the term / n on average, for n occurrences.
        estimate: debiased partial R², 0 on average without an effect; None if it depends on a single unit.
        squared_norms: debiased squared lengths of the coefficients; None if they are not identified.
    """

    raw: float
    estimate: float | None
    squared_norms: list[float] | None


class Regression:
    """The regression of vectors of one model on the terms of a design.

    Args:
        vectors: float32 [rows, width].
        design: design of the same rows.
        unit: int64 [rows], the unit of each row, ascending from 0; rows of one unit may be dependent.
    """

    def __init__(self, vectors: Floats, design: Design, unit: Ints):
        points = vectors.astype(np.float64)
        # Subtract the mean of the units' means, in which no unit has a large weight: see `_noise`.
        sums = np.add.reduceat(points, run_starts(unit), axis=0)
        points -= (sums / np.bincount(unit)[:, None]).mean(axis=0)
        # Only inner products of rows matter: no more coordinates than rows are needed.
        self.points: Doubles = (
            points if len(points) >= points.shape[1] else np.asarray(np.linalg.qr(points.T, mode="r")).T
        )
        self.design, self.unit = design, unit
        self.residuals: Doubles = self.points - design.basis @ (design.basis.T @ self.points)
        self.residuals -= self.residuals.mean(axis=0)

    def effects(self) -> list[PartialEffect]:
        return [self._effect(term) for term in self.design.partial_terms]

    def _effect(self, term: PartialTerm) -> PartialEffect:
        of_term = float(((term.basis.T @ self.points) ** 2).sum())
        total = of_term + float((self.residuals**2).sum())
        noise = self._noise(term.basis)
        squared_norms = None
        if term.weights is not None and noise is not None:
            of_weights = self._noise(term.weights)
            assert of_weights is not None
            squared_norms = (((term.weights.T @ self.points) ** 2).sum(axis=1) - of_weights).tolist()
        raw = of_term / total if total else 0.0
        estimate = None if noise is None or not total else (of_term - float(noise.sum())) / total
        return PartialEffect(raw, estimate, squared_norms)

    def _noise(self, weights: Doubles) -> Doubles | None:
        """The bias of |w'y|² due to noise, for each column w; float64 [columns].

        The plain norm of a coefficient counts the noise of the mean as length, the more so at small n (as in
        `conText`). Here it is subtracted: the sum over units of w_u'y_u times w_u'e_u, with e_u the residuals of a fit
        without the unit, is unbiased whatever the variances are (Kline, Saggio and Sølvsten 2020, "Leave-out
        estimation of variance components", Econometrica 88). None if a fit without some unit is not possible.
        """
        basis = np.column_stack([np.full(len(self.unit), len(self.unit) ** -0.5), self.design.basis])
        starts = run_starts(self.unit)
        inner = np.add.reduceat(basis[:, :, None] * basis[:, None, :], starts, axis=0)
        rest = np.eye(basis.shape[1]) - inner
        if np.linalg.eigvalsh(rest)[:, 0].min() < _SINGULAR:
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
        """The exchange of whole units of equal size with all their residuals; a unit of a unique size stays."""
        return Exchange(Units(self.unit, self.design.pattern), equal_sizes=True)

    def p_values(self, permutations: int, random: np.random.Generator) -> Doubles:
        """Test each term by permuting the residuals of the fit without it (Freedman and Lane 1983, "A nonstochastic
        interpretation of reported significance levels", J. Business & Economic Statistics 1), in whole blocks
        (Winkler et al. 2014, "Permutation inference for the general linear model", NeuroImage 92).

        All terms share their permutations, so that one matrix product serves them all: with Q the basis of the design,
        E the residuals of the full fit, B the basis of a term and A = Q'B, the permuted residuals of the fit without
        the term are Q'PE + Q'PQ A (B'Y) in the coordinates of Q.

        Returns:
            float64 [terms]; meaningless for a term of rank 0.
        """
        basis, terms = self.design.basis, self.design.partial_terms
        inside = [basis.T @ term.basis for term in terms]
        explained = [term.basis.T @ self.points for term in terms]
        of_residuals = float((self.residuals**2).sum())
        first = np.unique(self.design.pattern, return_index=True)[1]
        by_pattern = np.ascontiguousarray(basis[first].T, dtype=np.float32)
        right = np.column_stack([self.residuals, basis]).astype(np.float32)
        rank, width = basis.shape[1], self.points.shape[1]
        beyond = np.zeros(len(terms), np.int64)
        observed = [float((one**2).sum()) / ((one**2).sum() + of_residuals) for one in explained]
        # Labels, rows of the basis and products are in memory at the same time.
        numbers = (rank + 1) * (len(self.unit) + 2 * width)
        for labels in self.exchange().shuffles(permutations, random, numbers):
            products = np.take(by_pattern, labels, axis=1).reshape(-1, len(self.unit)) @ right
            products = products.reshape(rank, len(labels), width + rank)
            for number, (own, share) in enumerate(zip(inside, explained, strict=True)):
                moved = (products[:, :, width:] @ own.astype(np.float32)) @ share.astype(np.float32)
                moved += products[:, :, :width]
                of_term = (np.tensordot(own.T.astype(np.float32), moved, 1) ** 2).sum(axis=(0, 2), dtype=np.float64)
                of_all = (moved**2).sum(axis=(0, 2), dtype=np.float64)
                statistic = of_term / (of_residuals + (share**2).sum() - of_all + of_term)
                beyond[number] += int((statistic >= observed[number] * (1 - _TIE)).sum())
        return np.asarray((beyond + 1) / (permutations + 1))

"""Distances between groups of occurrences within one model, unbiased at any size: 0 on average where nothing differs.

Pairs within one unit (an author, a cluster) never count: they are near for a reason of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from .exchangeable_units import Ints, Units

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Rows of a distance matrix that are worked out at a time.
_ROWS = 512


@dataclass(frozen=True)
class Distances:
    """Distances of each pair of occurrences of a word, less their mean; what is computed of them does not depend on it.

    Attributes:
        matrix: float32 [occurrences, occurrences], 0 for pairs within a unit.
        mean: of the pairs of different units; small numbers keep their digits without it.
    """

    matrix: Floats
    mean: float

    def of(self, rows: Ints) -> Distances:
        """Those of some occurrences among each other."""
        return Distances(self.matrix[np.ix_(rows, rows)], self.mean)


def distances(vectors: Floats, unit: Ints, squared: bool = False) -> Distances:
    """Euclidean distances of vectors, float32 [occurrences, width], or their squares.

    Args:
        unit: int64 [occurrences], ascending.
    """
    points = vectors.astype(np.float64)
    points -= points.mean(axis=0)
    lengths = (points**2).sum(axis=1)
    matrix = np.empty((len(points), len(points)), np.float32)
    for first in range(0, len(points), _ROWS):
        rows = slice(first, first + _ROWS)
        squares = np.maximum(lengths[rows, None] + lengths - 2 * points[rows] @ points.T, 0)
        matrix[rows] = squares if squared else np.sqrt(squares)
    own = unit[:, None] == unit
    matrix[own] = 0
    pairs = own.size - np.count_nonzero(own)
    mean = float(matrix.sum(dtype=np.float64)) / pairs if pairs else 0.0
    matrix -= np.float32(mean)
    matrix[own] = 0
    return Distances(matrix, mean)


def between_and_within(distances: Distances, units: Units, labels: Ints | None = None) -> Doubles:
    """Twice the mean distance between groups, less twice that within them: 0 in expectation where nothing differs.

    For two groups this is the energy distance, 2 E|X − Y| − E|X − X'| − E|Y − Y'| (Székely and Rizzo 2013, "Energy
    statistics", J. Stat. Plan. Inference 143), with means over pairs of different units alone, which makes it a
    U-statistic and unbiased; for more groups, the mean of that of each two of them weighted by n_a n_b, as the
    between-sample component of DISCO is (Rizzo and Székely 2010, Ann. Appl. Stat. 4). Of squared distances between
    two groups it is twice the debiased squared distance of means, |m_a − m_b|² − tr S_a / n_a − tr S_b / n_b.

    Args:
        distances: of the occurrences.
        units: of the occurrences.
        labels: int64 [times, occurrences], groups to compute it for; those of the units where it is not given.

    Returns:
        float64 [times].
    """
    matrix, groups = distances.matrix, units.groups
    labels = units.label[None] if labels is None else labels
    times = len(labels)
    indicator = (labels.T[:, :, None] == np.arange(groups)).astype(np.float32)
    # The sums of the last group follow from those of the others.
    others = indicator[:, :, :-1]
    products = (matrix @ others.reshape(len(matrix), -1)).reshape(others.shape)
    rest, rest_products = others.sum(axis=2), products.sum(axis=2)
    by_row = matrix.sum(axis=1, dtype=np.float64)
    total = by_row.sum()
    sums = np.empty((times, groups))
    sums[:, :-1] = (products * others).sum(axis=0, dtype=np.float64)
    sums[:, -1] = total - 2 * by_row @ rest + (rest * rest_products).sum(axis=0, dtype=np.float64)

    sizes = indicator.sum(axis=0, dtype=np.float64)
    by_unit = np.add.reduceat(indicator, units.starts, axis=0)
    pairs = sizes**2 - (by_unit**2).sum(axis=0, dtype=np.float64)
    all_pairs = len(matrix) ** 2 - (np.bincount(units.unit).astype(np.float64) ** 2).sum()
    between = (total - sums.sum(axis=1)) / (all_pairs - pairs.sum(axis=1))
    result: Doubles = 2 * (between - (_shares(sizes) * sums / pairs).sum(axis=1))
    return result


def _shares(sizes: Doubles) -> Doubles:
    """The weight of each group's inner distance, adding up to one along the last axis."""
    weights = sizes * (sizes.sum(axis=-1, keepdims=True) - sizes)
    shares: Doubles = weights / weights.sum(axis=-1, keepdims=True)
    return shares


@dataclass(frozen=True)
class Spread:
    """How an estimate of `between_and_within` varies, in two parts.

    Attributes:
        pairs: the variance that pairs of units have of their own; all there is where nothing differs.
        linear: the variance that single units add; it grows as the effect does.
    """

    pairs: float
    linear: float

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.pairs + self.linear)

    def interval(self, estimate: float, confidence: float = 0.95) -> tuple[float, float]:
        """The effects that the estimate is not too far from, at the variance that each of them would have.

        The linear part is taken to grow with the effect, from none at an effect of zero. As Wilson's interval of a
        share (1927) does, this leans upward, for large estimates come with large errors. It is not cut off at zero.

        Where a use is rare, a sample that holds few of it shows a small effect and no linear part at all, and the
        interval would end short of the truth. So the part grows by the pairs' own error at least, as it does of itself
        where an effect is plain. docs/statistics.md has the coverage.
        """
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        least = math.sqrt(self.pairs)
        slope = max(self.linear / max(estimate, least), least) if least else 0.0
        lean = z**2 * slope / 2
        reach = z * math.sqrt(max(self.pairs + slope * estimate + lean**2 / z**2, self.pairs))
        return estimate + lean - reach, estimate + lean + reach


def spread(distances: Distances, units: Units) -> Spread:
    """How `between_and_within` varies, by a jackknife over units.

    Written as a sum over pairs of units, it varies by what pairs that share a unit have in common. Leaving out one unit
    after the other counts the pairs' own variance twice, and a bootstrap without self-pairs three times, which is most
    of it where nothing differs; here it counts once. This is the correction of Efron and Stein (1981, "The jackknife
    estimate of variance", Ann. Stat. 9), as in the dyadic cluster-robust variance of Aronow, Samii and Assenova (2015,
    Political Analysis 23).
    """
    label, starts, groups = units.label, units.starts, units.groups
    indicator = (label[:, None] == np.arange(groups)).astype(np.float64)
    by_unit = np.add.reduceat(indicator, starts, axis=0)
    sizes = indicator.sum(axis=0)
    pairs = np.outer(sizes, sizes) - by_unit.T @ by_unit
    inner = np.diagonal(pairs)
    coefficients = np.full((groups, groups), 2 / (pairs.sum() - inner.sum()))
    np.fill_diagonal(coefficients, -2 * _shares(sizes) / inner)

    # Less what makes an occurrence remote from all groups alike, which cancels in the statistic, not in its pairs.
    unit_sizes = np.diff(starts, append=len(units))
    remote = distances.matrix.sum(axis=1, dtype=np.float64) / (len(units) - unit_sizes[units.unit])
    parts = distances.matrix - remote[:, None] - remote
    parts[units.unit[:, None] == units.unit] = 0
    sums = indicator.T @ (parts @ indicator)
    means = np.divide(sums, pairs, out=np.zeros_like(sums), where=pairs > 0)
    parts = (parts - means[np.ix_(label, label)]) * coefficients[np.ix_(label, label)]
    parts = np.add.reduceat(np.add.reduceat(parts, starts, axis=0), starts, axis=1)
    np.fill_diagonal(parts, 0)
    of_pairs = 2 * float((parts**2).sum())
    of_units = 4 * float((parts.sum(axis=1) ** 2).sum())
    return Spread(of_pairs, max(of_units - 2 * of_pairs, 0.0))

"""Energy distance between groups of occurrences within one model: unbiased, so 0 on average without a difference.

Pairs within one unit (an author, a near-duplicate cluster) never count: they are similar for a reason of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bert_tweets.common.arrays import Doubles, Floats, Ints

from .exchangeable_units import Units


@dataclass(frozen=True)
class DistanceMatrix:
    """Distances between all pairs of occurrences of a word, less their mean; no statistic depends on that mean.

    Attributes:
        matrix: float32 [occurrences, occurrences], 0 for pairs within a unit.
        mean: mean over the pairs of different units; small numbers keep more digits without it.
    """

    matrix: Floats
    mean: float

    def subset(self, rows: Ints) -> DistanceMatrix:
        """The distances between some of the occurrences."""
        return DistanceMatrix(self.matrix[np.ix_(rows, rows)], self.mean)


def pairwise_distances(vectors: Floats, unit: Ints, squared: bool = False, rows_at_once: int = 512) -> DistanceMatrix:
    """Compute the Euclidean distances between vectors, float32 [occurrences, width], or their squares.

    `unit` is int64 [occurrences], ascending; `rows_at_once` rows of the matrix at a time bound the memory.
    """
    points = vectors.astype(np.float64)
    points -= points.mean(axis=0)
    lengths = (points**2).sum(axis=1)
    matrix = np.empty((len(points), len(points)), np.float32)
    for first in range(0, len(points), rows_at_once):
        rows = slice(first, first + rows_at_once)
        squares = np.maximum(lengths[rows, None] + lengths - 2 * points[rows] @ points.T, 0)
        matrix[rows] = squares if squared else np.sqrt(squares)
    same_unit = unit[:, None] == unit
    matrix[same_unit] = 0
    pairs = same_unit.size - np.count_nonzero(same_unit)
    mean = float(matrix.sum(dtype=np.float64)) / pairs if pairs else 0.0
    matrix -= np.float32(mean)
    matrix[same_unit] = 0
    return DistanceMatrix(matrix, mean)


def energy_statistic(distances: DistanceMatrix, units: Units, labels: Ints | None = None) -> Doubles:
    """Twice the mean distance between groups, less twice that within them: 0 in expectation without a difference.

    For two groups this is the energy distance, 2 E|X − Y| − E|X − X'| − E|Y − Y'| (Székely and Rizzo 2013, "Energy
    statistics", J. Stat. Plan. Inference 143), with means over pairs of different units only, which makes it an
    unbiased U-statistic. For more groups it is the mean of the energy distances of all pairs of groups weighted by
    n_a n_b, like the between-sample component of DISCO (Rizzo and Székely 2010, Ann. Appl. Stat. 4). Of squared
    distances between two groups it is twice the debiased squared distance of means,
    |m_a − m_b|² − tr S_a / n_a − tr S_b / n_b.

    `labels` is int64 [times, occurrences], or None for the labels of `units`, once. Returns float64 [times].
    """
    matrix, groups = distances.matrix, units.groups
    labels = units.label[None] if labels is None else labels
    times = len(labels)
    indicator = (labels.T[:, :, None] == np.arange(groups)).astype(np.float32)
    # The sums of the last group follow from those of the other groups.
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
    return np.asarray(2 * (between - (_shares(sizes) * sums / pairs).sum(axis=1)))


def _shares(sizes: Doubles) -> Doubles:
    """The weight of each group's inner distance; the weights add up to one along the last axis."""
    weights = sizes * (sizes.sum(axis=-1, keepdims=True) - sizes)
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class JackknifeVariance:
    """The variance of an estimate by `energy_statistic`, in two parts.

    Attributes:
        pairs: variance due to pairs of units; the only part without a difference.
        linear: variance due to single units; it grows with the effect.
    """

    pairs: float
    linear: float

    def interval(self, estimate: float, confidence: float = 0.95) -> tuple[float, float]:
        """The effects that are compatible with the estimate, each at the variance that it would have.

        The linear part is assumed to grow with the effect, from zero at an effect of zero. Like Wilson's interval of a
        proportion (1927), this is asymmetric upward, since large estimates have large errors. It is not cut off at
        zero.

        If a sense is rare, a sample with few of its occurrences shows a small effect and no linear part at all, and
        the interval would end below the truth. So the part grows at least by the error of the pairs, as it does by
        itself where an effect is plain. docs/statistics.md has the coverage.
        """
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        least = math.sqrt(self.pairs)
        slope = max(self.linear / max(estimate, least), least) if least else 0.0
        shift = z**2 * slope / 2
        half_width = z * math.sqrt(max(self.pairs + slope * estimate + shift**2 / z**2, self.pairs))
        return estimate + shift - half_width, estimate + shift + half_width


def jackknife_variance(distances: DistanceMatrix, units: Units) -> JackknifeVariance:
    """Estimate the variance of `energy_statistic` by a jackknife over units.

    The statistic is a sum over pairs of units, and varies by what pairs that share a unit have in common. Leaving out
    one unit at a time counts the variance of the pairs twice, and a bootstrap without self-pairs three times, which is
    most of the variance without a difference; here it counts once. This is the correction of Efron and Stein (1981,
    "The jackknife estimate of variance", Ann. Stat. 9), as in the dyadic cluster-robust variance of Aronow, Samii and
    Assenova (2015, Political Analysis 23).
    """
    label, starts, groups = units.label, units.starts, units.groups
    indicator = (label[:, None] == np.arange(groups)).astype(np.float64)
    by_unit = np.add.reduceat(indicator, starts, axis=0)
    sizes = indicator.sum(axis=0)
    pairs = np.outer(sizes, sizes) - by_unit.T @ by_unit
    inner = np.diagonal(pairs)
    coefficients = np.full((groups, groups), 2 / (pairs.sum() - inner.sum()))
    np.fill_diagonal(coefficients, -2 * _shares(sizes) / inner)

    # Subtract each occurrence's distance from all groups alike, which cancels in the statistic but not in its pairs.
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
    return JackknifeVariance(of_pairs, max(of_units - 2 * of_pairs, 0.0))

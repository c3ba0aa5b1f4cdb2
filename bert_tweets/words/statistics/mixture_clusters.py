"""Senses of a word: do its occurrences fall into several clusters, and which occurrence is in which?

Such a cluster is a way of use: a meaning, but also a phrase, a way to begin a tweet, a bot that writes. Clusters are
found without knowledge of groups and times. Near-duplicate clusters are something else: copies of one text.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from bert_tweets.common.arrays import Doubles, Floats, Ints
from bert_tweets.common.errors import UserError
from bert_tweets.common.hashing import generator

# Smallest mean adjusted Rand index with the clusters of resamples at which several senses are reported.
MIN_STABILITY = 0.75
_LEVEL = 0.05
# Number of principal components to cluster in: with so few, a mixture finds few clusters that are not there.
_COMPONENTS = 10
_HALVINGS = 7
_RESAMPLES, _RESAMPLED_SHARE = 10, 0.8
# Half the width of a window, as a share of the distance between two peaks: the three windows do not touch.
_WINDOW = 1 / 6
_PLACES = 21
_STARTS = 5


class Criterion(StrEnum):
    """How the number of senses of a word was chosen."""

    VALLEYS = "valleys"
    TOO_FEW = "too few occurrences"
    IDENTICAL = "identical vectors"


@dataclass(frozen=True)
class FittedSenses:
    """The senses of a word, numbered from 0 by size, largest first.

    Attributes:
        labels: int64 [occurrences], the sense of each occurrence of the fit.
        p_values: p-value of each number of senses above one that was tried, {2: p, …}.
        criterion: how the number was chosen.
        stability: mean adjusted Rand index with the clusters of resamples; 1 for a single sense.
        assign: function from vectors of other occurrences, float32 [rows, width], to their senses, int64 [rows].
    """

    labels: Ints
    p_values: dict[int, float]
    criterion: Criterion
    stability: float
    assign: Callable[[Floats], Ints]

    @property
    def count(self) -> int:
        return int(self.labels.max()) + 1


def find_senses(
    vectors: Floats, word: str, max_senses: int = 5, seed: int = 0, unit: Ints | None = None
) -> FittedSenses:
    """Find the number of senses, and the sense of each occurrence.

    A Gaussian mixture with one covariance for all components is fitted to half of the occurrences, in their first
    `_COMPONENTS` principal components. Its components are senses if every two of them are separated by a valley on the
    other half, see `_valley_p_value`. This is tested on several random halvings, and the p-values are combined as
    twice their median (Meinshausen, Meier and Bühlmann 2009, "p-Values for high-dimensional regression", JASA 104).
    The largest number that is significant, at the level divided by how many numbers are tried, is the number of
    senses; if there is none, it is one. Merging components that no valley separates is due to Hennig 2010, "Methods
    for merging Gaussian mixture components", Adv. Data Anal. Classif. 4; here they are not counted at all.

    Halves consist of whole units: the manner of a single author, be it a person or a bot, is in one of them only, and
    is not a sense, since no other author confirms it.

    Args:
        vectors: float32 [occurrences, width], vectors of one model, one for each near-duplicate cluster.
        word: the word; random halvings depend on it and on the seed.
        max_senses: largest number of senses to try.
        unit: int64 [occurrences], authors where they are known, from 0; None: each occurrence is a unit.

    Raises:
        UserError: scikit-learn is not installed.
    """
    random = generator(seed, "senses", word)
    components = min(_COMPONENTS, len(vectors) // 8)
    if len(vectors) < min_occurrences(max_senses):
        return _single_sense(len(vectors), Criterion.TOO_FEW)
    if not np.ptp(vectors, axis=0).any():
        return _single_sense(len(vectors), Criterion.IDENTICAL)
    pca = _sklearn("decomposition").PCA(
        min(components, vectors.shape[1]), svd_solver="randomized", random_state=_draw_seed(random)
    )
    points = pca.fit_transform(vectors.astype(np.float64))
    halves = [_random_halves(np.arange(len(points)) if unit is None else unit, random) for _ in range(_HALVINGS)]
    level = level_of_each_count(max_senses)
    p_values = {count: _p_value(count, points, halves, level) for count in range(2, max_senses + 1)}
    for count in reversed([count for count, p in p_values.items() if p <= level]):
        mixture = _fit_mixture(count, points, _draw_seed(random))
        found = mixture.predict(points)
        sizes = np.bincount(found, minlength=count)
        if sizes.all() and (stability := _stability(count, points, found, random)) >= MIN_STABILITY:
            place = np.argsort(np.argsort(-sizes, kind="stable"))

            def assign(rows: Floats, mixture: Any = mixture, place: Ints = place) -> Ints:
                if not len(rows):
                    return np.empty(0, np.int64)
                return np.asarray(place[mixture.predict(pca.transform(rows.astype(np.float64)))])

            return FittedSenses(place[found], p_values, Criterion.VALLEYS, stability, assign)
    return _single_sense(len(points), Criterion.VALLEYS, p_values)


def _single_sense(occurrences: int, criterion: Criterion, p_values: dict[int, float] | None = None) -> FittedSenses:
    labels = np.zeros(occurrences, np.int64)
    return FittedSenses(labels, p_values or {}, criterion, 1.0, lambda rows: np.zeros(len(rows), np.int64))


def level_of_each_count(max_senses: int) -> float:
    """The level at which each number of senses above one is tested."""
    return _LEVEL / max(max_senses - 1, 1)


def min_occurrences(max_senses: int) -> int:
    """Occurrences that two senses need: half are held out, and two thirds of a sense are in the window on its peak."""
    return int(2 * 2 * 1.5 * np.ceil(-np.log2(level_of_each_count(max_senses) / 2)))


def _random_halves(unit: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw whole units with as nearly half of all rows as possible; returns their rows and the other rows."""
    order = random.permutation(int(unit.max()) + 1)
    ends = np.append(0, np.cumsum(np.bincount(unit)[order]))
    rows = np.argsort(np.argsort(order)[unit], kind="stable")
    cut = int(ends[np.abs(ends - len(unit) // 2).argmin()])
    return rows[:cut], rows[cut:]


def _p_value(count: int, points: Doubles, halves: list[tuple[Ints, Ints]], level: float) -> float:
    """The p-value of a number of senses: twice the median over the halvings, at most 1."""
    p_values: list[float] = []
    middle = len(halves) // 2
    for fitted, held_out in halves:
        if sum(p > level / 2 for p in p_values) > middle:
            # The median can no longer be small enough.
            break
        p_values.append(_p_value_of_half(count, points[fitted], points[held_out]))
    p_values += [1.0] * (len(halves) - len(p_values))
    return min(2 * float(np.median(p_values)), 1.0)


def _p_value_of_half(count: int, fitted: Doubles, held_out: Doubles) -> float:
    """The largest p-value of all pairs of clusters, fitted on one half and tested on the other."""
    if min(len(fitted), len(held_out)) < 3 * count:
        return 1.0
    mixture = _fit_mixture(count, fitted, 0)
    own, other = mixture.predict(fitted), mixture.predict(held_out)
    if np.bincount(own, minlength=count).min() < 3:
        return 1.0
    return max(
        _valley_p_value([fitted[own == a], fitted[own == b]], held_out[(other == a) | (other == b)])
        for a in range(count)
        for b in range(a)
    )


def _valley_p_value(clusters: list[Doubles], held_out: Doubles) -> float:
    """The p-value of a valley between two clusters, against any density with a single peak.

    On the axis that separates the clusters best (Fisher's), three windows of equal width are placed, using the half of
    the fit: around either median, and around the emptiest place between them. A density with one peak is nowhere
    between lower than at the lower end. So of the held-out occurrences in the middle window and in the emptier outer
    one, at least half would be in the middle: the p-value is a binomial tail, the larger of the two
    (Berger 1982, intersection–union).
    """
    from scipy.stats import binom

    scatter = sum((points - points.mean(axis=0)).T @ (points - points.mean(axis=0)) for points in clusters)
    ridge = 0.1 * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    axis = np.linalg.solve(scatter + ridge, clusters[1].mean(axis=0) - clusters[0].mean(axis=0))
    first, second = (float(np.median(points @ axis)) for points in clusters)
    if second <= first:
        return 1.0
    half_width = _WINDOW * (second - first)
    places = np.linspace(first + 2 * half_width, second - 2 * half_width, _PLACES)
    counts = _counts_in_windows(np.concatenate(clusters) @ axis, places, half_width)
    emptiest = places[np.flatnonzero(counts == counts.min())[[0, -1]]].mean()
    windows = np.array([first, emptiest, second])
    left, valley, right = _counts_in_windows(held_out @ axis, windows, half_width).tolist()
    peak = min(left, right)
    return float(binom.cdf(valley, valley + peak, 0.5)) if valley + peak else 1.0


def _counts_in_windows(values: Doubles, centres: Doubles, half_width: float) -> Ints:
    """int64 [centres], the number of values in the window around each centre."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, centres + half_width, side="right") - np.searchsorted(ordered, centres - half_width)


def _stability(count: int, points: Doubles, labels: Ints, random: np.random.Generator) -> float:
    adjusted_rand = _sklearn("metrics").adjusted_rand_score
    size = int(_RESAMPLED_SHARE * len(points))
    samples = [random.choice(len(points), size, replace=False) for _ in range(_RESAMPLES)]
    return float(
        np.mean([adjusted_rand(labels, _fit_mixture(count, points[rows], 0).predict(points)) for rows in samples])
    )


def _fit_mixture(count: int, points: Doubles, seed: int) -> Any:
    """Fit a mixture of Gaussians with a shared covariance.

    With a covariance for each, a component can consist of the tails of another. The fit starts from k-means: from
    random points the shared covariance absorbs the distances between clusters, and expectation-maximisation stays
    there.
    """
    mixture = _sklearn("mixture").GaussianMixture(
        count,
        covariance_type="tied",
        tol=1e-4,
        max_iter=300,
        n_init=_STARTS,
        init_params="kmeans",
        reg_covar=1e-3 * float(points.var(axis=0).mean()),
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Fewer distinct points than clusters, or no convergence in 300 steps: such a mixture has no valley.
        warnings.simplefilter("ignore", _sklearn("exceptions").ConvergenceWarning)
        return mixture.fit(points)


def _draw_seed(random: np.random.Generator) -> int:
    return int(random.integers(2**31))


def require_sklearn() -> None:
    """Raise UserError if scikit-learn is not installed."""
    _sklearn("mixture")


def has_sklearn() -> bool:
    return importlib.util.find_spec("sklearn") is not None


def _sklearn(name: str) -> Any:
    """Import a module of scikit-learn."""
    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError:
        raise UserError(
            "senses need scikit-learn, which is not installed: pip install 'bert_tweets[words]', or set senses=false"
        ) from None

"""Usage clusters: does a word's occurrences fall into several uses, and which occurrence is of which?

What falls into clusters is use: a meaning, but also a phrase, a way to begin a tweet, a machine that writes. Clusters
are found blind to groups and times.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_tweets.common.errors import UserError
from bert_tweets.common.hashing import generator

from .energy_distance import Doubles, Floats
from .exchangeable_units import Ints

LEVEL = 0.05
# Directions of most variance that clusters are looked for in: with so few, a mixture finds little that is not there.
_DIRECTIONS = 10
_HALVINGS = 7
_RESAMPLES, _RESAMPLED = 10, 0.8
# Half the width of a window, as a share of the way between two hills: hill, valley and hill do not touch.
_WINDOW = 1 / 6
_PLACES = 21
_STARTS = 5
# Adjusted Rand index of clusters with those of resamples, below which they are not told.
_STABLE = 0.75


@dataclass(frozen=True)
class Senses:
    """The usage clusters of a word, numbered from 0 by size, largest first.

    Attributes:
        labels: int64 [occurrences], the cluster of each that they were fitted on.
        p_values: of each number of clusters above one that was tried, {2: p, …}.
        criterion: how the number was chosen, in words.
        stability: mean adjusted Rand index of the clusters with those fitted on resamples, 1 where there is one.
        assign: cluster of other occurrences: float32 [rows, width] to int64 [rows].
    """

    labels: Ints
    p_values: dict[int, float]
    criterion: str
    stability: float
    assign: Callable[[Floats], Ints]

    @property
    def count(self) -> int:
        return int(self.labels.max()) + 1


def find_senses(vectors: Floats, word: str, max_senses: int = 5, seed: int = 0, unit: Ints | None = None) -> Senses:
    """The number of uses, and the use of each occurrence.

    A Gaussian mixture with one covariance for all its components is fitted to half of the occurrences, in their
    `_DIRECTIONS` directions of most variance. Its components are uses if every two of them are separated by a valley
    on the other half, see `_valley`. This is asked of several random halvings, and the p-values joined as twice their
    median (Meinshausen, Meier and Bühlmann 2009, "p-Values for high-dimensional regression", JASA 104). The largest
    number that holds at the level, divided by how many numbers are tried, is the number of uses; else it is one.
    Merging components that no valley separates is due to Hennig 2010, "Methods for merging Gaussian mixture
    components", Adv. Data Anal. Classif. 4; here they are not counted at all.

    Halves are of whole units: what one author alone does, be it a person or a machine, is in one of them, and is no
    use of the word that others bear out.

    Args:
        vectors: float32 [occurrences, width], of one model; one of each near-duplicate cluster.
        word: whose they are; the halvings depend on the seed and on it.
        max_senses: the largest number that is tried.
        seed: of halvings and resamples.
        unit: int64 [occurrences], authors where they are known, from 0; None: each occurrence is one.

    Raises:
        UserError: scikit-learn is not installed.
    """
    random = generator(seed, f"senses of {word}")
    directions = min(_DIRECTIONS, len(vectors) // 8)
    fewest = _fewest(max_senses)
    if len(vectors) < fewest or not np.ptp(vectors, axis=0).any():
        return _one(len(vectors), f"fewer than {fewest} occurrences: several uses could not be told apart")
    learnt = _learner("decomposition").PCA(
        min(directions, vectors.shape[1]), svd_solver="randomized", random_state=_number(random)
    )
    points = learnt.fit_transform(vectors.astype(np.float64))
    halves = [_halved(np.arange(len(points)) if unit is None else unit, random) for _ in range(_HALVINGS)]
    level = LEVEL / max(max_senses - 1, 1)
    p_values = {count: _p_of(count, points, halves, level) for count in range(2, max_senses + 1)}
    criterion = (
        f"the most clusters, up to {max_senses}, of which every two have a valley between them on held-out "
        f"occurrences (p ≤ {level:.3g}), and which resamples bring again (adjusted Rand ≥ {_STABLE:g})"
    )
    for count in reversed([count for count, p in p_values.items() if p <= level]):
        mixture = _mixture(count, points, _number(random))
        found = mixture.predict(points)
        sizes = np.bincount(found, minlength=count)
        if sizes.all() and (stability := _stability(count, points, found, random)) >= _STABLE:
            place = np.argsort(np.argsort(-sizes, kind="stable"))

            def assign(rows: Floats, mixture: Any = mixture, place: Ints = place) -> Ints:
                if not len(rows):
                    return np.empty(0, np.int64)
                labels: Ints = place[mixture.predict(learnt.transform(rows.astype(np.float64)))]
                return labels

            return Senses(place[found], p_values, criterion, stability, assign)
    return _one(len(points), criterion, p_values)


def _one(occurrences: int, criterion: str, p_values: dict[int, float] | None = None) -> Senses:
    """All occurrences in one cluster, which any resample brings again."""
    whole = np.zeros(occurrences, np.int64)
    return Senses(whole, p_values or {}, criterion, 1.0, lambda rows: np.zeros(len(rows), np.int64))


def _fewest(max_senses: int) -> int:
    """Occurrences that two uses need: a half of the occurrences, and two thirds of a use in the window on its hill."""
    in_window = np.ceil(-np.log2(LEVEL / 2 / max(max_senses - 1, 1)))
    return int(2 * 2 * 1.5 * in_window)


def _halved(unit: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Rows of whole units, chosen at random, as near to half of all as comes, and the other rows."""
    order = random.permutation(int(unit.max()) + 1)
    ends = np.append(0, np.cumsum(np.bincount(unit)[order]))
    rows = np.argsort(np.argsort(order)[unit], kind="stable")
    cut = int(ends[np.abs(ends - len(unit) // 2).argmin()])
    return rows[:cut], rows[cut:]


def _p_of(count: int, points: Doubles, halves: list[tuple[Ints, Ints]], level: float) -> float:
    """Twice the median over the halvings of the p-value that a number of clusters has in each, one at most."""
    p_values: list[float] = []
    middle = len(halves) // 2
    for fitted, held_out in halves:
        if sum(p > level / 2 for p in p_values) > middle:
            # Their median is decided: it is not small enough.
            break
        p_values.append(_of_half(count, points[fitted], points[held_out]))
    p_values += [1.0] * (len(halves) - len(p_values))
    return min(2 * float(np.median(p_values)), 1.0)


def _of_half(count: int, fitted: Doubles, held_out: Doubles) -> float:
    """The largest p of all pairs of clusters, fitted on one half and looked at on the other."""
    if min(len(fitted), len(held_out)) < 3 * count:
        return 1.0
    mixture = _mixture(count, fitted, 0)
    own, other = mixture.predict(fitted), mixture.predict(held_out)
    if np.bincount(own, minlength=count).min() < 3:
        return 1.0
    return max(
        _valley([fitted[own == a], fitted[own == b]], held_out[(other == a) | (other == b)])
        for a in range(count)
        for b in range(a)
    )


def _valley(hills: list[Doubles], held_out: Doubles) -> float:
    """The p-value of a valley between two clusters, against any density with a single peak.

    On the axis that separates them best (Fisher's), three windows of one width are laid by the half that the clusters
    were fitted on: around either centre, and around the emptiest place between. A density with one peak is nowhere
    between lower than at the lower end. So of the held-out occurrences in the middle window and in the emptier outer
    one, half or more would be in the middle: the p-value is a binomial tail, the larger of the two
    (Berger 1982, intersection–union).

    Args:
        hills: float64 [occurrences, directions] of two clusters.
        held_out: float64 [others, directions], which were assigned to these two.
    """
    spread = sum((hill - hill.mean(axis=0)).T @ (hill - hill.mean(axis=0)) for hill in hills)
    ridge = 0.1 * np.trace(spread) / len(spread) * np.eye(len(spread))
    axis = np.linalg.solve(spread + ridge, hills[1].mean(axis=0) - hills[0].mean(axis=0))
    first, second = (float(np.median(hill @ axis)) for hill in hills)
    if second <= first:
        return 1.0
    reach = _WINDOW * (second - first)
    places = np.linspace(first + 2 * reach, second - 2 * reach, _PLACES)
    seen = _within(np.concatenate(hills) @ axis, places, reach)
    from scipy.stats import binom

    least = places[np.flatnonzero(seen == seen.min())[[0, -1]]].mean()
    left, valley, right = _within(held_out @ axis, np.array([first, least, second]), reach).tolist()
    hill = min(left, right)
    return float(binom.cdf(valley, valley + hill, 0.5)) if valley + hill else 1.0


def _within(values: Doubles, places: Doubles, reach: float) -> Ints:
    """int64 [places], how many values lie no further from each place than `reach`."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, places + reach, side="right") - np.searchsorted(ordered, places - reach)


def _stability(count: int, points: Doubles, labels: Ints, random: np.random.Generator) -> float:
    rand = _learner("metrics").adjusted_rand_score
    size = int(_RESAMPLED * len(points))
    samples = [random.choice(len(points), size, replace=False) for _ in range(_RESAMPLES)]
    return float(np.mean([rand(labels, _mixture(count, points[rows], 0).predict(points)) for rows in samples]))


def _mixture(count: int, points: Doubles, seed: int) -> Any:
    """A fitted mixture of Gaussians that share their covariance.

    With a covariance for each, a component can be the tails of another. It begins at k-means: from random points the
    shared covariance takes in the clusters' distances, and expectation-maximisation stays there.
    """
    mixture = _learner("mixture").GaussianMixture(
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
        # Fewer different points than clusters, or no end in 300 steps: such a mixture has no valley, and is not taken.
        warnings.simplefilter("ignore", _learner("exceptions").ConvergenceWarning)
        return mixture.fit(points)


def _number(random: np.random.Generator) -> int:
    return int(random.integers(2**31))


def require_learners() -> None:
    """Raises UserError where scikit-learn is not installed, before anything is worked out."""
    _learner("mixture")


def has_learners() -> bool:
    """Whether scikit-learn is installed."""
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def _learner(name: str) -> Any:
    """A module of scikit-learn."""
    import importlib

    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError:
        raise UserError(
            "usage clusters need scikit-learn, which is not installed: pip install 'bert_tweets[words]', or give "
            "senses=false"
        ) from None

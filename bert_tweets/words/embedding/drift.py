"""Drift between base and model: how far a word's neighbours, and its occurrences among each other, stayed the same.

Both measures are computed within each space, on the same occurrences, and only then compared: no vector of one model
is ever compared with one of another. 1 means no change.

    neighbour_overlap      share of a word's k nearest neighbours that are the same in both
    distance_correlation   Spearman's correlation of the cosine distances between a word's occurrences in both
                           (representational similarity analysis; Kriegeskorte et al. 2008)

Any further training moves every word somewhat, so a word's value is reported next to those of control words and the
spread over training seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr, rankdata

from bert_tweets.common.arrays import Doubles, Floats, Ints, run_starts
from bert_tweets.common.hashing import generator
from bert_tweets.words.occurrences.find import FOUND, Occurrences
from bert_tweets.words.store.summary import MeasureDrift, WordDrift
from bert_tweets.words.store.vector_space import Vectors

from .neighbours import overlap
from .study import ModelResult

Values = list[float | None]

# Number of occurrences of a word: with fewer the correlation is not meaningful, of more a sample is used.
FEWEST, MOST = 10, 500


def sample_for_distances(occurrences: Occurrences, keys: Sequence[str], seed: int) -> list[Ints]:
    """Choose the occurrences of each word whose distances are compared: found ones, one per near-duplicate cluster.

    Copies coincide in every space, which would look like agreement. Returns int64 rows of each word in ascending order,
    at most `MOST`, a seeded sample of more.
    """
    found = np.flatnonzero(occurrences.status == FOUND)
    word, cluster = occurrences.places.word[found], occurrences.cluster[found]
    order = np.lexsort((found, cluster, word))
    first = order[run_starts(word[order], cluster[order])]
    bounds = np.searchsorted(word[first], np.arange(len(keys) + 1))
    chosen = []
    for number, key in enumerate(keys):
        rows = found[first[bounds[number] : bounds[number + 1]]]
        if len(rows) > MOST:
            rows = generator(seed, "distances", key).choice(rows, MOST, replace=False)
        chosen.append(np.sort(rows))
    return chosen


class RowCollector:
    """Keeps the vectors of selected rows (int64, for each word) of a stream of all rows."""

    def __init__(self, selected: Sequence[Ints], width: int):
        self.selected = selected
        self._rows = np.unique(np.concatenate([np.empty(0, np.int64), *selected]))
        self._values = np.empty((len(self._rows), width), np.float32)

    def add(self, rows: slice, vectors: Floats) -> None:
        """Take a slice of the rows with its vectors, float32 [rows, width]."""
        first, last = np.searchsorted(self._rows, [rows.start, rows.stop])
        self._values[first:last] = vectors[self._rows[first:last] - rows.start]

    def of_word(self, word: int) -> Floats:
        """The selected vectors of a word; float32 [rows, width]."""
        return self._values[np.searchsorted(self._rows, self.selected[word])]


def distance_ranks(vectors: Vectors, origin: Doubles | None) -> Floats | None:
    """Rank the cosine distances between the vectors of a word; None for fewer than `FEWEST` vectors.

    `origin`, float64 [width], is subtracted first, as for neighbours.

    Returns:
        float32 [rows · (rows - 1) / 2], from 1, in the order of `numpy.triu_indices`; ties have their mean rank.
        Ranks up to 8 million are exact in float32.
    """
    if len(vectors) < FEWEST:
        return None
    cosines = vectors.cosines(vectors, origin)
    return np.asarray(rankdata(1.0 - cosines[np.triu_indices(len(vectors), 1)]), np.float32)


def rank_correlation(before: Floats | None, after: Floats | None) -> float | None:
    """Spearman's correlation, from ranks; None if one is missing or constant."""
    if before is None or after is None or np.ptp(before) == 0 or np.ptp(after) == 0:
        return None
    return float(pearsonr(before.astype(np.float64), after.astype(np.float64)).statistic)


@dataclass(frozen=True)
class SeedDrift:
    """Both measures by word, chosen words first, for one training seed; None where a measure is not defined."""

    neighbour_overlap: Values
    distance_correlation: Values


def measure_drift(base: ModelResult, model: ModelResult) -> SeedDrift:
    names = ([[name for name, _ in near] for near in one.neighbours] for one in (base, model))
    ranks = zip(base.distance_ranks, model.distance_ranks, strict=True)
    return SeedDrift([overlap(*pair) for pair in zip(*names, strict=True)], [rank_correlation(*pair) for pair in ranks])


def summarize_drift(seeds: Sequence[SeedDrift], num_chosen: int) -> list[WordDrift]:
    """The drift of each chosen word, ranked among the control words, which follow the chosen words in `seeds`."""
    overlaps = [seed.neighbour_overlap for seed in seeds]
    correlations = [seed.distance_correlation for seed in seeds]
    return [
        WordDrift(_among_controls(overlaps, word, num_chosen), _among_controls(correlations, word, num_chosen))
        for word in range(num_chosen)
    ]


def mean_over_seeds(values: Sequence[float | None]) -> float | None:
    """The mean of the defined values, rounded to 4 digits."""
    return _rounded(_mean(values))


def _among_controls(seeds: list[Values], word: int, num_chosen: int) -> MeasureDrift:
    by_seed = [values[word] for values in seeds]
    means = (_mean(values) for values in zip(*(values[num_chosen:] for values in seeds), strict=True))
    controls = [mean for mean in means if mean is not None]
    own = _mean(by_seed)
    quantiles = [round(float(q), 4) for q in np.quantile(controls, [0.025, 0.5, 0.975])] if controls else None
    return MeasureDrift(
        by_seed=[_rounded(value) for value in by_seed],
        control_quantiles=(quantiles[0], quantiles[1], quantiles[2]) if quantiles else None,
        rank=1 + sum(control <= own for control in controls) if controls and own is not None else None,
        num_ranked=len(controls) + 1 if controls else 0,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

"""Before and after: how far a word's place among the others, and its occurrences among themselves, stayed as they were.

Both measures are taken within each space, on the same occurrences, and only then compared: no vector of one model is
ever held against one of another. 1 means that nothing moved.

    neighbour_overlap      the share of a word's k nearest neighbours that are the same before and after
    distance_correlation   Spearman's correlation of the cosine distances between a word's occurrences, before and after
                           (representational similarity; Kriegeskorte et al. 2008)

Any further training moves every word somewhat, so that a word's figure stands beside those of control words and the
spread over training seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.hashing import generator
from bert_tweets.words.occurrences.find import FOUND, Occurrences
from bert_tweets.words.store.vector_space import Doubles, Vectors

from .neighbours import overlap

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Of a word's occurrences: fewer say nothing, of more a sample does.
FEWEST, MOST = 10, 500
MEASURES = ("neighbour_overlap", "distance_correlation")


def compared(occurrences: Occurrences, keys: Sequence[str], seed: int) -> list[Ints]:
    """The occurrences of each word whose distances are compared: found, one a near-duplicate cluster, a seeded sample.

    Copies lie at one point in every space, which would pass for agreement.

    Args:
        occurrences: of the words, by number.
        keys: of the words.
        seed: of the sample.

    Returns:
        For each word int64 rows in ascending order, `MOST` at the most.
    """
    found = np.flatnonzero(occurrences.status == FOUND)
    word, cluster = occurrences.places.word[found], occurrences.cluster[found]
    order = np.lexsort((found, cluster, word))
    is_first = (np.diff(word[order], prepend=-1) != 0) | (np.diff(cluster[order], prepend=-1) != 0)
    first = order[is_first]
    bounds = np.searchsorted(word[first], np.arange(len(keys) + 1))
    chosen = []
    for number, key in enumerate(keys):
        rows = found[first[bounds[number] : bounds[number + 1]]]
        if len(rows) > MOST:
            rows = generator(seed, f"distances of {key}").choice(rows, MOST, replace=False)
        chosen.append(np.sort(rows))
    return chosen


class Kept:
    """Vectors of some rows, kept as all of them stream by.

    Args:
        parts: int64 rows of each word.
        width: of a vector.
    """

    def __init__(self, parts: Sequence[Ints], width: int):
        self.parts = parts
        self._rows = np.unique(np.concatenate([np.empty(0, np.int64), *parts]))
        self._values = np.empty((len(self._rows), width), np.float32)

    def add(self, rows: slice, vectors: Floats) -> None:
        """Takes a slice of the rows with its vectors, float32 [rows, width]."""
        first, last = np.searchsorted(self._rows, [rows.start, rows.stop])
        self._values[first:last] = vectors[self._rows[first:last] - rows.start]

    def of(self, word: int) -> Floats:
        """float32 [rows of the word, width]."""
        return self._values[np.searchsorted(self._rows, self.parts[word])]


def distance_ranks(vectors: Vectors, origin: Doubles | None) -> Floats | None:
    """Ranks of the cosine distances between the rows of one space; None for fewer than `FEWEST` rows.

    Args:
        vectors: of a word's occurrences.
        origin: float64 [width], taken off first, as for neighbours.

    Returns:
        float32 [rows · (rows - 1) / 2], from 1, in the order of `numpy.triu_indices`; ties have their mean rank.
    """
    if len(vectors) < FEWEST:
        return None
    cosines = vectors.cosines(vectors, origin)
    return ranks(1.0 - cosines[np.triu_indices(len(vectors), 1)])


def ranks(values: Doubles) -> Floats:
    """Ranks from 1; ties have their mean rank. Exact in float32 for up to 8 million values."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place].astype(np.float32)


def correlation(before: Floats | None, after: Floats | None) -> float | None:
    """Pearson's correlation of ranks, which is Spearman's of the values; None where one is missing or constant."""
    if before is None or after is None:
        return None
    one, other = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (before, after))
    scale = np.sqrt(one @ one) * np.sqrt(other @ other)
    return float(one @ other / scale) if scale else None


@dataclass(frozen=True)
class Side:
    """What one model is compared by.

    Attributes:
        neighbours: of each word, the k nearest.
        distances: of each word, see `distance_ranks`.
    """

    neighbours: list[list[str]]
    distances: list[Floats | None]


def drift_by_word(before: Side, after: Side) -> dict[str, list[float | None]]:
    """Both measures, by word."""
    return {
        "neighbour_overlap": [overlap(*pair) for pair in zip(before.neighbours, after.neighbours, strict=True)],
        "distance_correlation": [correlation(*pair) for pair in zip(before.distances, after.distances, strict=True)],
    }


def summarized(seeds: Sequence[dict[str, list[float | None]]], asked: int) -> list[dict[str, Any]]:
    """What summary.json says of each asked word beside the control words.

    Args:
        seeds: by training seed, see `drift_by_word`; control words stand behind the asked ones.
        asked: how many are asked.

    Returns:
        For each asked word and measure: `by_seed`; `controls`, the 2.5 % quantile, median and 97.5 % quantile of the
        control words' means over seeds, or None; `rank` of the word's own mean among them, 1 where it moved more than
        every one of them (equal ones count against it); `of`, how many controls have a figure.
    """
    return [
        {measure: _beside([seed[measure] for seed in seeds], word, asked) for measure in MEASURES}
        for word in range(asked)
    ]


def over_seeds(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _beside(seeds: list[list[float | None]], word: int, asked: int) -> dict[str, Any]:
    by_seed = [values[word] for values in seeds]
    means = (over_seeds(values) for values in zip(*(values[asked:] for values in seeds), strict=True))
    controls = [mean for mean in means if mean is not None]
    own = over_seeds(by_seed)
    known = own is not None and bool(controls)
    return {
        "by_seed": [rounded(value) for value in by_seed],
        "controls": [rounded(float(q)) for q in np.quantile(controls, [0.025, 0.5, 0.975])] if controls else None,
        "rank": 1 + sum(control <= own for control in controls) if known and own is not None else None,
        # With the word itself.
        "of": len(controls) + 1 if controls else 0,
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

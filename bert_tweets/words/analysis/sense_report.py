"""The senses of a word: sizes, typical occurrences, substitutes, associations with columns, shares by group."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Bools, Doubles, Floats, Ints
from bert_tweets.common.hashing import generator
from bert_tweets.words.statistics.exchangeable_units import Exchange, Units, earliest_per_cluster
from bert_tweets.words.statistics.mixture_clusters import FittedSenses, find_senses
from bert_tweets.words.statistics.permutation_test import q_values
from bert_tweets.words.store.reader import VectorStore, centroids_of, chosen_words_of, control_mean
from bert_tweets.words.store.vector_space import Vectors

from .occurrence_table import text_numbers, times_of, unit_order, units_of
from .records import Association, AssociationMeasure, GroupShare, ShareInterval, WordSenses

# Columns that senses are tested for association with: numbers, and texts.
_NUMERIC = ("links", "retweet", "tweet_length", "position")
_CATEGORICAL = ("casing",)
COLUMNS = ("word", "tweet_id", "cluster", "author", "time", "start", "end", "substitutes", *_NUMERIC, *_CATEGORICAL)
_TYPICAL, _SUBSTITUTES, _NEAREST = 5, 10, 10


@dataclass(frozen=True)
class SenseModel:
    """The senses of a word's occurrences.

    Attributes:
        fitted: senses of one occurrence of each near-duplicate cluster.
        max_senses: largest number of senses that was tried.
        rows: pyarrow Table of the occurrences of the fit, by unit.
        units: units of these occurrences; labels are senses.
        all_labels: int64 [occurrences], the sense of every occurrence, copies included.
        centroids: float32 [senses, width].
        typical: int64 [senses, up to 5], the rows nearest to each centroid.
    """

    word: str
    fitted: FittedSenses
    max_senses: int
    rows: pa.Table
    units: Units
    all_labels: Ints
    centroids: Floats
    typical: list[Ints] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """`virus#1`, `virus#2`, … by size."""
        return [f"{self.word}#{number + 1}" for number in range(len(self.centroids))]


def fit_senses(
    word: str, rows: pa.Table, vectors: Floats, max_senses: int, seed: int, max_occurrences: int = 2000
) -> SenseModel:
    """Find the senses of a word, without groups, in the earliest occurrence of each near-duplicate cluster.

    Args:
        rows: its found occurrences in one model, with those of COLUMNS that are available.
        vectors: float32 [occurrences, width], their vectors.
        max_occurrences: largest number of near-duplicate clusters; of more, a random sample is used.
    """
    cluster = rows.column("cluster").to_numpy()
    kept = earliest_per_cluster(cluster, times_of(rows), generator(seed, "duplicates", word))
    if len(kept) > max_occurrences:
        kept = np.sort(generator(seed, "occurrences", word).choice(kept, max_occurrences, replace=False))
    author = text_numbers(rows.column("author")) if "author" in rows.column_names else np.full(len(rows), -1)
    kept, unit = unit_order(kept, units_of(author[kept], cluster[kept]))
    fitted = find_senses(vectors[kept], word, max_senses, seed, unit)
    labels = fitted.assign(vectors)
    labels[kept] = fitted.labels
    members = [np.flatnonzero(fitted.labels == number) for number in range(fitted.count)] if len(kept) else []
    centroids = np.array([vectors[kept[own]].mean(axis=0, dtype=np.float64) for own in members], np.float32)
    typical = [
        own[np.argsort(((vectors[kept[own]] - centroid) ** 2).sum(axis=1), kind="stable")[:_TYPICAL]]
        for own, centroid in zip(members, centroids, strict=True)
    ]
    units = Units(unit, fitted.labels)
    return SenseModel(word, fitted, max_senses, rows.take(pa.array(kept)), units, labels, centroids, typical)


def describe_senses(
    model: SenseModel, groups: Sequence[str | None], names: Sequence[str], permutations: int, seed: int
) -> WordSenses:
    """The record of a word in senses.json, without nearest words and q-values; the group of some rows may be None."""
    fitted, rows = model.fitted, model.rows
    sizes = np.bincount(fitted.labels, minlength=len(model.centroids))
    associations = _associations(model, permutations, seed)
    label = np.array([names.index(group) if group is not None else -1 for group in groups], np.int64)
    record: WordSenses = {
        "count": len(model.centroids),
        "criterion": fitted.criterion,
        "max_senses": model.max_senses,
        "p_values": {str(count): round(p, 6) for count, p in fitted.p_values.items()},
        "stability": round(fitted.stability, 4),
        "n": len(rows),
        "authors": _count_authors(rows, np.ones(len(rows), np.bool_)),
        "senses": [],
    }
    for number, name in enumerate(model.names):
        member = fitted.labels == number
        shares: list[GroupShare] = [
            {"group": group, **share_interval(member, model.units.unit, label == place)}
            for place, group in enumerate(names)
        ]
        record["senses"].append(
            {
                "name": name,
                "size": int(sizes[number]),
                "authors": _count_authors(rows, member),
                "share": round(float(sizes[number] / sizes.sum()), 4),
                "words": [],
                "substitutes": _frequent_substitutes(rows, member),
                "typical": _positions(rows, model.typical[number]),
                "associations": associations[number],
                "shares": shares,
            }
        )
    return record


def share_interval(member: Bools, unit: Ints, in_group: Bools, confidence: float = 0.95) -> ShareInterval:
    """The share of a sense in a group, with an interval that treats whole units as the evidence.

    Wilson's interval (1927) at the size of a simple random sample with the same variance: the variance is that of a
    ratio over units, linearised (Korn and Graubard 1998, "Confidence intervals for proportions with small expected
    number of positive counts", Survey Methodology 24). If all occurrences or none are members, each unit counts once.

    Args:
        member: bool [occurrences], whether an occurrence has the sense.
        unit: int64 [occurrences], authors or near-duplicate clusters.
        in_group: bool [occurrences], whether an occurrence is in the group.
    """
    from scipy.stats import t

    n = int(in_group.sum())
    if not n:
        return {"share": None, "low": None, "high": None, "n": 0}
    _, owner = np.unique(unit[in_group], return_inverse=True)
    unit_sizes, members = np.bincount(owner), np.bincount(owner, member[in_group])
    share, units = float(members.sum() / n), len(unit_sizes)
    size = float(units)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    if 0 < share < 1 and units > 1:
        variance = units / (units - 1) * float(((members - share * unit_sizes) ** 2).sum()) / n**2
        size = min(share * (1 - share) / variance, float(n)) if variance > 0 else float(units)
        # The variance is itself an estimate, and a rough one with few units.
        size *= (z / float(t.ppf((1 + confidence) / 2, units - 1))) ** 2
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half_width = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    low, high = max(middle - half_width, 0.0), min(middle + half_width, 1.0)
    return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4), "n": n}


def add_q_values(records: Sequence[WordSenses]) -> None:
    """Add a q-value to every association, over all senses of all words."""
    tests = [test for record in records for sense in record["senses"] for test in sense["associations"]]
    adjusted = q_values(np.array([test["p_value"] for test in tests]))
    for test, q_value in zip(tests, adjusted.tolist(), strict=True):
        test["q_value"] = q_value


def add_nearest_words(records: dict[str, WordSenses], models: Sequence[SenseModel], store: VectorStore) -> None:
    """Add to every sense the words of the folder, control words included, with the nearest centroids by cosine."""
    means, own = centroids_of(store), set(chosen_words_of(store))
    known = np.flatnonzero(~np.isnan(means).any(axis=1))
    origin = control_mean(store.space, means[[row for row in known.tolist() if store.words[row] not in own]])
    others = Vectors(store.space, means[known])
    for model in models:
        cosines = Vectors(store.space, model.centroids).cosines(others, origin)
        for sense, row in zip(records[model.word]["senses"], cosines, strict=True):
            ranked = [store.words[known[place]] for place in np.argsort(-row, kind="stable").tolist()]
            sense["words"] = [word for word in ranked if word != model.word][:_NEAREST]


def _associations(model: SenseModel, permutations: int, seed: int) -> list[list[Association]]:
    """The associations of each sense, compared with all others, with the columns; empty for a single sense.

    For numbers the statistic is the rank-biserial correlation (Cliff's delta): how much more often an occurrence of
    the sense has the larger value than the smaller one. For texts it is Cramér's V. The tests permute the senses
    between whole units.
    """
    count = len(model.centroids)
    found: list[list[Association]] = [[] for _ in range(count)]
    available = [name for name in (*_NUMERIC, *_CATEGORICAL) if name in model.rows.column_names]
    columns = {name: model.rows.column(name).combine_chunks() for name in available}
    columns = {name: column for name, column in columns.items() if not column.null_count and len(column.unique()) > 1}
    if count < 2 or not columns:
        return found
    random = generator(seed, "associations", model.word)
    observed = _statistics(model.units.label[None], count, columns)[:, :, 0]
    beyond = np.zeros_like(observed)
    for labels in Exchange(model.units).shuffles(permutations, random):
        beyond += (np.abs(_statistics(labels, count, columns)) >= np.abs(observed)[..., None] - 1e-9).sum(axis=2)
    for number, place in np.ndindex(*observed.shape):
        name = list(columns)[place]
        found[number].append(
            {
                "covariate": name,
                "measure": AssociationMeasure.RANK_BISERIAL if name in _NUMERIC else AssociationMeasure.CRAMERS_V,
                "statistic": round(float(observed[number, place]), 4),
                "p_value": float((beyond[number, place] + 1) / (permutations + 1)),
                "q_value": None,
            }
        )
    return found


def _statistics(labels: Ints, count: int, columns: dict[str, pa.Array]) -> Doubles:
    """float64 [senses, columns, times], from labels, int64 [times, occurrences]."""
    return np.stack(
        [
            [(_rank_biserial if name in _NUMERIC else _cramers_v)(member, column) for name, column in columns.items()]
            for member in ((labels == number).astype(np.float64) for number in range(count))
        ]
    )


def _rank_biserial(member: Doubles, column: pa.Array) -> Doubles:
    """float64 [times], from memberships, float64 [times, occurrences], and a number for each occurrence."""
    from scipy.stats import rankdata

    ranks = rankdata(np.asarray(column.to_numpy(zero_copy_only=False), np.float64))
    inside = member.sum(axis=1)
    outside = member.shape[1] - inside
    larger = member @ ranks - inside * (inside + 1) / 2
    return np.asarray(2 * larger / (inside * outside) - 1)


def _cramers_v(member: Doubles, column: pa.Array) -> Doubles:
    """float64 [times], from memberships, float64 [times, occurrences], and a text for each occurrence."""
    categories = text_numbers(column)
    indicator = (categories[:, None] == np.unique(categories)).astype(np.float64)
    counts, totals, size = member @ indicator, indicator.sum(axis=0), member.shape[1]
    inside = member.sum(axis=1, keepdims=True)
    expected = inside * totals / size
    # Over the sense and its complement, whose counts differ from the expected ones by the same amount.
    squares = ((counts - expected) ** 2 * (1 / expected + 1 / (totals - expected))).sum(axis=1)
    return np.asarray(np.sqrt(squares / size))


def _frequent_substitutes(rows: pa.Table, member: Bools) -> list[tuple[str, int]]:
    """The most frequent substitutes of a sense's occurrences, with their counts."""
    if "substitutes" not in rows.column_names:
        return []
    substitutes = rows.column("substitutes").filter(pa.array(member)).combine_chunks()
    counts = Counter(dict(pair.values() for pair in pc.value_counts(substitutes.flatten()).to_pylist()))
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_SUBSTITUTES]


def _count_authors(rows: pa.Table, member: Bools) -> int | None:
    """The number of known authors of the selected occurrences; None if there is none."""
    if "author" not in rows.column_names:
        return None
    return len(rows.column("author").filter(pa.array(member)).drop_null().unique()) or None


def _positions(rows: pa.Table, places: Ints) -> list[tuple[str, int, int]]:
    """Tweet id, start and end of some rows."""
    columns = rows.select(["tweet_id", "start", "end"]).take(pa.array(places)).to_pydict()
    return list(zip(columns["tweet_id"], columns["start"], columns["end"], strict=True))

"""What is said of a word's usage clusters: sizes, typical occurrences, substitutes, associations, shares by group."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.hashing import generator
from bert_tweets.words.statistics.energy_distance import Doubles, Floats
from bert_tweets.words.statistics.exchangeable_units import Exchange, Ints, Units, earliest
from bert_tweets.words.statistics.mixture_clusters import Senses, find_senses
from bert_tweets.words.statistics.permutation_test import false_discovery_rates
from bert_tweets.words.store.reader import VectorStore, asked, centroids_of, control_mean
from bert_tweets.words.store.vector_space import Vectors

# What embed writes of an occurrence that its cluster is held against.
NUMBERS = ("links", "retweet", "tweet_length", "position")
KINDS = ("casing",)
COLUMNS = ("word", "tweet_id", "cluster", "author", "time", "start", "end", "substitutes", *NUMBERS, *KINDS)
_TYPICAL, _SUBSTITUTES, _NEAREST = 5, 10, 10
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Usage:
    """The usage clusters of a word's occurrences.

    Attributes:
        word: the word.
        senses: of one occurrence a near-duplicate cluster.
        rows: pyarrow Table of these, their units in ascending order.
        units: of these; labels are their senses.
        all_labels: int64 [occurrences], the sense of every occurrence, copies too.
        centroids: float32 [senses, width].
        typical: int64 [senses, up to 5], rows nearest to each centroid.
    """

    word: str
    senses: Senses
    rows: pa.Table
    units: Units
    all_labels: Ints
    centroids: Floats
    typical: list[Ints] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """`virus#1`, `virus#2`, … by size."""
        return [f"{self.word}#{number + 1}" for number in range(len(self.centroids))]


def usage_of(
    word: str, rows: pa.Table, vectors: Floats, max_senses: int, seed: int, max_occurrences: int = 2000
) -> Usage:
    """Finds a word's uses, blind to groups: on the earliest occurrence of each near-duplicate cluster.

    Args:
        word: the word.
        rows: its found occurrences, of one model: COLUMNS, as far as they are there.
        vectors: float32 [occurrences, width], theirs.
        max_senses: uses at most.
        seed: of the search, and of the sample.
        max_occurrences: near-duplicate clusters that are looked at, a seeded sample.
    """
    cluster = rows.column("cluster").to_numpy()
    kept = earliest(cluster, _times(rows), generator(seed, f"copies of {word}"))
    if len(kept) > max_occurrences:
        kept = np.sort(generator(seed, f"occurrences of {word}").choice(kept, max_occurrences, replace=False))
    author = _numbers(rows.column("author")) if "author" in rows.column_names else np.full(len(rows), -1)
    unit = np.where(author[kept] >= 0, author[kept], -1 - cluster[kept])
    order = np.lexsort((kept, unit))
    kept, unit = kept[order], np.unique(unit[order], return_inverse=True)[1]
    senses = find_senses(vectors[kept], word, max_senses, seed, unit)
    labels = senses.assign(vectors)
    labels[kept] = senses.labels
    members = [np.flatnonzero(senses.labels == number) for number in range(senses.count)] if len(kept) else []
    centroids = np.array([vectors[kept[own]].mean(axis=0, dtype=np.float64) for own in members], np.float32)
    typical = [
        own[np.argsort(((vectors[kept[own]] - centroid) ** 2).sum(axis=1), kind="stable")[:_TYPICAL]]
        for own, centroid in zip(members, centroids, strict=True)
    ]
    return Usage(word, senses, rows.take(pa.array(kept)), Units(unit, senses.labels), labels, centroids, typical)


def described(
    usage: Usage, groups: Sequence[str | None], names: Sequence[str], permutations: int, seed: int
) -> dict[str, Any]:
    """The record of a word in senses.json, but for `words` and q-values.

    Args:
        usage: of the word.
        groups: of each of its rows; None where it is in none.
        names: of the groups, in order.
        permutations: of each association's test.
        seed: of the permutations.
    """
    labels, sizes = usage.senses.labels, np.bincount(usage.senses.labels, minlength=len(usage.centroids))
    associations = _associations(usage, permutations, seed)
    label = np.array([names.index(group) if group is not None else -1 for group in groups], np.int64)
    clusters = [
        {
            "name": name,
            "size": int(sizes[number]),
            "authors": _authors(usage.rows, labels == number),
            "share": round(float(sizes[number] / sizes.sum()), 4),
            "words": [],
            "substitutes": _substitutes(usage.rows, labels == number),
            "typical": _places(usage.rows, usage.typical[number]),
            "associations": associations[number],
            "shares": [
                {"group": group, **share_of(labels == number, usage.units.unit, label == place)}
                for place, group in enumerate(names)
            ],
        }
        for number, name in enumerate(usage.names)
    ]
    return {
        "count": len(usage.centroids),
        "criterion": usage.senses.criterion,
        "p_values": {str(count): round(p, 6) for count, p in usage.senses.p_values.items()},
        "stability": round(usage.senses.stability, 4),
        "n": len(usage.rows),
        "authors": _authors(usage.rows, np.ones(len(usage.rows), np.bool_)),
        "clusters": clusters,
    }


def share_of(
    member: npt.NDArray[np.bool_], unit: Ints, there: npt.NDArray[np.bool_], confidence: float = 0.95
) -> dict[str, Any]:
    """The share of a usage cluster in a group, with an interval that takes whole units for the evidence.

    Wilson's interval (1927) at the size of a simple random sample that would vary as much: the variance is that of a
    ratio over units, linearised (Korn and Graubard 1998, "Confidence intervals for proportions with small expected
    number of positive counts", Survey Methodology 24). Where all or none are members, each unit counts as one.

    Args:
        member: bool [occurrences], of the cluster.
        unit: int64 [occurrences], authors, or near-duplicate clusters.
        there: bool [occurrences], in the group.

    Returns:
        share, low, high (None where nothing is there) and n, occurrences there.
    """
    from scipy.stats import t

    n = int(there.sum())
    if not n:
        return {"share": None, "low": None, "high": None, "n": 0}
    _, owner = np.unique(unit[there], return_inverse=True)
    of_unit, members = np.bincount(owner), np.bincount(owner, member[there])
    share, units = float(members.sum() / n), len(of_unit)
    size = float(units)
    if 0 < share < 1 and units > 1:
        variance = units / (units - 1) * float(((members - share * of_unit) ** 2).sum()) / n**2
        size = min(share * (1 - share) / variance, float(n)) if variance > 0 else float(units)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    if 0 < share < 1 and units > 1:
        # The variance is itself an estimate, of few units a rough one.
        size *= (z / float(t.ppf((1 + confidence) / 2, units - 1))) ** 2
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    reach = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    low, high = max(middle - reach, 0.0), min(middle + reach, 1.0)
    return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4), "n": n}


def with_q_values(records: Sequence[dict[str, Any]]) -> None:
    """Gives every association of every word its false-discovery rate, over all of them."""
    tests = [test for record in records for cluster in record["clusters"] for test in cluster["associations"]]
    q_values = false_discovery_rates(np.array([test["p_value"] for test in tests]))
    for test, q_value in zip(tests, q_values.tolist(), strict=True):
        test["q_value"] = q_value


def with_nearest(records: dict[str, dict[str, Any]], usages: Sequence[Usage], source: VectorStore) -> None:
    """Gives every cluster the words of the folder whose centroids lie nearest to it, by cosine, see `control_mean`.

    Args:
        records: of senses.json, by word.
        usages: of these words.
        source: of all words of the folder, controls too.
    """
    means, own = centroids_of(source), set(asked(source))
    known = np.flatnonzero(~np.isnan(means).any(axis=1))
    origin = control_mean(source.space, means[[row for row in known.tolist() if source.words[row] not in own]])
    others = Vectors(source.space, means[known])
    for usage in usages:
        cosines = Vectors(source.space, usage.centroids).cosines(others, origin)
        for cluster, row in zip(records[usage.word]["clusters"], cosines, strict=True):
            ranked = [source.words[known[place]] for place in np.argsort(-row, kind="stable").tolist()]
            cluster["words"] = [word for word in ranked if word != usage.word][:_NEAREST]


def _associations(usage: Usage, permutations: int, seed: int) -> list[list[dict[str, Any]]]:
    """Of each cluster against the others: how it goes with what embed wrote of the tweets; none of a single cluster.

    Of numbers the statistic is the rank-biserial correlation (Cliff's delta): by how much likelier an occurrence of the
    cluster is to have the larger value than the smaller one. Of kinds it is Cramér's V. p-values are of permutations
    of the clusters between whole units.
    """
    count = len(usage.centroids)
    found: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    there = [name for name in (*NUMBERS, *KINDS) if name in usage.rows.column_names]
    values = {name: usage.rows.column(name).combine_chunks() for name in there}
    values = {name: column for name, column in values.items() if not column.null_count and len(column.unique()) > 1}
    if count < 2 or not values:
        return found
    random = generator(seed, f"associations of {usage.word}")
    observed = _statistics(usage.units.label[None], count, values)[:, :, 0]
    beyond = np.zeros_like(observed)
    for labels in Exchange(usage.units).shuffled(permutations, random):
        beyond += (np.abs(_statistics(labels, count, values)) >= np.abs(observed)[..., None] - 1e-9).sum(axis=2)
    for number, place in np.ndindex(*observed.shape):
        name = list(values)[place]
        test = {
            "covariate": name,
            "measure": "rank-biserial correlation" if name in NUMBERS else "Cramér's V",
            "statistic": round(float(observed[number, place]), 4),
            "p_value": float((beyond[number, place] + 1) / (permutations + 1)),
            "q_value": None,
        }
        found[number].append(test)
    return found


def _statistics(labels: Ints, count: int, values: dict[str, pa.Array]) -> Doubles:
    """float64 [clusters, covariates, times], from labels, int64 [times, occurrences]."""
    return np.stack(
        [
            [(_biserial if name in NUMBERS else _cramers_v)(member, column) for name, column in values.items()]
            for member in ((labels == number).astype(np.float64) for number in range(count))
        ]
    )


def _biserial(member: Doubles, column: pa.Array) -> Doubles:
    """float64 [times], from memberships [times, occurrences] and a value of each occurrence."""
    from scipy.stats import rankdata

    ranks = rankdata(np.asarray(column.to_numpy(zero_copy_only=False), np.float64))
    inside = member.sum(axis=1)
    outside = member.shape[1] - inside
    larger = member @ ranks - inside * (inside + 1) / 2
    result: Doubles = 2 * larger / (inside * outside) - 1
    return result


def _cramers_v(member: Doubles, column: pa.Array) -> Doubles:
    """float64 [times], from memberships [times, occurrences] and a kind of each occurrence."""
    kinds = _numbers(column)
    which = (kinds[:, None] == np.unique(kinds)).astype(np.float64)
    seen, totals, size = member @ which, which.sum(axis=0), member.shape[1]
    inside = member.sum(axis=1, keepdims=True)
    expected = inside * totals / size
    # Of the cluster and of the rest; they miss the expected by as much.
    squares = ((seen - expected) ** 2 * (1 / expected + 1 / (totals - expected))).sum(axis=1)
    result: Doubles = np.sqrt(squares / size)
    return result


def _substitutes(rows: pa.Table, member: npt.NDArray[np.bool_]) -> list[list[Any]]:
    """The words that stand most often among the substitutes of a cluster's occurrences, and how often."""
    if "substitutes" not in rows.column_names:
        return []
    chosen = rows.column("substitutes").filter(pa.array(member)).combine_chunks()
    counts = Counter(dict(pair.values() for pair in pc.value_counts(chosen.flatten()).to_pylist()))
    return [
        [word, count] for word, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_SUBSTITUTES]
    ]


def _authors(rows: pa.Table, member: npt.NDArray[np.bool_]) -> int | None:
    """How many authors a cluster's occurrences have, of those that are known; None where none is."""
    if "author" not in rows.column_names:
        return None
    return len(rows.column("author").filter(pa.array(member)).drop_null().unique()) or None


def _places(rows: pa.Table, chosen: Ints) -> list[list[Any]]:
    taken = rows.select(["tweet_id", "start", "end"]).take(pa.array(chosen)).to_pydict()
    return [list(place) for place in zip(*taken.values(), strict=True)]


def _times(rows: pa.Table) -> Ints:
    if "time" not in rows.column_names:
        return np.zeros(len(rows), np.int64)
    seconds = rows.column("time").cast(pa.timestamp("s")).cast(pa.int64())
    return np.asarray(pc.fill_null(seconds, _NEVER), np.int64)


def _numbers(column: Any) -> Ints:
    """Texts as numbers that tell them apart; -1 where there is none."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(pc.fill_null(column.dictionary_encode().indices, -1), np.int64)

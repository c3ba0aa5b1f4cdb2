"""Decide which rows of all units are kept, and their split and shard.

Decided in the order of the input, from the few bytes that each row has in `facts` and `clusters`. Counts over the whole
corpus (tweets of an author, of a day) are spilled to disk by key, so that memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Bools, Ints
from bert_tweets.common.hashing import mix
from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.dedup.clustering import CLUSTER
from bert_tweets.corpus.dedup.disk_buckets import Buckets
from bert_tweets.corpus.dedup.minhash import in_validation_split
from bert_tweets.corpus.shards.funnel import DropReason, Funnel, Note, SplitCounts
from bert_tweets.corpus.shards.manifest import SPLITS, shard_file

from .worker import COPIES, FACT, FACTS, NO_DAY, UnitReport, unit_folder

Records = npt.NDArray[Any]
Fates = npt.NDArray[np.uint8]

# A row's fate is an index into this list: its split, or why it is dropped once the whole corpus is known.
FATES: tuple[str, ...] = (
    *SPLITS,
    DropReason.DUPLICATE,
    DropReason.NEAR_DUPLICATE,
    DropReason.TOO_FEW_TOKENS,
    DropReason.TOO_MANY_TOKENS,
    DropReason.AUTHOR_OVER_LIMIT,
    DropReason.DAY_OVER_LIMIT,
)
KEPT = FATES.index("train")
# Bytes of tokens and text columns: a shard is closed early before it grows too large for memory.
LARGEST_SHARD = 256 * 2**20
ROWS_AT_ONCE = 4 * 2**20
# Sentinel for a row that counts towards a limit, but was already dropped.
_NO_ROW = -1
_KEYED = np.dtype([("key", "<u8"), ("row", "<i8")])

# Given records, _KEYED [n], returns which ones to drop, bool [n].
Excess = Callable[[Records], Bools]


@dataclass(frozen=True)
class Piece:
    """Some rows of a unit: of those with the shard's fate, `take` rows after the first `skip`.

    Before the unit there are `first_row` input rows; `clusters` is the file of its clusters.
    """

    unit: int
    skip: int
    take: int
    first_row: int
    clusters: str


@dataclass(frozen=True)
class ShardPlan:
    """The rows of one shard, in order; `fate` is the index of its split in `FATES`."""

    file: str
    fate: int
    pieces: list[Piece]


def fate_file(work: Path, unit: int) -> Path:
    """File with the fate of each row of a unit, uint8 [rows]."""
    return work / "fates" / f"{unit:06d}.bin"


@dataclass(frozen=True)
class FinishedUnits:
    """The folder of the finished units; report and file of clusters, CLUSTER [rows], of each, in order."""

    folder: Path
    reports: list[UnitReport]
    clusters: list[Path]


class Selection:
    """Decide about all rows of a preparation; the fates and temporary data are in the folder `work`."""

    def __init__(self, config: PrepareConfig, units: FinishedUnits, work: Path):
        self._config, self._units, self._work = config, units, work
        self._reports, self._clusters = units.reports, units.clusters
        self._ends = np.cumsum([report.rows for report in units.reports], dtype=np.int64)
        (work / "fates").mkdir(parents=True, exist_ok=True)

    def decide(self, funnel: Funnel) -> list[ShardPlan]:
        """Write the fates, count them in the funnel, and plan the shards of both splits, in order."""
        for unit in range(len(self._reports)):
            self._keep(unit, self._judge(unit))
        limits = self._config.filter
        if limits.max_tweets_per_author:
            most = limits.max_tweets_per_author
            self._limit(DropReason.AUTHOR_OVER_LIMIT, self._by_author, lambda chunks: _of_busy_authors(chunks, most))
        if limits.max_tweets_per_day:
            size, seed = limits.max_tweets_per_day, self._config.seed
            self._limit(DropReason.DAY_OVER_LIMIT, self._by_day, lambda chunks: _outside_samples(chunks, size, seed))
        return self._split(funnel)

    def facts(self, unit: int) -> Records:
        """FACT [rows] of a unit."""
        return np.fromfile(unit_folder(self._units.folder, unit) / FACTS, FACT)

    def clusters(self, unit: int) -> Records:
        """CLUSTER [rows] of a unit."""
        return np.fromfile(self._clusters[unit], CLUSTER)

    def fates(self, unit: int) -> Fates:
        return np.fromfile(fate_file(self._work, unit), np.uint8)

    def _keep(self, unit: int, fates: Fates) -> None:
        fate_file(self._work, unit).write_bytes(fates.data)

    def first(self, unit: int) -> int:
        """Number of a unit's first row among the rows of all units."""
        return int(self._ends[unit]) - self._reports[unit].rows

    def _judge(self, unit: int) -> Fates:
        """Fates by a row's own facts and its cluster."""
        facts, clusters = self.facts(unit), self.clusters(unit)
        limits, how = self._config.filter, self._config.deduplicate
        later = clusters["cluster"] != np.arange(self.first(unit), self.first(unit) + len(facts))
        reasons = (
            (DropReason.DUPLICATE, clusters["copy"] & (how != "none")),
            (DropReason.NEAR_DUPLICATE, later & (how == "near")),
            (DropReason.TOO_FEW_TOKENS, facts["tokens"] < limits.min_tokens),
            (DropReason.TOO_MANY_TOKENS, (facts["tokens"] > limits.max_tokens) & (limits.max_tokens > 0)),
        )
        fates = np.full(len(facts), KEPT, np.uint8)
        for reason, which in reversed(reasons):
            fates[which] = FATES.index(reason)
        return fates

    def _by_author(self, unit: int) -> Records:
        """All rows that have an author, including duplicates: a bot is recognised by what it posts."""
        copied_by = np.fromfile(unit_folder(self._units.folder, unit) / COPIES, np.uint64)
        authors = self.facts(unit)["author"]
        records = np.empty(len(authors) + len(copied_by), _KEYED)
        records["key"] = np.concatenate([authors, copied_by])
        rows = np.where(self.fates(unit) == KEPT, np.arange(len(authors)) + self.first(unit), _NO_ROW)
        records["row"] = np.pad(rows, (0, len(copied_by)), constant_values=_NO_ROW)
        known: Records = records[records["key"] != 0]
        return known

    def _by_day(self, unit: int) -> Records:
        """Rows that are kept so far and have a day."""
        days = self.facts(unit)["day"]
        which = np.flatnonzero((self.fates(unit) == KEPT) & (days != NO_DAY))
        records = np.empty(len(which), _KEYED)
        records["key"] = days[which].astype(np.int64).view(np.uint64)
        records["row"] = which + self.first(unit)
        return records

    def _limit(
        self,
        reason: DropReason,
        records_of: Callable[[int], Records],
        rule: Callable[[Callable[[], Iterator[Records]]], Excess],
    ) -> None:
        """Drop the rows that a rule over all records of equal key selects.

        Args:
            reason: reason for the drop.
            records_of: returns the records of a unit, _KEYED.
            rule: given a function that reads the records of a bucket, returns which to drop.
        """
        count = self._buckets()
        keyed = Buckets(self._work / "keyed", _KEYED, count)
        for unit in range(len(self._reports)):
            records = records_of(unit)
            keyed.add((mix(records["key"]) % np.uint64(count)).astype(np.int64), records)
        excess = Buckets(self._work / "excess", np.dtype(np.int64), count)
        units_per_bucket = -(-len(self._reports) // count)
        for bucket in range(count):
            rule_here = rule(lambda bucket=bucket: keyed.read(bucket))  # type: ignore[misc]
            for records in keyed.read(bucket):
                rows = records["row"][rule_here(records) & (records["row"] != _NO_ROW)]
                excess.add(self._unit_of(rows) // units_per_bucket, rows)
        keyed.close()
        for bucket in range(count):
            rows = np.concatenate([np.empty(0, np.int64), *excess.read(bucket)])
            units = self._unit_of(rows)
            for unit in np.unique(units).tolist():
                fates = self.fates(unit)
                fates[rows[units == unit] - self.first(unit)] = FATES.index(reason)
                self._keep(unit, fates)
        excess.close()

    def _buckets(self) -> int:
        rows = sum(report.rows + report.dropped.get(DropReason.DUPLICATE, 0) for report in self._reports)
        return 1 + rows // ROWS_AT_ONCE

    def _unit_of(self, rows: Ints) -> Ints:
        return np.searchsorted(self._ends, rows, side="right")

    def _split(self, funnel: Funnel) -> list[ShardPlan]:
        """Draw the validation split by cluster, count every fate, and plan the shards."""
        planners = {split: _Planner(split, self._config.shard_tweets) for split in SPLITS}
        longest = self._config.max_length
        lengths = {split: np.zeros(longest + 1, np.int64) for split in SPLITS}
        read = 0
        for unit, report in enumerate(self._reports):
            facts, fates = self.facts(unit), self.fates(unit)
            drawn = in_validation_split(self.clusters(unit)["key"], self._config.seed, self._config.validation_fraction)
            fates[(fates == KEPT) & drawn] = FATES.index("validation")
            self._keep(unit, fates)
            counts = np.bincount(fates, minlength=len(FATES)).tolist()
            funnel.read += report.read
            for reason, count in (*report.dropped.items(), *list(zip(FATES, counts, strict=True))[len(SPLITS) :]):
                funnel.dropped[reason] += count
            _add_notes(facts[fates < len(SPLITS)], funnel)
            for code, split in enumerate(SPLITS):
                of_split = facts[fates == code]
                lengths[split] += np.bincount(of_split["tokens"], minlength=longest + 1)
                planners[split].add(unit, of_split["bytes"], read, str(self._clusters[unit]))
            read += report.read
        for split in SPLITS:
            tokens = int(lengths[split] @ np.arange(longest + 1))
            funnel.splits[split] = SplitCounts(int(lengths[split].sum()), tokens)
            funnel.lengths[split] = lengths[split].tolist()
        return [plan for planner in planners.values() for plan in planner.close()]


def _add_notes(kept: Records, funnel: Funnel) -> None:
    """Count properties of kept rows, FACT [rows], in the funnel."""
    which = {
        Note.TRUNCATED: kept["truncated"],
        Note.UNPARSED_TIME: kept["time_lost"],
        Note.UNPARSED_TIME_OTHER_ORDER: kept["other_order"],
        Note.ROUNDED_ID: kept["id_rounded"],
        Note.UNKNOWN_TWEETS: kept["unknown"] > 0,
        Note.UNKNOWN_TOKENS: kept["unknown"],
    }
    if funnel.columns.time is not None:
        which[Note.NO_TIME] = (kept["day"] == NO_DAY) & ~kept["time_lost"]
    if funnel.columns.author is not None:
        which[Note.NO_AUTHOR] = kept["author"] == 0
    for note, counts in which.items():
        funnel.notes[note] += int(counts.sum())


class _Planner:
    """Divide the rows of a split into shards, by count and, if texts are long, by size."""

    def __init__(self, split: str, shard_tweets: int):
        self._split, self._shard_tweets = split, shard_tweets
        self._plans: list[ShardPlan] = []
        self._pieces: list[Piece] = []
        self._rows = self._bytes = 0

    def add(self, unit: int, sizes: npt.NDArray[np.int32], first_row: int, clusters: str) -> None:
        """Add the rows of a unit; `sizes` are their bytes, int32 [rows]."""
        ends = np.cumsum(sizes, dtype=np.int64)
        skip = 0
        while skip < len(sizes):
            before = int(ends[skip - 1]) if skip else 0
            fits = int(np.searchsorted(ends, before + LARGEST_SHARD - self._bytes, side="right")) - skip
            take = min(max(fits, 0 if self._rows else 1), self._shard_tweets - self._rows, len(sizes) - skip)
            if take:
                self._pieces.append(Piece(unit, skip, take, first_row, clusters))
                self._rows += take
                self._bytes += int(ends[skip + take - 1]) - before
                skip += take
            if not take or self._rows == self._shard_tweets:
                self._cut()

    def close(self) -> list[ShardPlan]:
        if self._pieces:
            self._cut()
        return self._plans

    def _cut(self) -> None:
        file = shard_file(self._split, len(self._plans))
        self._plans.append(ShardPlan(file, FATES.index(self._split), self._pieces))
        self._pieces, self._rows, self._bytes = [], 0, 0


def _of_busy_authors(chunks: Callable[[], Iterator[Records]], limit: int) -> Excess:
    """Select all rows of authors with more than `limit` rows."""
    authors, counts = _counted(chunk["key"] for chunk in chunks())
    many = authors[counts > limit]
    return lambda records: np.isin(records["key"], many)


def _outside_samples(chunks: Callable[[], Iterator[Records]], limit: int, seed: int) -> Excess:
    """Select, for each day, all rows but the first `limit` in the order of a hash of row and seed."""
    offset = mix(np.array([seed], np.uint64))

    def priority(records: Records) -> npt.NDArray[np.uint64]:
        rows: npt.NDArray[np.uint64] = records["row"].astype(np.uint64)
        return mix(rows + offset)

    first = np.empty(0, _KEYED)  # first rows of each day so far, with their priority as `row`
    for chunk in chunks():
        here = chunk.copy()
        here["row"] = priority(chunk).view(np.int64)
        both = np.concatenate([first, here])
        both = both[np.lexsort((both["row"].view(np.uint64), both["key"]))]
        starts = np.flatnonzero(np.concatenate([[True], both["key"][1:] != both["key"][:-1]]))
        rank = np.arange(len(both)) - np.repeat(starts, np.diff(np.append(starts, len(both))))
        first = both[rank < limit]
    if not len(first):
        return lambda records: np.zeros(len(records), np.bool_)
    days, places = np.unique(first["key"], return_index=True)
    # For a day with fewer rows than the limit, this is its last row, so that none is dropped.
    largest = first["row"][np.append(places[1:], len(first)) - 1].view(np.uint64)
    return lambda records: priority(records) > largest[np.searchsorted(days, records["key"])]


def _counted(keys: Iterable[npt.NDArray[np.uint64]]) -> tuple[npt.NDArray[np.uint64], Ints]:
    """Distinct keys, ascending, and how often each occurs."""
    distinct, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for some in keys:
        new, new_counts = np.unique(some, return_counts=True)
        together, places = np.unique(np.concatenate([distinct, new]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([counts, new_counts]), len(together)).astype(np.int64)
        distinct = together
    return distinct, counts

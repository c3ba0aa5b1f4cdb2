"""Selection: which rows of all units stay, in which split, and which shard takes them.

Decided in the order of the input over the few bytes that each row has in `facts` and `clusters`; what counts over the
whole corpus (tweets of an author, of a day) is spilled to disk by key, so that memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.hashing import mix
from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.dedup.clustering import CLUSTER
from bert_tweets.corpus.dedup.disk_buckets import Buckets
from bert_tweets.corpus.dedup.minhash import held_out
from bert_tweets.corpus.shards.funnel import CORPUS_REASONS, OTHER_ORDER, ROUNDED, Funnel
from bert_tweets.corpus.shards.manifest import SPLITS

from .unit_report import Report
from .worker import COPIES, FACT, FACTS, NO_DAY, Job

Ints = npt.NDArray[np.int64]
Records = npt.NDArray[Any]
Fates = npt.NDArray[np.uint8]

# A row's fate is a place in this list; the splits come first.
FATES = (*SPLITS, *CORPUS_REASONS)
STAYS = FATES.index("train")
# Bytes of tokens and columns of text: a shard is closed early before it grows too large for memory.
LARGEST_SHARD = 256 * 2**20
ROWS_AT_ONCE = 4 * 2**20
# A row that counts, and that is left out already.
_NO_ROW = -1
_KEYED = np.dtype([("key", "<u8"), ("row", "<i8")])

# Says of records, _KEYED [n], which are left out: bool [n].
Excess = Callable[[Records], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Piece:
    """Some rows of a unit: of those with the shard's fate, `take` behind the first `skip`.

    Attributes:
        unit: its number.
        first_row: rows of the input before the unit.
        clusters: file of the unit's clusters.
    """

    unit: int
    skip: int
    take: int
    first_row: int
    clusters: str


@dataclass(frozen=True)
class ShardPlan:
    """The rows of one shard; `fate` is the place of its split in `FATES`."""

    name: str
    fate: int
    pieces: list[Piece]


def fate_file(work: Path, unit: int) -> Path:
    """The fate of each row of a unit, uint8 [rows]."""
    return work / "fates" / f"{unit:06d}.bin"


class Selection:
    """Decides over all rows of a preparation.

    Args:
        config: the settings.
        job, reports: the units, in order.
        clusters: a file for each unit, CLUSTER [rows].
        work: folder for what is spilled, and for the fates.
    """

    def __init__(self, config: PrepareConfig, job: Job, reports: list[Report], clusters: list[Path], work: Path):
        self._config, self._job, self._reports, self._clusters, self._work = config, job, reports, clusters, work
        self._ends = np.cumsum([report.rows for report in reports], dtype=np.int64)
        (work / "fates").mkdir(parents=True, exist_ok=True)

    def decide(self, funnel: Funnel) -> list[ShardPlan]:
        """Writes the fates, counts them in the funnel, and plans the shards of both splits, in order."""
        for unit in range(len(self._reports)):
            self._keep(unit, self._judge(unit))
        limits = self._config.filter
        if limits.max_tweets_per_author:
            most = limits.max_tweets_per_author
            self._limit("author of too many tweets", self._by_author, lambda chunks: _of_authors(chunks, most))
        if limits.max_tweets_per_day:
            share, seed = limits.max_tweets_per_day, self._config.seed
            self._limit("beyond the day's share", self._by_day, lambda chunks: _beyond_share(chunks, share, seed))
        return self._split(funnel)

    def facts(self, unit: int) -> Records:
        """FACT [rows] of a unit."""
        return np.fromfile(self._job.place(unit) / FACTS, FACT)

    def clusters(self, unit: int) -> Records:
        """CLUSTER [rows] of a unit."""
        return np.fromfile(self._clusters[unit], CLUSTER)

    def fates(self, unit: int) -> Fates:
        return np.fromfile(fate_file(self._work, unit), np.uint8)

    def _keep(self, unit: int, fates: Fates) -> None:
        fate_file(self._work, unit).write_bytes(fates.data)

    def first(self, unit: int) -> int:
        """The number of a unit's first row among the rows that all units left."""
        return int(self._ends[unit]) - self._reports[unit].rows

    def _judge(self, unit: int) -> Fates:
        """What a row's own facts and its cluster say."""
        facts, clusters = self.facts(unit), self.clusters(unit)
        limits, how = self._config.filter, self._config.deduplicate
        later = clusters["cluster"] != np.arange(self.first(unit), self.first(unit) + len(facts))
        reasons = (
            ("duplicate", clusters["copy"] & (how != "none")),
            ("near-duplicate", later & (how == "near")),
            ("fewer tokens than filter.min_tokens", facts["tokens"] < limits.min_tokens),
            ("more tokens than filter.max_tokens", (facts["tokens"] > limits.max_tokens) & (limits.max_tokens > 0)),
        )
        fates = np.full(len(facts), STAYS, np.uint8)
        for reason, which in reversed(reasons):
            fates[which] = FATES.index(reason)
        return fates

    def _by_author(self, unit: int) -> Records:
        """All rows that have an author, copies too: a bot is told by what it posts, not by what is left of it."""
        authors, copied_by = self.facts(unit)["author"], np.fromfile(self._job.place(unit) / COPIES, np.uint64)
        records = np.empty(len(authors) + len(copied_by), _KEYED)
        records["key"] = np.concatenate([authors, copied_by])
        rows = np.where(self.fates(unit) == STAYS, np.arange(len(authors)) + self.first(unit), _NO_ROW)
        records["row"] = np.pad(rows, (0, len(copied_by)), constant_values=_NO_ROW)
        known: Records = records[records["key"] != 0]
        return known

    def _by_day(self, unit: int) -> Records:
        """The rows that stay so far and have a day."""
        days = self.facts(unit)["day"]
        which = np.flatnonzero((self.fates(unit) == STAYS) & (days != NO_DAY))
        records = np.empty(len(which), _KEYED)
        records["key"] = days[which].astype(np.int64).view(np.uint64)
        records["row"] = which + self.first(unit)
        return records

    def _limit(
        self,
        reason: str,
        records_of: Callable[[int], Records],
        rule: Callable[[Callable[[], Iterator[Records]]], Excess],
    ) -> None:
        """Leaves out those rows of which a rule over all records of equal key says so.

        Args:
            records_of: gives the records of a unit, _KEYED.
        """
        count = self._buckets()
        keyed = Buckets(self._work / "keyed", _KEYED, count)
        for unit in range(len(self._reports)):
            records = records_of(unit)
            keyed.add((mix(records["key"]) % np.uint64(count)).astype(np.int64), records)
        excess = Buckets(self._work / "excess", np.dtype(np.int64), count)
        units_a_bucket = -(-len(self._reports) // count)
        for bucket in range(count):
            rule_here = rule(lambda bucket=bucket: keyed.read(bucket))  # type: ignore[misc]
            for records in keyed.read(bucket):
                rows = records["row"][rule_here(records) & (records["row"] != _NO_ROW)]
                excess.add(self._unit_of(rows) // units_a_bucket, rows)
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
        rows = sum(report.rows + report.dropped.get("duplicate", 0) for report in self._reports)
        return 1 + rows // ROWS_AT_ONCE

    def _unit_of(self, rows: Ints) -> Ints:
        return np.searchsorted(self._ends, rows, side="right")

    def _split(self, funnel: Funnel) -> list[ShardPlan]:
        """Draws the validation split by cluster, counts every fate, and plans the shards."""
        planners = {split: _Planner(split, self._config.shard_tweets) for split in SPLITS}
        longest = self._job.max_length
        lengths = {split: np.zeros(longest + 1, np.int64) for split in SPLITS}
        read = 0
        for unit, report in enumerate(self._reports):
            facts, fates = self.facts(unit), self.fates(unit)
            drawn = held_out(self.clusters(unit)["key"], self._config.seed, self._config.validation_fraction)
            fates[(fates == STAYS) & drawn] = FATES.index("validation")
            self._keep(unit, fates)
            counts = np.bincount(fates, minlength=len(FATES)).tolist()
            funnel.read += report.read
            funnel.add(report.dropped)
            funnel.add(dict(zip(FATES[len(SPLITS) :], counts[len(SPLITS) :], strict=True)))
            self._note(facts[fates < len(SPLITS)], funnel)
            for code, split in enumerate(SPLITS):
                of_split = facts[fates == code]
                lengths[split] += np.bincount(of_split["tokens"], minlength=longest + 1)
                planners[split].add(unit, of_split["bytes"], read, str(self._clusters[unit]))
            read += report.read
        for split in SPLITS:
            tokens = int(lengths[split] @ np.arange(longest + 1))
            funnel.splits[split] = {"tweets": int(lengths[split].sum()), "tokens": tokens}
            funnel.lengths[split] = lengths[split].tolist()
        return [plan for planner in planners.values() for plan in planner.close()]

    def _note(self, kept: Records, funnel: Funnel) -> None:
        columns = self._job.columns
        funnel.notes["truncated to max_length"] += int(kept["truncated"].sum())
        funnel.notes["time not understood"] += int(kept["time_lost"].sum())
        funnel.notes[OTHER_ORDER] += int(kept["other_order"].sum())
        if columns.time is not None:
            funnel.notes["no time"] += int(((kept["day"] == NO_DAY) & ~kept["time_lost"]).sum())
        if columns.author is not None:
            funnel.notes["no author"] += int((kept["author"] == 0).sum())
        funnel.notes[ROUNDED] += int(kept["id_rounded"].sum())
        funnel.notes["tweets with [UNK]"] += int((kept["unknown"] > 0).sum())
        funnel.notes["[UNK] tokens"] += int(kept["unknown"].sum())


class _Planner:
    """Cuts the rows of a split into shards, by count and, where texts are long, by size."""

    def __init__(self, split: str, shard_tweets: int):
        self._split, self._shard_tweets = split, shard_tweets
        self._plans: list[ShardPlan] = []
        self._pieces: list[Piece] = []
        self._rows = self._bytes = 0

    def add(self, unit: int, sizes: npt.NDArray[np.int32], first_row: int, clusters: str) -> None:
        """Takes the rows of a unit; `sizes` are their bytes, int32 [rows]."""
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
        name = f"{self._split}/{len(self._plans):05d}.arrow"
        self._plans.append(ShardPlan(name, FATES.index(self._split), self._pieces))
        self._pieces, self._rows, self._bytes = [], 0, 0


def _of_authors(chunks: Callable[[], Iterator[Records]], limit: int) -> Excess:
    """All rows of the authors that have more of them than `limit`."""
    authors, counts = _counted(chunk["key"] for chunk in chunks())
    many = authors[counts > limit]
    return lambda records: np.isin(records["key"], many)


def _beyond_share(chunks: Callable[[], Iterator[Records]], limit: int, seed: int) -> Excess:
    """Of each day all rows but the `limit` that a hash of row and seed puts first."""

    offset = mix(np.array([seed], np.uint64))

    def priority(records: Records) -> npt.NDArray[np.uint64]:
        rows: npt.NDArray[np.uint64] = records["row"].astype(np.uint64)
        return mix(rows + offset)

    first = np.empty(0, _KEYED)  # per day the rows that come first so far, their priority in place of the row
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
    # Of a day with fewer rows than the limit this is the last of all: none is beyond it.
    largest = first["row"][np.append(places[1:], len(first)) - 1].view(np.uint64)
    return lambda records: priority(records) > largest[np.searchsorted(days, records["key"])]


def _counted(keys: Iterable[npt.NDArray[np.uint64]]) -> tuple[npt.NDArray[np.uint64], Ints]:
    """The distinct keys, ascending, and how often each comes."""
    distinct, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for some in keys:
        new, new_counts = np.unique(some, return_counts=True)
        together, places = np.unique(np.concatenate([distinct, new]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([counts, new_counts]), len(together)).astype(np.int64)
        distinct = together
    return distinct, counts

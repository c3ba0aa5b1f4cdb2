"""Groups of tweets: the periods of their times (UTC), or a column that prepare kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Ints
from bert_tweets.common.errors import UserError, did_you_mean
from bert_tweets.config import PERIODS


def group_by_column(by: str) -> str:
    """The column of shards and of occurrences.parquet that `by` refers to: `time`, or `group.NAME`.

    `by` is a period or a group column, with or without `group.`.
    """
    return "time" if by in PERIODS else f"group.{by.removeprefix('group.')}"


def groups_among(columns: Iterable[str]) -> list[str]:
    """The names of the group columns among some columns."""
    return [name.removeprefix("group.") for name in columns if name.startswith("group.")]


def group_column(by: str, groups: Sequence[str], where: str) -> str:
    """Like `group_by_column`, but raise UserError if the column, in the folder or file `where`, does not exist."""
    if by not in PERIODS and by.removeprefix("group.") not in groups:
        raise UserError(
            f"by={by}: neither one of {', '.join(PERIODS)} nor a group column of {where}"
            f"{did_you_mean(by, [*PERIODS, *groups])}; it has {', '.join(groups) or 'no group columns'}: "
            "prepare keeps those of group_columns="
        )
    return group_by_column(by)


def labels(column: pa.ChunkedArray, by: str) -> pa.ChunkedArray:
    """The name of each row's group, string; null if it has no group."""
    return pc.strftime(column.cast(pa.timestamp("s")), format=PERIODS[by]) if by in PERIODS else column


def require_groups(names: Sequence[str], by: str, where: str) -> None:
    """Raise UserError if there are occurrences of fewer than two groups."""
    if len(names) < 2:
        what = f"{len(names)} {by}" if by in PERIODS else f"{len(names)} value(s) of {by}"
        raise UserError(f"{where}: all occurrences are of {what}: nothing to compare; choose another by=")


def group_numbers(names: pa.ChunkedArray) -> Ints:
    """A number per row that depends on the name of its group alone; int64 [rows], 0 for no group."""
    coded = names.combine_chunks().dictionary_encode()
    digests = (hashlib.sha256(name.encode()).digest() for name in coded.dictionary.to_pylist())
    codes = np.array([0, *(int.from_bytes(digest[:7], "little") + 1 for digest in digests)], np.int64)
    return np.asarray(codes[np.asarray(pc.fill_null(coded.indices, -1)) + 1])

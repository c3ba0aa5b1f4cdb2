"""Groups of tweets: the periods of their times (UTC), or a column that prepare kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.errors import UserError, did_you_mean
from bert_tweets.config import PERIODS


def group_by_column(by: str) -> str:
    """The column of shards and of occurrences.parquet that `by` is about: `time`, or `group.NAME`.

    Args:
        by: a period or a group column, with or without `group.`.
    """
    return "time" if by in PERIODS else f"group.{by.removeprefix('group.')}"


def groups_among(columns: Iterable[str]) -> list[str]:
    """The names of the group columns among some columns."""
    return [name.removeprefix("group.") for name in columns if name.startswith("group.")]


def group_column(by: str, groups: Sequence[str], where: str) -> str:
    """As `group_by_column`, of a group column that is there.

    Args:
        by: a period or a group column, with or without `group.`.
        groups: names of the group columns that there are.
        where: they are, for the message.

    Raises:
        UserError: there is no such column.
    """
    if by not in PERIODS and by.removeprefix("group.") not in groups:
        raise UserError(
            f"by={by}: is none of {', '.join(PERIODS)}, and no group column of {where}"
            f"{did_you_mean(by, [*PERIODS, *groups])}; it has {', '.join(groups) or 'none'}: "
            "prepare keeps those of group_columns="
        )
    return group_by_column(by)


def labels(column: pa.ChunkedArray, by: str) -> pa.ChunkedArray:
    """The name of each row's group, string; null where it has none."""
    return pc.strftime(column.cast(pa.timestamp("s")), format=PERIODS[by]) if by in PERIODS else column


def require_groups(names: Sequence[str], by: str, where: str) -> None:
    """Raises UserError unless occurrences are of two groups at least.

    Args:
        names: of the groups that they are of.
        by: what they are grouped by.
        where: the occurrences are, for the message.
    """
    if len(names) < 2:
        what = f"{len(names)} {by}" if by in PERIODS else f"{len(names)} value(s) of {by}"
        raise UserError(f"{where}: its occurrences are of {what}: nothing to compare; choose another by=")


def numbers(names: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number for each row that tells its group from others in whatever rows; int64 [rows], 0 for no group."""
    coded = names.combine_chunks().dictionary_encode()
    digests = (hashlib.sha256(name.encode()).digest() for name in coded.dictionary.to_pylist())
    codes = np.array([0, *(int.from_bytes(digest[:7], "little") + 1 for digest in digests)], np.int64)
    found: npt.NDArray[np.int64] = codes[np.asarray(pc.fill_null(coded.indices, -1)) + 1]
    return found

"""Rows of tweets as every source gives them, and the columns that they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# What columns are called, by role, most telling name first; case aside.
NAMES = {
    "text": ("text", "tweet", "content", "content_cleaned", "full_text", "body", "message"),
    "id": ("id", "tweet_id", "id_str", "status_id"),
    "time": ("created_at", "date", "time", "timestamp", "datetime"),
    "author": (
        "author",
        "author_id",
        "user",
        "username",
        "user_id",
        "screen_name",
        "handle",
        "user.id_str",
        "user.screen_name",
    ),
    "language": ("lang", "language"),
    "retweet_of": (
        "retweeted_status.id_str",
        "retweeted_status.id",
        "referenced_tweets",
        "referenced_tweets.retweeted.id",
        "retweeted_status_id_str",
        "retweeted_status_id",
        "retweet_status_id",
        "retweeted_id",
        "retweet_id",
        "retweet_of",
        "rt_id",
    ),
}
# How a column of retweeted tweets' ids says that there is none, case aside.
NO_RETWEET = ("", "nan", "none", "null", "na", "n/a", "<na>", "false", "0")


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read, as the header writes them; None: not there.

    Attributes:
        retweet_of: the id of the tweet that a retweet repeats.
        groups: further columns that are kept.
    """

    text: str
    id: str | None = None
    time: str | None = None
    author: str | None = None
    language: str | None = None
    retweet_of: str | None = None
    groups: tuple[str, ...] = ()

    def wanted(self) -> dict[str, str]:
        """Role to name, for the roles that have a column; a group's role is `group.NAME`."""
        found = {role: getattr(self, role) for role in NAMES}
        groups = {f"group.{name}": name for name in self.groups}
        return {role: name for role, name in found.items() if name is not None} | groups


@dataclass(frozen=True)
class Rows:
    """The sound rows of one unit of work.

    Attributes:
        fields: role to string [rows], for the roles that have a column. A missing value is empty; but in `retweet_of`
            null says that the tweet is no retweet, and empty that it repeats an unknown one.
        numbers: int64 [rows], each row's number within the unit, from 0, malformed rows counted.
        malformed: rows left out because they are no record with a text (CSV: another number of columns than the
            header's).
        not_utf8: rows left out for bytes that are not UTF-8.
    """

    fields: dict[str, pa.Array]
    numbers: npt.NDArray[np.int64]
    malformed: int = 0
    not_utf8: int = 0

    @property
    def read(self) -> int:
        """Rows of the unit, those left out included."""
        return len(self.numbers) + self.malformed + self.not_utf8


def ids_or_null(texts: pa.Array) -> pa.Array:
    """Ids of retweeted tweets as tables write them: null where a table says that there is none.

    Args:
        texts: string [rows].
    """
    trimmed = pc.utf8_trim_whitespace(texts)
    nothing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(NO_RETWEET))
    return pc.if_else(nothing, pa.scalar(None, pa.string()), trimmed)

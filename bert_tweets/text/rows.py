"""Rows of tweets as every source gives them, and the columns that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

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
}


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read, as the header writes them; None: not there."""

    text: str
    id: str | None = None
    time: str | None = None
    author: str | None = None

    def wanted(self) -> dict[str, str]:
        """Role to name, for the roles that have a column."""
        return {role: name for role, name in vars(self).items() if name is not None}


@dataclass(frozen=True)
class Rows:
    """The sound rows of one block.

    Attributes:
        text: string [rows].
        id, time, author: string [rows], or None without such a column.
        numbers: int64 [rows], each row's number in the whole input, from 1, malformed rows counted.
        malformed: rows left out for another number of columns than the header's.
        not_utf8: rows left out for bytes that are not UTF-8.
    """

    text: pa.Array
    id: pa.Array | None
    time: pa.Array | None
    author: pa.Array | None
    numbers: np.ndarray
    malformed: int
    not_utf8: int

    @property
    def read(self) -> int:
        return len(self.text) + self.malformed + self.not_utf8


class Source(Protocol):
    """One open file of some format."""

    @property
    def names(self) -> list[str]:
        """Its columns, as the file calls them."""
        ...

    def rows(self, columns: Columns, first_number: int) -> Iterator[Rows]:
        """Its rows, a block at a time; `first_number` is that of the first."""
        ...

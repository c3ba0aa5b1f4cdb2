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
    # Where v1.1's objects have both, `id` is a number that many a program has rounded.
    "id": ("id_str", "id", "tweet_id", "status_id"),
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
        "referenced_tweets.retweeted.id",
        "referenced_tweets",
        "retweeted_status_id_str",
        "retweeted_status_id",
        "retweet_status_id",
        "retweeted_id",
        "retweet_id",
        "retweet_of",
        "rt_id",
    ),
}
# Of how many unreadable rows the place is told.
FEW = 3
# Lines of one record of CSV beyond which a quote that was not closed is likelier than a tweet.
MANY_LINES = 40
# Ids that went through a program that knows numbers by 53 bits: 1.2345678901234604e+18, 1234567890.0
ROUNDED_ID = r"^\s*[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]+\s*$|^\s*[0-9]+\.0*\s*$"
# How a column of retweeted tweets' ids says that there is none, case aside.
NO_RETWEET = ("", "nan", "none", "null", "na", "n/a", "<na>", "false", "0")
# The column that names the tweets which a tweet replies to, quotes or retweets, and an entry of it that is a retweet,
# as JSON, Python or R writes it; its two parts come in either order.
REFERENCES = "referenced_tweets"
_IS = r"""[\\'"]*\s*[:=]\s*[\\'"]*"""
_RETWEETED = rf"\btype{_IS}retweeted\b"
RETWEET_ENTRY = (
    rf"(?:{_RETWEETED}[^{{}}<>()]*?\bid{_IS}(?P<after>[0-9]+)|\bid{_IS}(?P<before>[0-9]+)[^{{}}<>()]*?{_RETWEETED})"
)


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
            header's, or a quote that is closed in a later row).
        not_utf8: rows left out for bytes that are not UTF-8.
        notices: rows left out because they are no tweets but notices of Twitter's stream.
        unreadable: the numbers of the first of the malformed rows and those that are not UTF-8.
        several_lines: lines that records of more than one line hold, the malformed ones too (CSV alone).
        most_lines: of one record.
        long_records: number and lines of the first records of more than MANY_LINES lines.
    """

    fields: dict[str, pa.Array]
    numbers: npt.NDArray[np.int64]
    malformed: int = 0
    not_utf8: int = 0
    notices: int = 0
    unreadable: tuple[int, ...] = ()
    several_lines: int = 0
    most_lines: int = 0
    long_records: tuple[tuple[int, int], ...] = ()

    @property
    def read(self) -> int:
        """Rows of the unit, those left out included."""
        return len(self.numbers) + self.malformed + self.not_utf8 + self.notices


def ids_or_null(texts: pa.Array, name: str) -> pa.Array:
    """Ids of retweeted tweets as tables write them: null where a table says that there is none.

    Args:
        texts: string [rows].
        name: of the column. In `REFERENCES` only an entry that is a retweet counts.
    """
    trimmed = pc.utf8_trim_whitespace(texts)
    if name.lower() == REFERENCES:
        found = pc.extract_regex(trimmed, RETWEET_ENTRY)
        ids = [pc.struct_field(found, part) for part in ("after", "before")]
        unknown = pc.if_else(pc.match_substring_regex(trimmed, _RETWEETED), "", pa.scalar(None, pa.string()))
        return pc.if_else(pc.is_valid(found), pc.binary_join_element_wise(*ids, ""), unknown)
    nothing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(NO_RETWEET))
    return pc.if_else(nothing, pa.scalar(None, pa.string()), trimmed)

"""Rows of tweets in the form that every source returns, and the columns that they come from."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Ints

# Column names by role, in order of preference; case does not matter.
NAMES = {
    "text": ("text", "tweet", "content", "content_cleaned", "full_text", "body", "message"),
    # v1.1 objects have both; `id` is a number, which many programs round.
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
# Number of unreadable rows whose places are reported.
FEW = 3
# Number of lines in a CSV record above which an unclosed quote is more likely than a tweet.
MANY_LINES = 40
# Ids that a program stored as floats of 53 bits: 1.2345678901234604e+18, 1234567890.0
ROUNDED_ID = r"^\s*[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]+\s*$|^\s*[0-9]+\.0*\s*$"
# Values in a column of retweeted ids that mean "not a retweet"; case does not matter.
NO_RETWEET = ("", "nan", "none", "null", "na", "n/a", "<na>", "false", "0")
# The column with the tweets that a tweet replies to, quotes or retweets, and an entry of it that is a retweet, as
# written by JSON, Python or R; its two parts come in either order.
REFERENCES = "referenced_tweets"
_IS = r"""[\\'"]*\s*[:=]\s*[\\'"]*"""
_RETWEETED = rf"\btype{_IS}retweeted\b"
RETWEET_ENTRY = (
    rf"(?:{_RETWEETED}[^{{}}<>()]*?\bid{_IS}(?P<after>[0-9]+)|\bid{_IS}(?P<before>[0-9]+)[^{{}}<>()]*?{_RETWEETED})"
)


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read, as in the header; None: no such column.

    Attributes:
        text, id, time, author, language: columns of the tweet.
        retweet_of: column with the id of the retweeted tweet.
        groups: additional columns to keep.
    """

    text: str
    id: str | None = None
    time: str | None = None
    author: str | None = None
    language: str | None = None
    retweet_of: str | None = None
    groups: tuple[str, ...] = ()

    def wanted(self) -> dict[str, str]:
        """Column name by role, for the roles that have a column; the role of a group is `group.NAME`."""
        found = {role: getattr(self, role) for role in NAMES}
        groups = {f"group.{name}": name for name in self.groups}
        return {role: name for role, name in found.items() if name is not None} | groups


@dataclass(frozen=True)
class Rows:
    """The valid rows of one unit of work, and counts of the others.

    Attributes:
        fields: string [rows] by role, for the roles that have a column. Missing values are empty; in `retweet_of`, null
            means that the tweet is not a retweet, and empty that it is one of an unknown tweet.
        numbers: int64 [rows], number of each row within the unit, from 0, counting malformed rows.
        malformed: number of rows that are not records with a text (CSV: wrong number of columns, or a quote that is
            closed in a later row).
        not_utf8: number of rows that are not UTF-8.
        notices: number of rows that are not tweets but notices of Twitter's stream.
        unreadable: numbers of the first rows that are malformed or not UTF-8.
        several_lines: number of lines in records of more than one line, including malformed ones (CSV only).
        most_lines: number of lines in the longest record.
        long_records: number and lines of the first records of more than MANY_LINES lines.
    """

    fields: dict[str, pa.Array]
    numbers: Ints
    malformed: int = 0
    not_utf8: int = 0
    notices: int = 0
    unreadable: tuple[int, ...] = ()
    several_lines: int = 0
    most_lines: int = 0
    long_records: tuple[tuple[int, int], ...] = ()

    @property
    def read(self) -> int:
        """Number of rows of the unit, including the invalid ones."""
        return len(self.numbers) + self.malformed + self.not_utf8 + self.notices


def ids_or_null(texts: pa.Array, name: str) -> pa.Array:
    """Ids of retweeted tweets from a column, string [rows]; null where the tweet is not a retweet.

    In a column called `REFERENCES`, only entries that are retweets count.
    """
    trimmed = pc.utf8_trim_whitespace(texts)
    if name.lower() == REFERENCES:
        found = pc.extract_regex(trimmed, RETWEET_ENTRY)
        ids = [pc.struct_field(found, part) for part in ("after", "before")]
        unknown = pc.if_else(pc.match_substring_regex(trimmed, _RETWEETED), "", pa.scalar(None, pa.string()))
        return pc.if_else(pc.is_valid(found), pc.binary_join_element_wise(*ids, ""), unknown)
    nothing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(NO_RETWEET))
    return pc.if_else(nothing, pa.scalar(None, pa.string()), trimmed)

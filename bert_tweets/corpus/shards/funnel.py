"""The funnel: what happened to every row of the input, from read to kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum, parse_record, verify_checksum
from bert_tweets.corpus.sources.schema import Columns

from .manifest import how_to_recreate, read_errors


class DropReason(StrEnum):
    """Why a row is dropped, in the order of the checks."""

    MALFORMED_ROW = "malformed_row"
    NOT_UTF8 = "not_utf8"
    NO_TWEET = "no_tweet"
    EMPTY_TEXT = "empty_text"
    TOO_MANY_CHARACTERS = "too_many_characters"
    RETWEET = "retweet"
    EMPTY_AFTER_CLEANING = "empty_after_cleaning"
    OTHER_LANGUAGE = "other_language"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    TOO_FEW_TOKENS = "too_few_tokens"
    TOO_MANY_TOKENS = "too_many_tokens"
    AUTHOR_OVER_LIMIT = "author_over_limit"
    DAY_OVER_LIMIT = "day_over_limit"


class Note(StrEnum):
    """A property of kept tweets that is counted."""

    TRUNCATED = "truncated"
    UNPARSED_TIME = "unparsed_time"
    UNPARSED_TIME_OTHER_ORDER = "unparsed_time_other_order"
    NO_TIME = "no_time"
    NO_AUTHOR = "no_author"
    ROUNDED_ID = "rounded_id"
    UNKNOWN_TWEETS = "tweets_with_unknown_tokens"
    UNKNOWN_TOKENS = "unknown_tokens"


# Each completes a count ("3 empty texts").
REASON_TEXTS: Mapping[str, str] = {
    DropReason.MALFORMED_ROW: "malformed rows",
    DropReason.NOT_UTF8: "rows that are not UTF-8",
    DropReason.NO_TWEET: "notices without a tweet",
    DropReason.EMPTY_TEXT: "empty texts",
    DropReason.TOO_MANY_CHARACTERS: "texts longer than max_characters",
    DropReason.RETWEET: "retweets",
    DropReason.EMPTY_AFTER_CLEANING: "texts empty after cleaning",
    DropReason.OTHER_LANGUAGE: "tweets in other languages",
    DropReason.DUPLICATE: "duplicates",
    DropReason.NEAR_DUPLICATE: "near-duplicates",
    DropReason.TOO_FEW_TOKENS: "tweets under filter.min_tokens",
    DropReason.TOO_MANY_TOKENS: "tweets over filter.max_tokens",
    DropReason.AUTHOR_OVER_LIMIT: "tweets over filter.max_tweets_per_author",
    DropReason.DAY_OVER_LIMIT: "tweets over filter.max_tweets_per_day",
}
NOTE_TEXTS: Mapping[str, str] = {
    Note.TRUNCATED: "truncated to max_length",
    Note.UNPARSED_TIME: "unparseable time",
    Note.UNPARSED_TIME_OTHER_ORDER: "time in the other day-month order",
    Note.NO_TIME: "no time",
    Note.NO_AUTHOR: "no author",
    Note.ROUNDED_ID: "id rounded to a float",
    Note.UNKNOWN_TWEETS: "tweets with [UNK]",
    Note.UNKNOWN_TOKENS: "[UNK] tokens",
}


@dataclass(frozen=True)
class SplitCounts:
    """Size of one split: number of tweets, and of their tokens with special ones."""

    tweets: int = 0
    tokens: int = 0


@dataclass
class Funnel:
    """Counts of rows; `funnel.json` holds these fields, `kept` and a checksum.

    Attributes:
        columns: columns that were read.
        recipe: hash of the recipe.
        read: number of input rows.
        dropped: number of dropped rows by reason.
        notes: number of kept tweets (tokens, for `UNKNOWN_TOKENS`) by note.
        splits: size of each split.
        lengths: histogram of tweet lengths of each split; entry n counts the tweets of n tokens.
        unreadable: places of the first malformed or non-UTF-8 rows.
        several_lines: number of lines in CSV records of more than one line.
        most_lines: number of lines in the longest CSV record.
        long_records: places of the first CSV records with suspiciously many lines.
        examples: one value that caused a note, for some notes.
    """

    columns: Columns
    recipe: str
    read: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DropReason, 0))
    notes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Note, 0))
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    several_lines: int = 0
    most_lines: int = 0
    long_records: list[str] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        return self.read - sum(self.dropped.values())

    @property
    def unknown_token_share(self) -> float:
        """Share of [UNK] among the tokens of both splits, without [CLS] and [SEP]."""
        words = sum(split.tokens - 2 * split.tweets for split in self.splits.values())
        return self.notes[Note.UNKNOWN_TOKENS] / max(1, words)

    @property
    def unknown_tweet_share(self) -> float:
        """Share of the kept tweets that contain [UNK]."""
        return self.notes[Note.UNKNOWN_TWEETS] / max(1, self.kept)

    def to_json(self) -> Mapping[str, object]:
        assert self.kept == sum(split.tweets for split in self.splits.values())
        return add_checksum({**asdict(self), "kept": self.kept})

    @staticmethod
    def from_file(path: Path) -> Funnel:
        """Read the funnel of a folder of shards; UserError if the file is missing, damaged or unreadable."""
        try:
            with read_errors(path):
                content = path.read_bytes()
            record = verify_checksum(content)
            del record["kept"]
            funnel = parse_record(record, Funnel, "the funnel")
            if set(funnel.dropped) != set(DropReason) or set(funnel.notes) != set(Note):
                raise ValueError("its reasons or notes are not those of this version")
            return funnel
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: is missing or damaged ({error}); {how_to_recreate(path.parent)}") from None

    def show(self, console: Console) -> None:
        """Print the counts as a table."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right", style="dim")

        def line(name: str, count: int, share: str = "") -> None:
            table.add_row(name.replace("[", r"\["), f"{count:,}", share)

        line("rows read", self.read)
        if self.several_lines:
            line("  lines in multi-line rows", self.several_lines, f"{self.most_lines:,} in the longest")
        for reason, count in self.dropped.items():
            if count:
                line(f"  dropped: {REASON_TEXTS[reason]}", count, _share(count, self.read))
        line("tweets kept", self.kept, _share(self.kept, self.read))
        for note, count in self.notes.items():
            if count:
                is_token_count = note == Note.UNKNOWN_TOKENS
                share = f"{self.unknown_token_share:.2%} of the tokens" if is_token_count else _share(count, self.kept)
                line(f"  of them: {NOTE_TEXTS[note]}", count, share)
        for split, counts in self.splits.items():
            line(f"  {split}", counts.tweets, f"{counts.tokens:,} tokens")
        console.print(table)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""

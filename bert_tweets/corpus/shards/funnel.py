"""The funnel: what became of every row of the input, from read to kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum, parse_record, verify_checksum

from .manifest import how_to_recreate, read_errors

# Reasons for a drop, in the order in which they are looked for, and notes on rows that stay.
ROW_REASONS = (
    "malformed row",
    "not UTF-8",
    "no tweet",
    "empty",
    "longer than max_characters",
    "retweet",
    "empty after cleaning",
    "other language",
)
# Looked for once the copies of the whole corpus are known.
CORPUS_REASONS = (
    "duplicate",
    "near-duplicate",
    "fewer tokens than filter.min_tokens",
    "more tokens than filter.max_tokens",
    "author of too many tweets",
    "beyond the day's share",
)
REASONS = (*ROW_REASONS, *CORPUS_REASONS)
UNKNOWN = "[UNK] tokens"
OTHER_ORDER = "time not understood, but in the other order"
ROUNDED = "id rounded to a float"
NOTES = (
    "truncated to max_length",
    "time not understood",
    OTHER_ORDER,
    "no time",
    "no author",
    ROUNDED,
    "tweets with [UNK]",
    UNKNOWN,
)


@dataclass
class Funnel:
    """Counts of rows; `funnel.json` holds these fields, `kept` and a checksum.

    Attributes:
        read: rows of the input.
        dropped: rows left out, by reason.
        notes: what befell rows that were kept.
        splits: tweets and tokens of each split.
        lengths: of each split, how many tweets have how many tokens: entry n counts those of n tokens.
        columns: name of the column by role; None: none was read.
        recipe: hash of the recipe.
        unreadable: where the first rows are that are malformed or not UTF-8.
        several_lines: lines that records of more than one line hold (CSV).
        most_lines: of one record.
        long_records: where the first records are that span suspiciously many lines.
        examples: of some notes, one value that gave cause to it.
    """

    read: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    notes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NOTES, 0))
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    unreadable: list[str] = field(default_factory=list)
    several_lines: int = 0
    most_lines: int = 0
    long_records: list[str] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        return self.read - sum(self.dropped.values())

    @property
    def unknown_share(self) -> float:
        """The share of [UNK] among the tokens of both splits, [CLS] and [SEP] of each tweet left out."""
        words = sum(split["tokens"] - 2 * split["tweets"] for split in self.splits.values())
        return self.notes[UNKNOWN] / max(1, words)

    def add(self, dropped: dict[str, int]) -> None:
        """Counts more rows left out, by reason."""
        for reason, count in dropped.items():
            self.dropped[reason] += count

    def to_json(self) -> dict[str, object]:
        assert self.kept == sum(split["tweets"] for split in self.splits.values())
        return add_checksum({**asdict(self), "kept": self.kept})

    @staticmethod
    def from_file(path: Path) -> Funnel:
        """The funnel that a folder of shards holds.

        Raises:
            UserError: it is missing, damaged, or may not be read.
        """
        try:
            with read_errors(path):
                content = path.read_bytes()
            record = verify_checksum(content)
            del record["kept"]
            return parse_record(record, Funnel, "the funnel")
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: is missing or damaged ({error}); {how_to_recreate(path.parent)}") from None

    def show(self, console: Console) -> None:
        """Prints the counts as a table."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right", style="dim")

        def line(name: str, count: int, share: str = "") -> None:
            table.add_row(name.replace("[", r"\["), f"{count:,}", share)

        line("rows read", self.read)
        if self.several_lines:
            line("  lines in rows of several", self.several_lines, f"{self.most_lines:,} in the longest")
        for reason, count in self.dropped.items():
            if count:
                line(f"  dropped: {reason}", count, _share(count, self.read))
        line("tweets kept", self.kept, _share(self.kept, self.read))
        for note, count in self.notes.items():
            if count:
                share = f"{self.unknown_share:.2%} of the tokens" if note == UNKNOWN else _share(count, self.kept)
                line(f"  of them: {note}", count, share)
        for split, counts in self.splits.items():
            line(f"  {split}", counts["tweets"], f"{counts['tokens']:,} tokens")
        console.print(table)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""

"""Reports of units of work: counts, and the places in the input that people should look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bert_tweets.corpus.sources.byte_stream import file_name, is_url
from bert_tweets.corpus.sources.schema import FEW


@dataclass(frozen=True)
class Report:
    """What became of the rows of a unit.

    Attributes:
        number: of the unit.
        read: rows of the input.
        rows: rows that are left.
        dropped: rows left out, by reason.
        file: that the unit is of.
        unreadable, several_lines, most_lines, long_records: see `text.rows.Rows`.
        odd_time: the first time that was not understood; empty: there is none, or it looks like no time at all.
        odd_id: the first id that was rounded to a float; empty: there is none.
    """

    number: int
    read: int
    rows: int
    dropped: dict[str, int]
    file: str = ""
    unreadable: Sequence[int] = ()
    several_lines: int = 0
    most_lines: int = 0
    long_records: Sequence[Sequence[int]] = ()
    odd_time: str = ""
    odd_id: str = ""


def unreadable_rows(reports: Sequence[Report]) -> list[str]:
    """Where the first rows are that could not be read."""
    return _first_few(
        _place(report, before, number) for report, before in _within_files(reports) for number in report.unreadable
    )


def long_records(reports: Sequence[Report]) -> list[str]:
    """Where the first records are that span more lines than a tweet would, and how many."""
    return _first_few(
        f"{_place(report, before, number)} spans {lines:,} lines"
        for report, before in _within_files(reports)
        for number, lines in report.long_records
    )


def _within_files(reports: Sequence[Report]) -> Iterator[tuple[Report, int]]:
    """Each report, and the rows of its file before it."""
    before: dict[str, int] = {}
    for report in reports:
        # A run that went on may have spelled it otherwise.
        file = report.file if is_url(report.file) else str(Path(report.file).absolute())
        yield report, before.get(file, 0)
        before[file] = before.get(file, 0) + report.read


def _place(report: Report, before: int, number: int) -> str:
    """A row by its file, counted from 1 in it."""
    return f"{file_name(report.file)} row {before + number + 1:,}"


def _first_few(places: Iterator[str]) -> list[str]:
    return [place for place, _ in zip(places, range(FEW), strict=False)]

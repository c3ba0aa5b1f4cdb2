"""Cuts a stream of CSV bytes at the ends of records, so that each piece can be parsed by itself.

A newline inside of quotes ends no record, so a cut needs to know which quotes open and which close. Quotes are
read as Arrow's parser reads them: one that begins a field opens it; inside, a doubled quote is a quote and a
single one closes; anywhere else a quote is an ordinary character.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bert_tweets.common.errors import UserError

Positions = npt.NDArray[np.int64]

QUOTE, NEWLINE, RETURN = b'"\n\r'
LONGEST_RECORD = 64 * 2**20
_CACHED_BYTES = 2**16  # what stays in a processor's cache is looked through several times as fast


class ByteReader(Protocol):
    """What is cut; see `byte_stream.ByteStream`."""

    def read(self, size: int) -> bytes: ...

    def unread(self, data: bytes) -> None: ...


def quote_toggles(data: npt.NDArray[np.uint8], delimiter: str = ",") -> Positions:
    """Where quoting begins and ends, in turns: even entries open, odd entries close.

    Args:
        data: uint8 [bytes], beginning at the start of a record.
        delimiter: between fields, one ASCII character.

    Returns:
        int64 [toggles]; an odd number of them says that the end of the data is quoted.
    """
    quotes = np.flatnonzero(data == QUOTE)
    if not len(quotes):
        return quotes
    openers = quotes[::2]
    before = data[np.maximum(openers - 1, 0)]
    # A doubled quote closes and opens again at once, so that an opener may also follow a quote.
    begins_field = (
        (openers == 0) | (before == ord(delimiter)) | (before == NEWLINE) | (before == RETURN) | (before == QUOTE)
    )
    return quotes if begins_field.all() else _toggles_one_by_one(quotes, data, delimiter)


def _toggles_one_by_one(quotes: Positions, data: npt.NDArray[np.uint8], delimiter: str = ",") -> Positions:
    """The same for data in which some quotes are ordinary characters; a step a quote."""
    field_starts = np.isin(data[np.maximum(quotes - 1, 0)], [ord(delimiter), NEWLINE, RETURN]) | (quotes == 0)
    toggles: list[int] = []
    quoted, skipped = False, -1
    places = quotes.tolist()
    for index, (place, starts) in enumerate(zip(places, field_starts.tolist(), strict=True)):
        if place == skipped:
            continue
        if not quoted:
            if starts:
                toggles.append(place)
                quoted = True
        elif index + 1 < len(places) and places[index + 1] == place + 1:
            skipped = place + 1
        else:
            toggles.append(place)
            quoted = False
    return np.array(toggles, dtype=np.int64)


def first_record_end(data: bytes, delimiter: str = ",") -> int:
    """The position just behind the first record; the end of the data when it has none that is complete."""
    view = np.frombuffer(data, dtype=np.uint8)
    newlines = np.flatnonzero((view == NEWLINE) | (view == RETURN))
    outside = newlines[np.searchsorted(quote_toggles(view, delimiter), newlines) % 2 == 0]
    return int(outside[0]) + 1 if len(outside) else len(data)


class Spans(NamedTuple):
    """The records that hold several lines; they are numbered from 0, empty lines not counted.

    Attributes:
        records: int64 [records of several lines], their numbers, ascending.
        lines: int64 [records of several lines], how many each holds.
        swallowing: int64 [swallowing records], those in which a quote was left open: it is closed lines later, by a
            quote that some text goes on behind.
    """

    records: Positions
    lines: Positions
    swallowing: Positions


_NOWHERE = np.empty(0, np.int64)


def spans(data: bytes, delimiter: str = ",") -> Spans:
    """Which records hold several lines, and which of them swallow others.

    Args:
        data: whole records.
        delimiter: between fields.
    """
    view = np.frombuffer(data, dtype=np.uint8)
    toggles = quote_toggles(view, delimiter)
    if not len(toggles):
        return Spans(_NOWHERE, _NOWHERE, _NOWHERE)
    line_ends = np.flatnonzero((view == NEWLINE) | (view == RETURN))
    quoted = np.searchsorted(toggles, line_ends) % 2 == 1
    inside = line_ends[quoted]
    if not len(inside):
        return Spans(_NOWHERE, _NOWHERE, _NOWHERE)
    ends = line_ends[~quoted]
    # The newline behind a carriage return, or behind another newline, ends no record.
    ends = ends[np.diff(ends, prepend=-1) > 1]
    # A carriage return and its newline part two lines, not three.
    inside = inside[(view[inside] == RETURN) | (view[inside - 1] != RETURN)]
    records, more = np.unique(np.searchsorted(ends, inside), return_counts=True)
    return Spans(records, more + 1, np.unique(np.searchsorted(ends, _odd_ends(view, toggles, line_ends, delimiter))))


def _odd_ends(view: npt.NDArray[np.uint8], toggles: Positions, line_ends: Positions, delimiter: str) -> Positions:
    """Where a quote closes a field of several lines though some text goes on behind it."""
    opened, closed = toggles[: len(toggles) // 2 * 2 : 2], toggles[1::2]
    behind = view[np.minimum(closed + 1, len(view) - 1)]
    goes_on = ~np.isin(behind, [ord(delimiter), NEWLINE, RETURN, QUOTE]) & (closed + 1 < len(view))
    if not goes_on.any():
        return _NOWHERE
    # A doubled quote closes and opens again at once: where the field began stands before it.
    begins = np.concatenate([[True], closed[:-1] + 1 != opened[1:]])
    field_start = np.maximum.accumulate(np.where(begins, opened, 0))
    over_lines = np.searchsorted(line_ends, field_start) < np.searchsorted(line_ends, closed)
    return closed[goes_on & over_lines]


def last_record_end(data: bytes, delimiter: str = ",") -> tuple[int, int | None]:
    """The position just behind the last complete record (0: none), and where an open quote stands (None: nowhere)."""
    toggles = quote_toggles(np.frombuffer(data, dtype=np.uint8), delimiter)
    open_quote = int(toggles[-1]) if len(toggles) % 2 else None
    # The newline that belongs to a last carriage return may be yet to come.
    end = len(data) - data.endswith(b"\r")
    while end:
        newline = data.rfind(b"\n", 0, end)
        newline = max(newline, data.rfind(b"\r", max(0, newline), end))
        toggled = int(np.searchsorted(toggles, newline))
        if toggled % 2 == 0:
            return newline + 1, open_quote
        end = int(toggles[toggled - 1])
    return 0, open_quote


def count_lines(data: bytes) -> int:
    """Line ends of any kind (`\\n`, `\\r\\n`, `\\r`)."""
    view = np.frombuffer(data, dtype=np.uint8)
    count = 0
    for first in range(0, len(view), _CACHED_BYTES):
        block, following = view[first : first + _CACHED_BYTES], view[first + 1 : first + 1 + _CACHED_BYTES]
        newlines, returns = block == NEWLINE, block == RETURN
        pairs = returns[: len(following)] & (following == NEWLINE)
        count += int(np.count_nonzero(newlines) + np.count_nonzero(returns) - np.count_nonzero(pairs))
    return count


def pieces(stream: ByteReader, size: int, name: str, delimiter: str = ",") -> Iterator[bytes]:
    """Pieces of the stream, each of whole records and of about `size` bytes.

    What is read beyond a piece is put back before the piece is handed out.

    Args:
        stream: at the start of a record.
        size: bytes of a piece; only a longer record makes it longer.
        name: of the file, for messages.
        delimiter: between fields.

    Raises:
        UserError: a quote is never closed, or a record is longer than 64 MB; names the line.
    """
    line = 1
    while piece := _next_piece(stream, size, name, delimiter, line):
        yield piece
        line += count_lines(piece)


def _next_piece(stream: ByteReader, size: int, name: str, delimiter: str, line: int) -> bytes:
    data = b""
    while True:
        wanted = max(size, len(data))
        more = stream.read(wanted)
        data += more
        end, open_quote = last_record_end(data, delimiter)
        at_end = len(more) < wanted
        too_long = not end and len(data) > LONGEST_RECORD
        if open_quote is not None and (at_end or too_long):
            raise UserError(
                f"{name}: the quote that opens in line {line + count_lines(data[:open_quote])} is never closed; "
                'close it, or write "" for a quote inside of quotes'
            )
        if at_end:
            return data
        if end:
            stream.unread(data[end:])
            return data[:end]
        if too_long:
            raise UserError(f"{name}: line {line} is longer than 64 MB; is this a CSV file?")

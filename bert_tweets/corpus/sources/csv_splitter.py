"""Cut a stream of CSV bytes at the ends of records, so that each piece can be parsed alone.

A newline inside quotes does not end a record, so a cut needs to know which quotes open and which close. Quotes are
read as Arrow's parser reads them: one at the start of a field opens it; inside, a doubled quote is a quote and a
single one closes; anywhere else a quote is an ordinary character.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Ints
from bert_tweets.common.errors import UserError

QUOTE, NEWLINE, RETURN = b'"\n\r'
LONGEST_RECORD = 64 * 2**20
_CACHED_BYTES = 2**16  # blocks that fit in a CPU cache are several times as fast


class ByteReader(Protocol):
    """A stream of bytes, see `byte_stream.ByteStream`."""

    def read(self, size: int) -> bytes: ...

    def unread(self, data: bytes) -> None: ...


def quote_toggles(data: npt.NDArray[np.uint8], delimiter: str = ",") -> Ints:
    """Positions where quoting begins and ends, alternately; if their number is odd, the end of the data is quoted.

    Args:
        data: uint8 [bytes], from the start of a record.
        delimiter: field delimiter, one ASCII character.
    """
    quotes = np.flatnonzero(data == QUOTE)
    if not len(quotes):
        return quotes
    openers = quotes[::2]
    before = data[np.maximum(openers - 1, 0)]
    # A doubled quote closes and opens again at once, so an opening quote may also follow a quote.
    begins_field = (openers == 0) | np.isin(before, [ord(delimiter), NEWLINE, RETURN, QUOTE])
    return quotes if begins_field.all() else _toggles_one_by_one(quotes, data, delimiter)


def _toggles_one_by_one(quotes: Ints, data: npt.NDArray[np.uint8], delimiter: str = ",") -> Ints:
    """The same for data in which some quotes are ordinary characters; loops over the quotes."""
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
    """Position after the first record; the end of the data if no record is complete."""
    view = np.frombuffer(data, dtype=np.uint8)
    newlines = np.flatnonzero((view == NEWLINE) | (view == RETURN))
    outside = newlines[np.searchsorted(quote_toggles(view, delimiter), newlines) % 2 == 0]
    return int(outside[0]) + 1 if len(outside) else len(data)


class Spans(NamedTuple):
    """Records of several lines; they are numbered from 0, without empty lines.

    Attributes:
        records: int64 [multi-line records], their numbers, ascending.
        lines: int64 [multi-line records], number of lines of each.
        swallowing: int64 [swallowing records], those with an unclosed quote: it is closed lines later, by a quote that
            is followed by text.
    """

    records: Ints
    lines: Ints
    swallowing: Ints


_NOWHERE = np.empty(0, np.int64)


def spans(data: bytes, delimiter: str = ",") -> Spans:
    """Find, in whole records, those of several lines, and those of them that swallow other records."""
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
    # A newline after a carriage return or another newline does not end a record.
    ends = ends[np.diff(ends, prepend=-1) > 1]
    # A carriage return and its newline separate two lines, not three.
    inside = inside[(view[inside] == RETURN) | (view[inside - 1] != RETURN)]
    records, more = np.unique(np.searchsorted(ends, inside), return_counts=True)
    wrong = _wrong_closing_quotes(view, toggles, line_ends, delimiter)
    return Spans(records, more + 1, np.unique(np.searchsorted(ends, wrong)))


def _wrong_closing_quotes(view: npt.NDArray[np.uint8], toggles: Ints, line_ends: Ints, delimiter: str) -> Ints:
    """Positions of quotes that close a field of several lines but are followed by text."""
    opened, closed = toggles[: len(toggles) // 2 * 2 : 2], toggles[1::2]
    following = view[np.minimum(closed + 1, len(view) - 1)]
    has_text = ~np.isin(following, [ord(delimiter), NEWLINE, RETURN, QUOTE]) & (closed + 1 < len(view))
    if not has_text.any():
        return _NOWHERE
    # A doubled quote closes and opens again at once: the field began earlier.
    begins = np.concatenate([[True], closed[:-1] + 1 != opened[1:]])
    field_start = np.maximum.accumulate(np.where(begins, opened, 0))
    over_lines = np.searchsorted(line_ends, field_start) < np.searchsorted(line_ends, closed)
    return closed[has_text & over_lines]


def last_record_end(data: bytes, delimiter: str = ",") -> tuple[int, int | None]:
    """Position after the last complete record (0: none), and position of an unclosed quote (None: none)."""
    toggles = quote_toggles(np.frombuffer(data, dtype=np.uint8), delimiter)
    open_quote = int(toggles[-1]) if len(toggles) % 2 else None
    # The newline that belongs to a final carriage return may not have been read yet.
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
    """Number of line ends of any kind (`\\n`, `\\r\\n`, `\\r`)."""
    view = np.frombuffer(data, dtype=np.uint8)
    count = 0
    for first in range(0, len(view), _CACHED_BYTES):
        block, following = view[first : first + _CACHED_BYTES], view[first + 1 : first + 1 + _CACHED_BYTES]
        newlines, returns = block == NEWLINE, block == RETURN
        pairs = returns[: len(following)] & (following == NEWLINE)
        count += int(np.count_nonzero(newlines) + np.count_nonzero(returns) - np.count_nonzero(pairs))
    return count


def pieces(stream: ByteReader, size: int, name: str, delimiter: str = ",") -> Iterator[bytes]:
    """Cut the stream into pieces of whole records, of about `size` bytes each.

    Bytes read beyond a piece are put back before the piece is yielded.

    Args:
        stream: stream at the start of a record.
        size: size of a piece in bytes; only a longer record makes it longer.
        name: file name, for messages.
        delimiter: field delimiter.

    Raises:
        UserError: a quote is never closed, or a record is longer than 64 MB; the message names the line.
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
                'close it, or write "" for a quote inside quotes'
            )
        if at_end:
            return data
        if end:
            stream.unread(data[end:])
            return data[:end]
        if too_long:
            raise UserError(f"{name}: line {line} is longer than 64 MB; is this a CSV file?")

"""Cuts a stream of CSV bytes at the ends of records, so that each piece can be parsed by itself.

A newline inside of quotes ends no record, so a cut needs to know which quotes open and which close. Quotes are
read as Arrow's parser reads them: one that begins a field opens it; inside, a doubled quote is a quote and a
single one closes; anywhere else a quote is an ordinary character.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..errors import UserError

Positions = npt.NDArray[np.int64]

QUOTE, NEWLINE, RETURN = b'"\n\r'
LONGEST_RECORD = 64 * 2**20


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


def record_ends(data: bytes, delimiter: str = ",") -> tuple[Positions, int | None]:
    """The positions just behind each complete record, and where an open quote stands (None: no quote is open).

    Returns:
        int64 [records], ascending; a position in `data` or None.
    """
    view = np.frombuffer(data, dtype=np.uint8)
    toggles = quote_toggles(view, delimiter)
    newlines = np.flatnonzero((view == NEWLINE) | (view == RETURN))
    outside = np.searchsorted(toggles, newlines) % 2 == 0
    return newlines[outside] + 1, int(toggles[-1]) if len(toggles) % 2 else None


def count_lines(data: bytes) -> int:
    """Line ends of any kind (`\\n`, `\\r\\n`, `\\r`)."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def blocks(read: Callable[[], bytes], name: str, delimiter: str = ",") -> Iterator[bytes]:
    """Pieces of the stream, each of whole records.

    Args:
        read: gives the next bytes, `b""` at the end.
        name: of the file, for messages.
        delimiter: between fields.

    Raises:
        UserError: a quote is never closed, or a record is longer than 64 MB; names the line.
    """
    line, carried = 1, b""
    while chunk := read():
        carried += chunk
        ends, open_quote = record_ends(carried, delimiter)
        # The newline that belongs to a last carriage return may be yet to come.
        cuts = ends[ends < len(carried)] if carried.endswith(b"\r") else ends
        end = int(cuts[-1]) if len(cuts) else 0
        if end:
            yield carried[:end]
            line += count_lines(carried[:end])
            carried = carried[end:]
        if len(carried) > LONGEST_RECORD:
            if open_quote is not None:
                raise _unclosed(name, line + count_lines(carried[: open_quote - end]))
            raise UserError(f"{name}: line {line} is longer than 64 MB; is this a CSV file?")
    open_quote = record_ends(carried, delimiter)[1]
    if open_quote is not None:
        raise _unclosed(name, line + count_lines(carried[:open_quote]))
    if carried:
        yield carried


def _unclosed(name: str, line: int) -> UserError:
    return UserError(
        f"{name}: the quote that opens in line {line} is never closed; close it, "
        'or write "" for a quote inside of quotes'
    )

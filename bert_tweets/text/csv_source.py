"""CSV and TSV: streamed, a block of whole records at a time; a file that is not CSV ends in one line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ..errors import UserError
from . import csv_records
from .byte_stream import CHUNK_BYTES, reader
from .rows import Columns, Rows


class CsvSource:
    """A file of records whose fields are separated by commas, tabs or semicolons, whichever its first line has.

    Raises:
        UserError: at once when it is empty or no CSV; while reading when a quote is never closed.
    """

    def __init__(self, path: Path, chunk_bytes: int = CHUNK_BYTES):
        self.path, self.delimiter = path, _delimiter_of(path)
        self.names, self._blocks = _open(path, self.delimiter, chunk_bytes)

    def rows(self, columns: Columns, first_number: int) -> Iterator[Rows]:
        places = {role: self.names.index(name) for role, name in columns.wanted().items()}
        for block in self._blocks:
            # Arrow takes a block without a row for an error.
            if block.strip(b"\r\n"):
                rows = _parse(block, self.delimiter, len(self.names), places, first_number)
                first_number += rows.read
                yield rows


def _open(path: Path, delimiter: str, chunk_bytes: int) -> tuple[list[str], Iterator[bytes]]:
    """The names in a file's header, and the blocks of records behind it."""
    pieces = csv_records.blocks(reader(path, chunk_bytes), str(path), delimiter)
    first = b""
    for piece in pieces:
        first = piece.lstrip(b"\r\n")
        if first:
            break
    if not first:
        raise UserError(f"{path}: is empty; a CSV file begins with the names of its columns")
    ends, _ = csv_records.record_ends(first, delimiter)
    end = int(ends[0]) if len(ends) else len(first)
    try:
        header = next(csv.reader(io.StringIO(first[:end].decode(), newline=""), delimiter=delimiter))
    except UnicodeDecodeError:
        raise UserError(f"{path}: its header is not UTF-8; save the file as UTF-8") from None
    except csv.Error:
        raise UserError(f"{path}: does not begin with the names of columns; is this a CSV file?") from None

    def rest() -> Iterator[bytes]:
        yield first[end:]
        yield from pieces

    return header, rest()


def _parse(block: bytes, delimiter: str, width: int, places: dict[str, int], first_number: int) -> Rows:
    """One block of whole records."""
    is_utf8 = _is_utf8(block)
    if not is_utf8:
        # Arrow cannot report a malformed row that is not UTF-8. Every byte is some Latin-1 character, and
        # commas, quotes and newlines stay what they are; the fields are turned back below.
        block = block.decode("latin-1").encode()
    malformed: list[int] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        malformed.append(row.number)
        return "skip"

    names = [str(place) for place in range(width)]
    table = pyarrow.csv.read_csv(
        pa.py_buffer(block),
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, block_size=len(block) + 1, use_threads=False, encoding="utf8"
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=[str(place) for place in dict.fromkeys(places.values())],
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    count = table.num_rows + len(malformed)
    numbers = np.delete(np.arange(first_number, first_number + count), np.array(malformed, dtype=np.int64) - 1)
    fields = {role: _one_array(table.column(str(place))) for role, place in places.items()}
    not_utf8 = 0
    if not is_utf8:
        fields, sound = _turned_back(fields)
        not_utf8 = int((~sound).sum())
        numbers = numbers[sound]
    return Rows(
        fields["text"], fields.get("id"), fields.get("time"), fields.get("author"), numbers, len(malformed), not_utf8
    )


def _turned_back(fields: dict[str, pa.Array]) -> tuple[dict[str, pa.Array], np.ndarray]:
    """Fields that were read as Latin-1, as UTF-8; rows in which one of them is not are left out.

    Returns:
        The fields of the sound rows, and bool [rows], which rows are sound.
    """
    raw = {role: [text.encode("latin-1") for text in field.to_pylist()] for role, field in fields.items()}
    sound = np.array([all(map(_is_utf8, row)) for row in zip(*raw.values(), strict=True)], dtype=np.bool_)
    keep = pa.array(sound)
    return {role: pa.array(field, pa.binary()).filter(keep).cast(pa.string()) for role, field in raw.items()}, sound


def _delimiter_of(path: Path) -> str:
    """What separates the names in a file's first line: a comma, else a tab or (as spreadsheets do) a semicolon."""
    first_line = reader(path, 2**16)().lstrip(b"\r\n").split(b"\n", 1)[0]
    return next((mark for mark in (",", "\t", ";") if mark.encode() in first_line), ",")


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

"""Read CSV and TSV: cut into units of whole records, each parsed alone."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv

from bert_tweets.common.arrays import Bools, Ints
from bert_tweets.common.errors import UserError

from . import csv_splitter
from .byte_stream import ByteStream
from .schema import FEW, MANY_LINES, Columns, Rows, ids_or_null

UNIT_BYTES = 4 * 2**20
_HEAD_BYTES = 2**16
_MOST_COLUMNS = 10_000


@dataclass(frozen=True)
class CsvDialect:
    """Layout of records: names of the fields, in order and without surrounding space, and their delimiter."""

    names: tuple[str, ...]
    delimiter: str


class CsvSource:
    """A file of records with fields separated by commas, tabs or semicolons, depending on its first line.

    Raises:
        UserError: from the constructor, if the file is empty or not CSV; from `pieces`, if a quote is never closed.
    """

    kind = "csv"

    def __init__(self, path: str):
        self.path = path
        with ByteStream(path) as stream:
            self.layout = _read_header(stream)
        self.names = list(self.layout.names)
        self.readable = set(self.names)

    def pieces(self, unit_bytes: int | None) -> Iterator[bytes]:
        """Whole records, several megabytes at a time, in order."""
        with ByteStream(self.path) as stream:
            first = True
            for piece in csv_splitter.pieces(stream, unit_bytes or UNIT_BYTES, self.path, self.layout.delimiter):
                records = piece
                if first and (records := piece.lstrip(b"\r\n")):
                    records = records[csv_splitter.first_record_end(records, self.layout.delimiter) :]
                    first = False
                # Arrow raises an error for a block without a row.
                if records.lstrip(b"\r\n"):
                    yield records


def _read_header(stream: ByteStream) -> CsvDialect:
    start = b""
    while not start.strip(b"\r\n") and (more := stream.read(_HEAD_BYTES)):
        start = more
    first_line = re.split(rb"[\r\n]", start.lstrip(b"\r\n"), maxsplit=1)[0]
    # A comma, else a tab, or a semicolon as some spreadsheets write.
    delimiter = next((mark for mark in (",", "\t", ";") if mark.encode() in first_line), ",")
    stream.unread(start.lstrip(b"\r\n"))
    first = next(csv_splitter.pieces(stream, _HEAD_BYTES, stream.path, delimiter), b"")
    if not first:
        raise UserError(f"{stream.path}: is empty; a CSV file must begin with the names of its columns")
    try:
        header = first[: csv_splitter.first_record_end(first, delimiter)].decode()
        if header.count(delimiter) >= _MOST_COLUMNS:
            raise UserError(f"{stream.path}: has more than {_MOST_COLUMNS:,} columns; is this a CSV file?")
        names = next(csv.reader(io.StringIO(header, newline=""), delimiter=delimiter))
    except UnicodeDecodeError:
        raise UserError(f"{stream.path}: its header is not UTF-8; save the file as UTF-8") from None
    except (csv.Error, StopIteration):
        raise UserError(f"{stream.path}: does not begin with column names; is this a CSV file?") from None
    return CsvDialect(tuple(name.strip() for name in names), delimiter)


def parse_csv(block: bytes, layout: CsvDialect, columns: Columns) -> Rows:
    """Parse a block of whole records; pa.ArrowInvalid if Arrow cannot read it."""
    places = {role: layout.names.index(name) for role, name in columns.wanted().items()}
    is_utf8 = _is_utf8(block)
    if not is_utf8:
        # Arrow cannot report a malformed row that is not UTF-8. Every byte is a Latin-1 character, and commas, quotes
        # and newlines are the same in it; the fields are decoded again below.
        block = block.decode("latin-1").encode()
    spans = csv_splitter.spans(block, layout.delimiter)
    table, malformed = _read_table(block, layout, sorted(set(places.values())), spans.swallowing)
    count = table.num_rows + len(malformed)
    numbers = np.delete(np.arange(count, dtype=np.int64), malformed)
    fields = {role: _one_array(table.column(str(place))) for role, place in places.items()}
    not_utf8 = numbers[:0]
    if not is_utf8:
        fields, is_valid = _latin1_to_utf8(fields)
        numbers, not_utf8 = numbers[is_valid], numbers[~is_valid]
    if columns.retweet_of is not None:
        fields["retweet_of"] = ids_or_null(fields["retweet_of"], columns.retweet_of)
    unreadable = np.sort(np.concatenate([malformed, not_utf8]))[:FEW].tolist()
    long = np.flatnonzero(spans.lines > MANY_LINES)[:FEW]
    return Rows(
        fields,
        numbers,
        len(malformed),
        len(not_utf8),
        unreadable=tuple(unreadable),
        several_lines=int(spans.lines.sum()),
        most_lines=int(spans.lines.max(initial=0)),
        long_records=tuple(zip(spans.records[long].tolist(), spans.lines[long].tolist(), strict=True)),
    )


def _read_table(block: bytes, layout: CsvDialect, places: list[int], swallowing: Ints) -> tuple[pa.Table, Ints]:
    """Read the columns at these positions, named by position, and the numbers of malformed rows, int64 [malformed].

    Arrow can read the rows `swallowing`, int64 [rows], but they are malformed too.
    """
    malformed: list[int] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        malformed.append(row.number - 1)
        return "skip"

    names = [str(place) for place in range(len(layout.names))]
    # Arrow would remove a byte order mark at the start of a tweet as that of a file.
    block = b"\n" + block if block.startswith(b"\xef\xbb\xbf") else block
    table = pyarrow.csv.read_csv(
        pa.py_buffer(block),
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, block_size=len(block) + 1, use_threads=False, encoding="utf8"
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=skip
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=[str(place) for place in places],
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    found = np.array(malformed, dtype=np.int64)
    if len(swallowing):
        kept = np.delete(np.arange(table.num_rows + len(found)), found)
        table = table.filter(pa.array(~np.isin(kept, swallowing)))
        found = np.union1d(found, swallowing)
    return table, found


def _latin1_to_utf8(fields: dict[str, pa.Array]) -> tuple[dict[str, pa.Array], Bools]:
    """Decode fields, which were read as Latin-1, as UTF-8; the valid rows, and which ones they are, bool [rows]."""
    raw = {role: [text.encode("latin-1") for text in field.to_pylist()] for role, field in fields.items()}
    valid = np.array([all(map(_is_utf8, row)) for row in zip(*raw.values(), strict=True)], dtype=np.bool_)
    keep = pa.array(valid)
    return {role: pa.array(field, pa.binary()).filter(keep).cast(pa.string()) for role, field in raw.items()}, valid


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

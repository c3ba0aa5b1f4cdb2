"""Tweets out of CSV files, plain or gzipped: streamed, a block of whole records at a time.

Every row that is left out is counted with its reason; a file that cannot be read as CSV ends in one line.
"""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ..errors import UserError, did_you_mean
from . import csv_records

CHUNK_BYTES = 4 * 2**20

# What columns are called, by role, most telling name first; case aside.
NAMES = {
    "text": ("text", "tweet", "content", "content_cleaned", "full_text", "body", "message"),
    "id": ("id", "tweet_id", "id_str", "status_id"),
    "time": ("created_at", "date", "time", "timestamp", "datetime"),
    "author": ("author", "author_id", "user", "username", "user_id", "screen_name", "handle"),
}


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read, as the header writes them; None: not there."""

    text: str
    id: str | None = None
    time: str | None = None
    author: str | None = None

    def wanted(self) -> dict[str, str]:
        """Role to name, for the roles that have a column."""
        return {role: name for role, name in vars(self).items() if name is not None}


@dataclass(frozen=True)
class Rows:
    """The sound rows of one block.

    Attributes:
        text: string [rows].
        id, time, author: string [rows], or None without such a column.
        numbers: int64 [rows], each row's number in the whole input, from 1, malformed rows counted.
        malformed: rows left out for another number of columns than the header's.
        not_utf8: rows left out for bytes that are not UTF-8.
    """

    text: pa.Array
    id: pa.Array | None
    time: pa.Array | None
    author: pa.Array | None
    numbers: np.ndarray
    malformed: int
    not_utf8: int

    @property
    def read(self) -> int:
        return len(self.text) + self.malformed + self.not_utf8


def expand(names: list[str]) -> list[Path]:
    """The files that are meant, patterns such as `tweets-*.csv` in order of name.

    Raises:
        UserError: a pattern that no file matches.
    """
    paths: list[Path] = []
    for name in names:
        if any(mark in name for mark in "*?[") and not Path(name).exists():
            found = sorted(glob.glob(str(Path(name).expanduser())))  # noqa: PTH207 - Path.glob takes no absolute pattern
            if not found:
                raise UserError(f"{name}: no file is called like this")
            paths += map(Path, found)
        else:
            paths.append(Path(name).expanduser())
    return paths


def identity(paths: list[Path]) -> dict[str, dict[str, int]]:
    """Size in bytes and time of last change in ns of each file: whether it is still the one that was read.

    Raises:
        UserError: a file is not there.
    """
    found = {}
    for path in paths:
        _require_file(path)
        status = path.stat()
        found[str(path)] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    return found


def find_columns(paths: list[Path], asked: dict[str, str]) -> Columns:
    """Which columns to read; the first file decides, and every file must have them.

    Args:
        paths: the CSV files.
        asked: role (`text`, `id`, `time`, `author`) to the name that the user gave; empty: find it.

    Raises:
        UserError: a file or a column is not there, or the text column cannot be told.
    """
    header = _header(paths[0])
    found: dict[str, str] = {}
    for role, names in NAMES.items():
        if asked.get(role):
            found[role] = asked[role]
            continue
        lowered = [name.lower() for name in header]
        here = [header[lowered.index(name)] for name in names if name in lowered]
        if here:
            found[role] = here[0]
    if "text" not in found:
        raise UserError(
            f"{paths[0]}: no column of text among {_listed(header)}; say which with text_column=NAME"
            + _separator(header)
        )
    columns = Columns(**found)
    for path in paths:
        _places(path, header if path == paths[0] else _header(path), columns)
    return columns


def read(paths: list[Path], columns: Columns, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Rows]:
    """The rows of all files, in order.

    Raises:
        UserError: a file is missing, is not CSV in UTF-8, has an unclosed quote, or its gzip data is damaged.
    """
    number = 1
    for path in paths:
        header, blocks = _open(path, chunk_bytes)
        places = _places(path, header, columns)
        for block in blocks:
            # Arrow takes a block without a row for an error.
            if not block.strip(b"\r\n"):
                continue
            rows = _parse(block, len(header), places, number)
            number += rows.read
            yield rows


def _parse(block: bytes, width: int, places: dict[str, int], first_number: int) -> Rows:
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
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
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


def _open(path: Path, chunk_bytes: int) -> tuple[list[str], Iterator[bytes]]:
    """The names in a file's header, and the blocks of records behind it."""
    pieces = csv_records.blocks(_reader(path, chunk_bytes), str(path))
    first = b""
    for piece in pieces:
        first = piece.lstrip(b"\r\n")
        if first:
            break
    if not first:
        raise UserError(f"{path}: is empty; a CSV file begins with the names of its columns")
    ends, _ = csv_records.record_ends(first)
    end = int(ends[0]) if len(ends) else len(first)
    try:
        header = next(csv.reader(io.StringIO(first[:end].decode(), newline="")))
    except UnicodeDecodeError:
        raise UserError(f"{path}: its header is not UTF-8; save the file as UTF-8") from None
    except csv.Error:
        raise UserError(f"{path}: does not begin with the names of columns; is this a CSV file?") from None

    def rest() -> Iterator[bytes]:
        yield first[end:]
        yield from pieces

    return header, rest()


def _header(path: Path) -> list[str]:
    return _open(path, 2**16)[0]


def _reader(path: Path, chunk_bytes: int) -> Callable[[], bytes]:
    """A function that gives a file's next bytes, unzipped and without a byte order mark."""
    _require_file(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        compression = "gzip" if magic[:2] == b"\x1f\x8b" else None
        if path.suffix == ".gz" and not compression and magic:
            raise UserError(f"{path}: is not gzip data, though its name says so; fetch it again")
        stream = pa.input_stream(str(path), compression=compression)
        start: bytes = stream.read(4096)
    except OSError as error:
        raise _unreadable(path, error) from None
    _require_text(path, start)
    waiting = [start.removeprefix(b"\xef\xbb\xbf")]

    def read_chunk() -> bytes:
        if waiting and (first := waiting.pop()):
            return first
        try:
            chunk: bytes = stream.read(chunk_bytes)
        except OSError as error:
            raise _unreadable(path, error) from None
        return chunk

    return read_chunk


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the CSV files in it")
    if not path.exists():
        raise UserError(f"{path}: no such file")


def _require_text(path: Path, start: bytes) -> None:
    """Refuses what begins like a file of another kind."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start.count(0) > len(start) // 4:
        raise UserError(f"{path}: is UTF-16 (or binary), not UTF-8; save the file as UTF-8")
    for magic, kind in ((b"PK\x03\x04", "a zip or Excel file"), (b"PAR1", "a Parquet file"), (b"BZh", "a bzip2 file")):
        if start.startswith(magic):
            raise UserError(f"{path}: is {kind}, not CSV; save the file as CSV in UTF-8")


def _unreadable(path: Path, error: OSError) -> UserError:
    if isinstance(error, PermissionError):
        return UserError(f"{path}: may not be read; check its permissions")
    return UserError(f"{path}: cannot be read to its end ({' '.join(str(error).split())}); fetch it again")


def _places(path: Path, header: list[str], columns: Columns) -> dict[str, int]:
    """Where each wanted column stands. Raises UserError when one is missing or stands there twice."""
    places = {}
    for role, name in columns.wanted().items():
        count = header.count(name)
        if count == 0:
            raise UserError(
                f"{path}: no column '{name}' for the {role}{did_you_mean(name, header)}; "
                f"it has {_listed(header)}" + _separator(header)
            )
        if count > 1:
            raise UserError(f"{path}: {count} columns are called '{name}'; rename all but one")
        places[role] = header.index(name)
    return places


def _separator(header: list[str]) -> str:
    """A hint when the file seems to be separated by something else than commas."""
    if len(header) == 1:
        for mark, name in (("\t", "tabs"), (";", "semicolons")):
            if mark in header[0]:
                return f" (columns seem to be separated by {name}; save the file with commas)"
    return ""


def _listed(header: list[str]) -> str:
    names = [name if len(name) <= 40 else name[:37] + "..." for name in header[:20]]
    return ", ".join(" ".join(repr(name)[1:-1].split()) for name in names) + (", ..." if len(header) > 20 else "")


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

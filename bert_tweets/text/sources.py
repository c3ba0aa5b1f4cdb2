"""Tweets out of files: which files are meant, which of their columns, and their rows in order.

Every row that is left out is counted with its reason; a file that cannot be read ends in one line.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError, did_you_mean
from .byte_stream import CHUNK_BYTES, require_file
from .csv_source import CsvSource
from .json_source import JsonSource
from .rows import NAMES, Columns, Rows, Source
from .table_source import TableSource

_ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "table",
    ".arrow": "table",
    ".feather": "table",
}
_COMPRESSED = (".gz", ".zst", ".bz2")


def expand(names: list[str]) -> list[Path]:
    """The files that are meant: of patterns such as `tweets-*.csv` and of folders in order of name.

    Raises:
        UserError: a pattern that no file matches, or a folder without a file of tweets.
    """
    paths: list[Path] = []
    for name in names:
        if any(mark in name for mark in "*?[") and not Path(name).exists():
            found = sorted(glob.glob(str(Path(name).expanduser())))  # noqa: PTH207 - Path.glob takes no absolute pattern
            if not found:
                raise UserError(f"{name}: no file is called like this")
            paths += map(Path, found)
        elif Path(name).expanduser().is_dir():
            inside = sorted(path for path in Path(name).expanduser().iterdir() if _kind(path))
            if not inside:
                raise UserError(f"{name}: holds no file that ends in {', '.join(_ENDINGS)}, plain or compressed")
            paths += inside
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
        require_file(path)
        status = path.stat()
        found[str(path)] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    return found


def find_columns(paths: list[Path], asked: dict[str, str]) -> Columns:
    """Which columns to read; the first file decides, and every file must have them.

    Args:
        paths: the files.
        asked: role (`text`, `id`, `time`, `author`) to the name that the user gave; empty: find it.

    Raises:
        UserError: a file or a column is not there, or the text column cannot be told.
    """
    first = open_source(paths[0])
    header = first.names
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
        raise UserError(f"{paths[0]}: no column of text among {_listed(header)}; say which with text_column=NAME")
    columns = Columns(**found)
    for path in paths:
        _require_columns(path, first if path == paths[0] else open_source(path), columns)
    return columns


def read(paths: list[Path], columns: Columns, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Rows]:
    """The rows of all files, in order.

    Raises:
        UserError: a file is missing or cannot be read to its end as what its name says.
    """
    number = 1
    for path in paths:
        source = open_source(path, chunk_bytes)
        _require_columns(path, source, columns)
        for rows in source.rows(columns, number):
            number += rows.read
            yield rows


def open_source(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Source:
    """A file, opened by what its name says it holds; CSV where that says nothing.

    Raises:
        UserError: it is missing, or is not what its name says.
    """
    require_file(path)
    kind = _kind(path)
    if kind == "json":
        return JsonSource(path, chunk_bytes)
    if kind == "table":
        return TableSource(path)
    return CsvSource(path, chunk_bytes)


def _kind(path: Path) -> str | None:
    plain = path.with_suffix("") if path.suffix in _COMPRESSED else path
    return _ENDINGS.get(plain.suffix.lower())


def _require_columns(path: Path, source: Source, columns: Columns) -> None:
    """Raises UserError when a wanted column is missing or stands there twice."""
    for role, name in columns.wanted().items():
        count = source.names.count(name)
        if count == 0:
            raise UserError(
                f"{path}: no column '{name}' for the {role}{did_you_mean(name, source.names)}; "
                f"it has {_listed(source.names)}"
            )
        if count > 1:
            raise UserError(f"{path}: {count} columns are called '{name}'; rename all but one")


def _listed(header: list[str]) -> str:
    names = [name if len(name) <= 40 else name[:37] + "..." for name in header[:20]]
    return ", ".join(" ".join(repr(name)[1:-1].split()) for name in names) + (", ..." if len(header) > 20 else "")

"""Tweets out of files: which files are meant, which of their columns, and the units of work that hold their rows.

Every row that is left out is counted with its reason; a file that cannot be read ends in one line.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ..errors import UserError, did_you_mean
from . import units as units_of_work
from .byte_stream import filesystem, is_url, readable, require_file, suffixes
from .csv_source import CsvSource, Layout
from .json_source import JsonSource
from .rows import NAMES, Columns, Rows
from .table_source import Batch, TableSource
from .units import Unit

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
# What file systems call that by which a change shows.
_TRACES = ("etag", "mtime", "modified", "updated", "created", "md5", "crc32c", "checksum", "digest", "generation")


class Source(Protocol):
    """One file of some format."""

    kind: str
    names: list[str]
    """Its columns, as the file calls them."""

    @property
    def layout(self) -> Layout | None:
        """What parsing a piece takes besides its bytes."""
        ...

    def pieces(self, unit_bytes: int | None) -> Iterator[bytes | Batch]:
        """Its rows in pieces, in order; `unit_bytes` is the size of a piece of text, None: what suits the format."""
        ...


def expand(names: list[str]) -> list[str]:
    """The files that are meant: of patterns such as `tweets-*.csv` and of folders in order of name.

    Args:
        names: files, folders and patterns, local or as URLs of any protocol that fsspec knows.

    Raises:
        UserError: a pattern that no file matches, a folder without a file of tweets, or a URL that cannot be reached.
    """
    return [path for name in names for path in (_expand_url(name) if is_url(name) else _expand_local(name))]


def _expand_local(name: str) -> list[str]:
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{name}: there is no such user here") from None
    with readable(name):
        if any(mark in name for mark in "*?[") and not path.exists():
            found = sorted(glob.glob(str(path)))  # noqa: PTH207 - Path.glob takes no absolute pattern
            return found or _no_match(name)
        if path.is_dir():
            return _tweets_among(name, [str(inside) for inside in path.iterdir()])
    return [str(path)]


def _expand_url(name: str) -> list[str]:
    if name.startswith("file://"):
        return _expand_local(unquote(name.removeprefix("file://")))
    system, path = filesystem(name)
    is_web = name.startswith(("http://", "https://"))
    with readable(name):
        # What stands behind a `?` on the web is a question, not a pattern.
        if any(mark in name for mark in ("*" if is_web else "*?[")):
            found = sorted(map(system.unstrip_protocol, system.glob(path)))
            return found or _no_match(name)
        # Whether a page of the web is a folder is told by reading all of it; by custom its address ends in a slash.
        if urlsplit(name).path.endswith("/") if is_web else system.isdir(path):
            return _tweets_among(name, [system.unstrip_protocol(inside) for inside in system.ls(path, detail=False)])
    return [name]


def _tweets_among(folder: str, paths: list[str]) -> list[str]:
    found = sorted(path for path in paths if _kind(path))
    if not found:
        raise UserError(f"{folder}: holds no file that ends in {', '.join(_ENDINGS)}, plain or compressed")
    return found


def _no_match(name: str) -> list[str]:
    raise UserError(f"{name}: no file is called like this")


def identity(paths: list[str]) -> dict[str, dict[str, Any]]:
    """What tells of each file whether it is still the one that was read.

    Returns:
        Of a local file its size (`bytes`) and the time of its last change (`mtime_ns`); of a URL its size and
        whatever its protocol tells of times, tags and checksums, by the names it gives them.

    Raises:
        UserError: a file is not there.
    """
    return {path: _url_identity(path) if is_url(path) else _local_identity(path) for path in paths}


def _local_identity(path: str) -> dict[str, Any]:
    require_file(path)
    with readable(path):
        status = Path(path).stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _url_identity(url: str) -> dict[str, Any]:
    system, path = filesystem(url)
    with readable(url):
        info = system.info(path)
    if info.get("type") == "directory":
        raise UserError(f"{url}: is a folder; name the files in it")
    traces = {key: str(info[key]) for key in sorted(info) if any(mark in key.lower() for mark in _TRACES)}
    return {"bytes": info.get("size"), **traces}


def find_columns(paths: list[str], asked: dict[str, str], groups: Sequence[str] = ()) -> Columns:
    """Which columns to read; the first file decides, and every file must have them.

    Args:
        paths: the files.
        asked: role (a key of `rows.NAMES`) to the name that the user gave; empty: find it.
        groups: names of further columns.

    Raises:
        UserError: a file or a column is not there, or the text column cannot be told.
    """
    first = open_source(paths[0])
    lowered = [name.lower() for name in first.names]
    found: dict[str, str] = {}
    for role, names in NAMES.items():
        here = [first.names[lowered.index(name)] for name in names if name in lowered]
        if asked.get(role) or here:
            found[role] = asked.get(role) or here[0]
    if "text" not in found:
        raise UserError(f"{paths[0]}: no column of text among {_listed(first.names)}; say which with text_column=NAME")
    columns = Columns(**found, groups=tuple(dict.fromkeys(groups)))
    for path in paths:
        _require_columns(path, first if path == paths[0] else open_source(path), columns)
    return columns


def units(paths: list[str], columns: Columns, unit_bytes: int | None = None) -> Iterator[Unit]:
    """Cuts all files into units of work, in order; one unit is in memory at a time.

    Args:
        paths: the files.
        columns: that each of them must have.
        unit_bytes: of CSV and JSON in a unit; None: 2 MB of CSV, 16 MB of JSON. A longer row makes a longer unit.

    Raises:
        UserError: a file is missing or cannot be read to its end as what its name says.
    """
    number = 0
    for path in paths:
        source = open_source(path)
        _require_columns(path, source, columns)
        for payload in source.pieces(unit_bytes):
            yield Unit(number, path, source.kind, payload, source.layout)
            number += 1


def read(paths: list[str], columns: Columns) -> Iterator[Rows]:
    """The rows of all files, a unit at a time, in order.

    Raises:
        UserError: see `units` and `units.read`.
    """
    return (units_of_work.read(unit, columns) for unit in units(paths, columns))


def open_source(path: str) -> Source:
    """A file, opened by what its name says it holds; CSV where that says nothing.

    Raises:
        UserError: it is missing, or is not what its name says.
    """
    kind = _kind(path)
    if kind == "json":
        return JsonSource(path)
    return TableSource(path) if kind == "table" else CsvSource(path)


def _kind(path: str) -> str | None:
    endings = suffixes(path)
    plain = endings[:-1] if endings[-1:] and endings[-1] in _COMPRESSED else endings
    return _ENDINGS.get(plain[-1]) if plain else None


def _require_columns(path: str, source: Source, columns: Columns) -> None:
    """Raises UserError when a wanted column is missing or stands there twice."""
    for role, name in columns.wanted().items():
        count = source.names.count(name)
        # In JSON only a retweet says what it repeats, and it need not be among the first tweets.
        if count == 0 and not (source.kind == "json" and role == "retweet_of"):
            what = "group_columns" if role.startswith("group.") else f"the {role}"
            raise UserError(
                f"{path}: no column '{name}' for {what}{did_you_mean(name, source.names)}; "
                f"it has {_listed(source.names)}"
            )
        if count > 1:
            raise UserError(f"{path}: {count} columns are called '{name}'; rename all but one")


def _listed(header: list[str]) -> str:
    names = [name if len(name) <= 40 else name[:37] + "..." for name in header[:20]]
    return ", ".join(" ".join(repr(name)[1:-1].split()) for name in names) + (", ..." if len(header) > 20 else "")

"""Tweets out of files: which files are meant, which of their columns, and the units of work that hold their rows.

Every row that is left out is counted with its reason; a file that cannot be read ends in one line.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from bert_tweets.common.errors import UserError, did_you_mean

from . import work_unit as units_of_work
from .byte_stream import file_name, filesystem, is_url, readable, require_file, suffixes
from .csv_source import CsvDialect, CsvSource
from .json_source import JsonSource
from .schema import NAMES, Columns, Rows
from .table_source import RowRange, TableSource
from .work_unit import Unit

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
# A longer name is a text.
_LONGEST_NAME = 60
_COMPRESSED = (".gz", ".zst", ".bz2")
# Given as the name of a column.
NO_COLUMN = "none"
# What file systems call that by which a change shows.
_TRACES = ("etag", "mtime", "modified", "updated", "created", "md5", "crc32c", "checksum", "digest", "generation")


class TweetSource(Protocol):
    """One file of some format."""

    kind: str
    names: list[str]
    """Its columns, as the file calls them."""
    readable: set[str]
    """Those that hold text, numbers or times, which alone are found by their names."""

    @property
    def layout(self) -> CsvDialect | None:
        """What parsing a piece takes besides its bytes."""
        ...

    def pieces(self, unit_bytes: int | None) -> Iterator[bytes | RowRange]:
        """Its rows in pieces, in order; `unit_bytes` is the size of a piece of text, None: what suits the format."""
        ...


def expand(names: list[str], warn: Callable[[str], None] = lambda _: None) -> list[str]:
    """The files that are meant: of patterns such as `tweets-*.csv` and of folders in order of name.

    Args:
        names: files, folders and patterns, local or as URLs of any protocol that fsspec knows; `**` in a pattern
            stands for folders inside of each other, to any depth.
        warn: is told of files in a folder that are left out.

    Raises:
        UserError: a pattern that no file matches, a folder without a file of tweets, or a URL that cannot be reached.
    """
    return [path for name in names for path in (_expand_url if is_url(name) else _expand_local)(name, warn)]


def _expand_local(name: str, warn: Callable[[str], None]) -> list[str]:
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{name}: there is no such user here") from None
    with readable(name):
        if any(mark in name for mark in "*?[") and not path.exists():
            return _matching(str(path)) or _no_match(name)
        if path.is_dir():
            return _tweets_among(name, [(str(file), file.parent == path) for file in _below(path)], warn)
    return [str(path)]


def _matching(pattern: str) -> list[str]:
    """Files by a pattern, in order of name."""
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return sorted(path for path in found if not Path(path).is_dir())


def _below(folder: Path) -> Iterator[Path]:
    """Files in a folder, to any depth, those hidden left out; a folder that links lead back to is looked at once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            yield from (Path(place, name) for name in names if not name.startswith("."))
        seen.add(real)


def _expand_url(name: str, warn: Callable[[str], None]) -> list[str]:
    if name.startswith("file://"):
        return _expand_local(unquote(name.removeprefix("file://")), warn)
    system, path = filesystem(name)
    is_web = name.startswith(("http://", "https://"))
    with readable(name):
        # What stands behind a `?` on the web is a question, not a pattern.
        if any(mark in name for mark in ("*" if is_web else "*?[")):
            found = {inside: info.get("type") for inside, info in system.glob(path, detail=True).items()}
            paths = [system.unstrip_protocol(inside) for inside, kind in found.items() if kind != "directory"]
            return sorted(paths) or _no_match(name)
        # Whether a page of the web is a folder is told by reading all of it; by custom its address ends in a slash.
        if urlsplit(name).path.endswith("/") if is_web else system.isdir(path):
            # A page of the web may lead anywhere: what lies below it is not looked at.
            inside = system.ls(path, detail=False) if is_web else system.find(path)
            here = [is_web or "/" not in file.removeprefix(path).strip("/") for file in inside]
            return _tweets_among(name, list(zip(map(system.unstrip_protocol, inside), here, strict=True)), warn)
    return [name]


def _tweets_among(folder: str, files: list[tuple[str, bool]], warn: Callable[[str], None]) -> list[str]:
    """The files of tweets that lie in a folder itself.

    Args:
        folder: as it was given.
        files: in it, to any depth, and whether each lies in the folder itself.
        warn: is told of the others.
    """
    found = sorted(path for path, here in files if here and _kind(path))
    others = sorted(path for path, here in files if here and not _kind(path))
    deeper = [path for path, here in files if not here and _kind(path)]
    endings = {path[-len("".join(_endings(path))) :] for path in (*found, *deeper)}
    patterns = [f"{glob.escape(folder.rstrip('/'))}/**/*{ending}" for ending in sorted(endings)]
    below = f"{len(deeper):,} in folders inside of it; input='{','.join(patterns)}' takes all" if deeper else ""
    if not found:
        nothing = f"{folder}: holds no file that ends in {', '.join(_ENDINGS)}, plain or compressed"
        raise UserError(f"{nothing}, but {below}" if below else nothing)
    if below:
        warn(f"{folder}: of its files of tweets {len(found):,} are read, and not the {below}")
    if others:
        names = ", ".join(file_name(path) for path in others[:3]) + (", ..." if len(others) > 3 else "")
        warn(f"{folder}: {len(others):,} of its files are no tweets by their names and are left out ({names})")
    return found


def _no_match(name: str) -> list[str]:
    raise UserError(f"{name}: no file is called like this")


def file_identity(paths: list[str]) -> dict[str, dict[str, Any]]:
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
        asked: role (a key of `rows.NAMES`) to the name that the user gave; empty: find it; `none`, where no column
            is called so: read no column.
        groups: names of further columns.

    Raises:
        UserError: a file or a column is not there, or the text column cannot be told.
    """
    first = open_tweets(paths[0])
    lowered = {name.lower(): name for name in reversed(first.names) if name in first.readable}
    found: dict[str, str] = {}
    for role, names in NAMES.items():
        named = asked.get(role) or next((lowered[name] for name in names if name in lowered), "")
        if named and (named != NO_COLUMN or NO_COLUMN in first.names):
            found[role] = named
    if "text" not in found:
        seen = _listed([name for name in first.names if name in first.readable])
        raise UserError(
            f"{paths[0]}: no column of text among {seen}; say which with text_column=NAME{_header_advice(first)}"
        )
    columns = Columns(**found, groups=tuple(dict.fromkeys(groups)))
    _require_columns(paths[0], first, columns)
    for path in paths[1:]:
        _require_columns(path, open_tweets(path), columns, first=False)
    return columns


def _header_advice(source: TweetSource) -> str:
    """What may be the matter with a header that names no text."""
    if source.kind != "csv":
        return ""
    if len(source.names) == 1 and "|" in source.names[0]:
        return "; columns are separated by commas, tabs or semicolons, not by |"
    is_data = any(len(name) > _LONGEST_NAME or re.fullmatch(r"[0-9][0-9.:/TZ +-]*", name) for name in source.names)
    return "; is its first line a tweet? It should name the columns" if is_data else ""


def units(paths: list[str], columns: Columns, unit_bytes: int | None = None) -> Iterator[Unit]:
    """Cuts all files into units of work, in order; one unit is in memory at a time.

    Args:
        paths: the files.
        columns: that each of them must have.
        unit_bytes: of CSV and JSON in a unit; None: 4 MB of CSV, 16 MB of JSON. A longer row makes a longer unit.

    Raises:
        UserError: a file is missing or cannot be read to its end as what its name says.
    """
    number = 0
    for path in paths:
        source = open_tweets(path)
        _require_columns(path, source, columns)
        for payload in source.pieces(unit_bytes):
            yield Unit(number, path, source.kind, payload, source.layout)
            number += 1


def commonest(paths: list[str], columns: Columns, role: str) -> list[str]:
    """The five commonest values of a column in the first unit of the input, for messages."""
    fields = next(read_tweets(paths, columns)).fields
    counts = Counter(" ".join((value or "").split())[:40] or "(none)" for value in fields[role].to_pylist())
    return [value for value, _ in counts.most_common(5)]


def reading_advice(paths: list[str]) -> str:
    """What to look at where rows of these files cannot be read."""
    if all(_kind(path) == "json" for path in paths):
        return "does each line hold one JSON object with a text, in UTF-8?"
    return "was the file saved as CSV in UTF-8, with quotes around texts that hold commas or line ends?"


def read_tweets(paths: list[str], columns: Columns) -> Iterator[Rows]:
    """The rows of all files, a unit at a time, in order.

    Raises:
        UserError: see `units` and `units.read`.
    """
    return (units_of_work.read_unit(unit, columns) for unit in units(paths, columns))


def open_tweets(path: str) -> TweetSource:
    """A file, opened by what its name says it holds; CSV where that says nothing.

    Raises:
        UserError: it is missing, or is not what its name says.
    """
    kind = _kind(path)
    if kind == "json":
        return JsonSource(path)
    return TableSource(path) if kind == "table" else CsvSource(path)


def _kind(path: str) -> str | None:
    return _ENDINGS.get(next(iter(_endings(path)), ""))


def _endings(path: str) -> list[str]:
    """The last ending of a name, with that of its compression behind: [.csv] or [.csv, .gz]."""
    endings = suffixes(path)
    return endings[-2:] if endings[-1:] and endings[-1] in _COMPRESSED else endings[-1:]


def _require_columns(path: str, source: TweetSource, columns: Columns, first: bool = True) -> None:
    """Raises UserError when a wanted column is missing or stands there twice; in the first file it is the user's."""
    for role, name in columns.wanted().items():
        count = source.names.count(name)
        # In JSON only a retweet says what it repeats, and it need not be among the first tweets.
        if count == 0 and not (source.kind == "json" and role == "retweet_of"):
            what = "group_columns" if role.startswith("group.") else f"the {role}"
            setting = "retweet_column" if role == "retweet_of" else f"{role}_column"
            way_out = f"; {setting}={NO_COLUMN} does without it, or prepare such files apart"
            raise UserError(
                f"{path}: no column '{name}' for {what}{did_you_mean(name, source.names)}; "
                f"it has {_listed(source.names)}{'' if first or role not in NAMES or role == 'text' else way_out}"
            )
        if count > 1:
            raise UserError(f"{path}: {count} columns are called '{name}'; rename all but one")


def _listed(header: list[str]) -> str:
    names = [name if len(name) <= 40 else name[:37] + "..." for name in header[:20]]
    return ", ".join(" ".join(repr(name)[1:-1].split()) for name in names) + (", ..." if len(header) > 20 else "")

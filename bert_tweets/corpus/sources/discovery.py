"""Find the files of the input and their columns, cut the files into units of work, and read the rows of a unit."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from bert_tweets.common.errors import UserError, did_you_mean

from .byte_stream import file_name, filesystem, is_url, readable, require_file, suffixes
from .csv_source import CsvDialect, CsvSource, parse_csv
from .json_source import JsonSource, parse_json
from .schema import NAMES, Columns, Rows
from .table_source import RowRange, TableSource, read_row_range

_ENDINGS = dict.fromkeys((".csv", ".tsv"), "csv") | dict.fromkeys((".json", ".jsonl", ".ndjson"), "json")
_ENDINGS |= dict.fromkeys((".parquet", ".arrow", ".feather"), "table")
# A longer column name is probably a text.
_LONGEST_NAME = 60
_COMPRESSED = (".gz", ".zst", ".bz2")
# Column name that means: read no column.
NO_COLUMN = "none"
# Names of file attributes that show a change.
_TRACES = ("etag", "mtime", "modified", "updated", "created", "md5", "crc32c", "checksum", "digest", "generation")


@dataclass(frozen=True)
class Unit:
    """A part of the input, cut between two rows, that can be read alone, repeatedly, in any process.

    Attributes:
        number: number of the unit, from 0 over the whole input.
        file: file that it comes from.
        kind: csv, json, parquet or arrow.
        payload: whole CSV records or JSON lines, decompressed; for a table, the range of rows.
        layout: CSV dialect; None for other formats.
    """

    number: int
    file: str
    kind: str
    payload: bytes | RowRange
    layout: CsvDialect | None = None


class FileIdentity(TypedDict):
    """Identity of a file, by which a change is detected.

    Keys:
        bytes: size; None if the server of a URL does not report it.
        mtime_ns: time of the last change of a local file.
        traces: times, tags and checksums of a URL, by the names that its protocol gives them.
    """

    bytes: int | None
    mtime_ns: NotRequired[int]
    traces: NotRequired[dict[str, str]]


class TweetSource(Protocol):
    """A file of some format."""

    kind: str
    names: list[str]
    """Names of the columns in the file."""
    readable: set[str]
    """Columns of text, numbers or times; only these are detected by name."""

    @property
    def layout(self) -> CsvDialect | None:
        """CSV dialect; None for other formats."""

    def pieces(self, unit_bytes: int | None) -> Iterator[bytes | RowRange]:
        """Rows in pieces, in order; `unit_bytes` is the size of a piece of text, None: the format's default."""
        ...


def expand(names: list[str], warn: Callable[[str], None] = lambda _: None) -> list[str]:
    """Expand patterns such as `tweets-*.csv` and folders to files, sorted by name.

    Args:
        names: files, folders and patterns, local or as URLs of any protocol that fsspec knows; `**` in a pattern
            stands for nested folders of any depth.
        warn: is called with a line for files in a folder that are left out.

    Raises:
        UserError: a pattern matches no file, a folder has no file of tweets, or a URL cannot be reached.
    """
    return [path for name in names for path in (_expand_url if is_url(name) else _expand_local)(name, warn)]


def _expand_local(name: str, warn: Callable[[str], None]) -> list[str]:
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{name}: no such user on this machine") from None
    with readable(name):
        if any(mark in name for mark in "*?[") and not path.exists():
            found = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob rejects absolute patterns
            return _matches(name, [file for file in found if not Path(file).is_dir()])
        if path.is_dir():
            return _tweets_among(name, [(str(file), file.parent == path) for file in _below(path)], warn)
    return [str(path)]


def _below(folder: Path) -> Iterator[Path]:
    """Files in a folder, to any depth, except hidden ones; a folder that is linked to several times is listed once."""
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
        # In a web address, `?` starts a query, not a pattern.
        if any(mark in name for mark in ("*" if is_web else "*?[")):
            found = {inside: info.get("type") for inside, info in system.glob(path, detail=True).items()}
            files = [file for file, kind in found.items() if kind != "directory"]
            return _matches(name, list(map(system.unstrip_protocol, files)))
        # fsspec would read a whole web page to see whether it is a folder; by convention its address ends in a slash.
        if urlsplit(name).path.endswith("/") if is_web else system.isdir(path):
            # A web page may link anywhere: what is below it is not listed.
            inside = system.ls(path, detail=False) if is_web else system.find(path)
            here = [is_web or "/" not in file.removeprefix(path).strip("/") for file in inside]
            return _tweets_among(name, list(zip(map(system.unstrip_protocol, inside), here, strict=True)), warn)
    return [name]


def _tweets_among(folder: str, files: list[tuple[str, bool]], warn: Callable[[str], None]) -> list[str]:
    """The files of tweets that are directly in a folder.

    `files` are all in it, to any depth, and whether each is directly in the folder; `warn` gets a line about others.
    """
    found = sorted(path for path, here in files if here and _kind(path))
    others = sorted(path for path, here in files if here and not _kind(path))
    deeper = [path for path, here in files if not here and _kind(path)]
    endings = {path[-len("".join(_endings(path))) :] for path in (*found, *deeper)}
    patterns = [f"{glob.escape(folder.rstrip('/'))}/**/*{ending}" for ending in sorted(endings)]
    below = f"{len(deeper):,} in its subfolders; input='{','.join(patterns)}' reads all" if deeper else ""
    if not found:
        nothing = f"{folder}: contains no file that ends in {', '.join(_ENDINGS)}, plain or compressed"
        raise UserError(f"{nothing}, but {below}" if below else nothing)
    if below:
        warn(f"{folder}: files of tweets read: {len(found):,}; not read: {below}")
    if others:
        names = ", ".join(file_name(path) for path in others[:3]) + (", ..." if len(others) > 3 else "")
        warn(f"{folder}: other files, which are left out: {len(others):,} ({names})")
    return found


def _matches(pattern: str, found: list[str]) -> list[str]:
    if not found:
        raise UserError(f"{pattern}: no file matches this pattern")
    return sorted(found)


def file_identity(path: str) -> FileIdentity:
    """Identity of a file; UserError if the file does not exist."""
    if is_url(path):
        return _url_identity(path)
    require_file(path)
    with readable(path):
        status = Path(path).stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _url_identity(url: str) -> FileIdentity:
    system, path = filesystem(url)
    with readable(url):
        info = system.info(path)
    if info.get("type") == "directory":
        raise UserError(f"{url}: is a folder; name the files in it")
    traces = {key: str(info[key]) for key in sorted(info) if any(mark in key.lower() for mark in _TRACES)}
    return {"bytes": info.get("size"), "traces": traces}


def find_columns(paths: list[str], names_by_role: dict[str, str], groups: Sequence[str] = ()) -> Columns:
    """Determine which columns to read, from the first file; every file must have them.

    Args:
        paths: input files.
        names_by_role: role (a key of `schema.NAMES`) to the name that the user gave; empty: detect it; `none`, unless a
            column has this name: read no column.
        groups: names of additional columns.

    Raises:
        UserError: a file or a column does not exist, or no text column is found.
    """
    first = open_tweets(paths[0])
    lowered = {name.lower(): name for name in reversed(first.names) if name in first.readable}
    found: dict[str, str] = {}
    for role, names in NAMES.items():
        named = names_by_role.get(role) or next((lowered[name] for name in names if name in lowered), "")
        if named and (named != NO_COLUMN or NO_COLUMN in first.names):
            found[role] = named
    if "text" not in found:
        seen = _listed([name for name in first.names if name in first.readable])
        raise UserError(
            f"{paths[0]}: no text column among {seen}; name it with text_column=NAME{_header_advice(first)}"
        )
    columns = Columns(**found, groups=tuple(dict.fromkeys(groups)))
    _require_columns(paths[0], first, columns)
    for path in paths[1:]:
        _require_columns(path, open_tweets(path), columns, first=False)
    return columns


def _header_advice(source: TweetSource) -> str:
    """A possible reason why no text column is found."""
    if source.kind != "csv":
        return ""
    if len(source.names) == 1 and "|" in source.names[0]:
        return "; columns must be separated by commas, tabs or semicolons, not by |"
    is_data = any(len(name) > _LONGEST_NAME or re.fullmatch(r"[0-9][0-9.:/TZ +-]*", name) for name in source.names)
    return "; is its first line a tweet? It should name the columns" if is_data else ""


def units(paths: list[str], columns: Columns, unit_bytes: int | None = None) -> Iterator[Unit]:
    """Cut all files into units of work, in order; one unit is in memory at a time.

    Args:
        paths: input files.
        columns: columns that each of them must have.
        unit_bytes: size of a unit of CSV or JSON; None: 4 MB of CSV, 16 MB of JSON. A longer row makes a longer unit.

    Raises:
        UserError: a file is missing, or cannot be read as what its name says.
    """
    number = 0
    for path in paths:
        source = open_tweets(path)
        _require_columns(path, source, columns)
        for payload in source.pieces(unit_bytes):
            yield Unit(number, path, source.kind, payload, source.layout)
            number += 1


def read_unit(unit: Unit, columns: Columns) -> Rows:
    """Read the rows of a unit; UserError if it cannot be read as its format."""
    if isinstance(unit.payload, RowRange):
        return read_row_range(unit.file, unit.kind, unit.payload, columns)
    if unit.layout is None:
        return parse_json(unit.payload, columns, unit.file)
    try:
        return parse_csv(unit.payload, unit.layout, columns)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{unit.file}: cannot be read as CSV ({reason}); save the file as CSV in UTF-8") from None


def commonest(paths: list[str], columns: Columns, role: str) -> list[str]:
    """The five most frequent values of a column in the first unit of the input, for messages."""
    fields = next(read_tweets(paths, columns)).fields
    counts = Counter(" ".join((value or "").split())[:40] or "(none)" for value in fields[role].to_pylist())
    return [value for value, _ in counts.most_common(5)]


def reading_advice(paths: list[str]) -> str:
    """Advice on what to check if rows of these files cannot be read."""
    if all(_kind(path) == "json" for path in paths):
        return "does each line contain one JSON object with a text, in UTF-8?"
    return "was the file saved as CSV in UTF-8, with quotes around texts that contain commas or line ends?"


def read_tweets(paths: list[str], columns: Columns) -> Iterator[Rows]:
    """Read the rows of all files, one unit at a time, in order; see `units` and `read_unit` for errors."""
    return (read_unit(unit, columns) for unit in units(paths, columns))


def open_tweets(path: str) -> TweetSource:
    """Open a file in the format of its name, CSV if the name has no known ending; UserError if it is not readable."""
    kind = _kind(path)
    if kind == "json":
        return JsonSource(path)
    return TableSource(path) if kind == "table" else CsvSource(path)


def _kind(path: str) -> str | None:
    return _ENDINGS.get(next(iter(_endings(path)), ""))


def _endings(path: str) -> list[str]:
    """The last ending of a name, followed by that of its compression: [.csv] or [.csv, .gz]."""
    endings = suffixes(path)
    return endings[-2:] if endings[-1:] and endings[-1] in _COMPRESSED else endings[-1:]


def _require_columns(path: str, source: TweetSource, columns: Columns, first: bool = True) -> None:
    """Raise UserError if a wanted column is missing or occurs twice; in the first file it was named by the user."""
    for role, name in columns.wanted().items():
        count = source.names.count(name)
        # In JSON, only retweets have this column, and the first tweets may contain none.
        if count == 0 and not (source.kind == "json" and role == "retweet_of"):
            what = "group_columns" if role.startswith("group.") else f"the {role}"
            setting = "retweet_column" if role == "retweet_of" else f"{role}_column"
            way_out = f"; set {setting}={NO_COLUMN}, or prepare such files separately"
            raise UserError(
                f"{path}: no column '{name}' for {what}{did_you_mean(name, source.names)}; "
                f"it has {_listed(source.names)}{'' if first or role not in NAMES or role == 'text' else way_out}"
            )
        if count > 1:
            raise UserError(f"{path}: {count} columns are called '{name}'; rename all but one")


def _listed(header: list[str]) -> str:
    names = [name if len(name) <= 40 else name[:37] + "..." for name in header[:20]]
    return ", ".join(" ".join(repr(name)[1:-1].split()) for name in names) + (", ..." if len(header) > 20 else "")

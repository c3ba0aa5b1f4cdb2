"""Shared by all benchmarks: command line, environment, rows of results, tables and plots."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

ROOT = Path(__file__).parent.parent
Row = dict[str, Any]


def exit_with_help(arguments: list[str], text: str | None, without_arguments: bool = True) -> None:
    """Print a benchmark's help and exit if --help is given.

    Args:
        arguments: command-line arguments.
        text: the benchmark's docstring.
        without_arguments: also print it if there are no arguments.
    """
    if {"-h", "--help"} & set(arguments) or (without_arguments and not arguments):
        print((text or "").strip())
        raise SystemExit(0)


def parse_settings(arguments: list[str], **defaults: Any) -> dict[str, Any]:
    """Parse `key=value` arguments; each value is converted to the type of its default.

    Raises:
        SystemExit: an argument is not `key=value`, or its key is unknown.
    """
    malformed = [argument for argument in arguments if "=" not in argument]
    if malformed:
        raise SystemExit(f"error: expected key=value, got {', '.join(malformed)}")
    values = dict(argument.split("=", 1) for argument in arguments)
    unknown = values.keys() - defaults.keys()
    if unknown:
        raise SystemExit(f"error: unknown: {', '.join(sorted(unknown))}; known: {', '.join(defaults)}")
    return {name: type(default)(values.get(name, default)) for name, default in defaults.items()}


def read_settings(arguments: list[str], text: str | None, paths: Sequence[str] = (), **defaults: Any) -> dict[str, Any]:
    """Parse `key=value` arguments; print the help and exit if there are none or --help is given.

    Args:
        arguments: command-line arguments.
        text: the benchmark's docstring.
        paths: names of settings that must name existing files or folders.
        defaults: default of each setting.
    """
    exit_with_help(arguments, text)
    settings = parse_settings(arguments, **defaults)
    for name in paths:
        if not settings[name] or not Path(settings[name]).exists():
            raise SystemExit(f"error: {name}={settings[name]}: no such path; give {name}=PATH (see --help)")
    return settings


def provenance(module: str, arguments: list[str]) -> Row:
    """The columns `device`, `versions`, `commit` and `command` of a row of results."""
    return {**environment(), "command": command_line(module, arguments)}


def environment() -> Row:
    """The columns `device`, `versions` and `commit` of a row of results."""
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "device": f"CPU, {os.cpu_count()} cores, {models[0] if models else platform.processor()}",
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": commit(),
    }


def commit() -> str:
    """The checkout's commit, with a + after it if there are local changes.

    Set the environment variable COMMIT if the checkout is a copy without git.
    """
    changed = "+" if _git("status", "--porcelain") else ""
    return os.environ.get("COMMIT") or _git("rev-parse", "--short", "HEAD") + changed


def command_line(module: str, arguments: list[str]) -> str:
    """The command that reproduces a run, with paths shortened to their last part."""
    pairs = (argument.split("=", 1) for argument in arguments)
    shortened = (f"{key}={Path(value).name if '/' in value else value}" for key, value in pairs)
    return " ".join((f"python -m benchmarks.{module}", *shortened))


def folder_bytes(folder: Path) -> int:
    """Total size in bytes of the files below a folder; files may come and go meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size  # noqa: PTH116, PTH118 - many, several times a second
    return total


def read_texts(path: str) -> pa.Array:
    """The texts of a file of tweets; string [rows]."""
    import pyarrow as pa

    from bert_tweets.corpus.sources import discovery

    paths = discovery.expand([path])
    columns = discovery.find_columns(paths, {})
    return pa.concat_arrays([rows.fields["text"] for rows in discovery.read_tweets(paths, columns)])


def write_rows(path: str | Path, rows: list[Row]) -> None:
    """Write rows of results as JSON."""
    target = ROOT / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_rows(path: str | Path) -> list[Row]:
    """Read the rows that `write_rows` wrote; an empty list if the file does not exist."""
    source = ROOT / path
    return json.loads(source.read_text(encoding="utf-8")) if source.is_file() else []


def append_jsonl(path: Path, row: Row) -> None:
    """Append a row to a JSON Lines file, so that an interrupted run keeps it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[Row]:
    """Read the rows that `append_jsonl` wrote; an empty list if the file does not exist."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def rows_of_kind(rows: list[Row], kind: str) -> list[Row]:
    """The rows whose column `kind` has this value."""
    return [row for row in rows if row["kind"] == kind]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def load_pyplot() -> Any:
    """Matplotlib's pyplot with a backend that needs no display; None, with a message, if it is not installed."""
    try:
        import matplotlib  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        print("no plot was made: matplotlib is not installed (extra 'bench')", file=sys.stderr)
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _versions() -> dict[str, str]:
    versions = {}
    for name in ("torch", "triton", "numpy", "pyarrow", "omegaconf", "tokenizers", "transformers", "datasets"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()
    except OSError:  # git is not installed
        return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

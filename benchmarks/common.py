"""What all benchmarks share: words of the command line, the machine, rows of results, tables."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def usage(words: list[str], text: str | None) -> None:
    """Prints what a benchmark says of itself, and leaves, where that is asked for or nothing is given."""
    if not words or {"-h", "--help"} & set(words):
        print((text or "").strip())
        raise SystemExit(0)


def words_of(words: list[str], **defaults: Any) -> dict[str, Any]:
    """`key=value` words over their defaults, each of its default's type."""
    given = dict(word.split("=", 1) for word in words)
    unknown = given.keys() - defaults.keys()
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(defaults)}")
    return {name: type(default)(given.get(name, default)) for name, default in defaults.items()}


def machine() -> dict[str, Any]:
    """The device, versions and commit that a row of results names."""
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "device": f"CPU, {os.cpu_count()} cores, {models[0] if models else platform.processor()}",
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": commit(),
    }


def commit() -> str:
    """The checkout's commit, with a + after local changes; COMMIT names it where the checkout is a copy without git."""
    changed = "+" if _git("status", "--porcelain") else ""
    return os.environ.get("COMMIT") or _git("rev-parse", "--short", "HEAD") + changed


def command_of(module: str, words: list[str]) -> str:
    """The command as others would give it: files and folders by their names alone."""
    shown = (f"{key}={Path(value).name if '/' in value else value}" for key, value in (w.split("=", 1) for w in words))
    return " ".join((f"python -m benchmarks.{module}", *shown))


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder, whatever comes and goes meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size  # noqa: PTH116, PTH118 - many, several times a second
    return total


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """What `write_rows` has written; nothing where it has not."""
    source = ROOT / path
    return json.loads(source.read_text(encoding="utf-8")) if source.is_file() else []


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a JSON Lines file, so that a run that is cut short has left it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def appended_rows(path: Path) -> list[dict[str, Any]]:
    """What `append_row` has written; nothing where it has not."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def write_rows(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Rows of results as JSON."""
    target = ROOT / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows))


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "triton", "numpy", "pyarrow", "omegaconf", "tokenizers", "transformers", "datasets"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(*words: str) -> str:
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()
    except OSError:  # no git here
        return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

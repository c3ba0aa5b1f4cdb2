"""The house: a room imports from lower floors only, files stay small, and nothing that is read is executed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bert_tweets"
FILES = sorted(PACKAGE.rglob("*.py"))
# From the ground up; rooms of one floor do not import each other.
FLOORS = [
    {
        "arrays",
        "config",
        "errors",
        "files",
        "hashing",
        "hub",
        "launchers",
        "machine",
        "options",
        "commands",
        "terminal",
    },
    {"text"},
    {"data"},
    {"model"},
    {"engine"},
    {"training", "words"},
]


def floor(name: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if name in rooms), len(FLOORS))


def imports(file: Path) -> Iterator[str]:
    """The top-level rooms of this package that a file imports."""
    inside = file.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = inside[: len(inside) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            names = [name for name in names if name != "__version__"]
            for name in names:
                yield (*base, *name.split("."))[0]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bert_tweets."):
            yield (node.module or "").split(".")[1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_from_lower_floors_only(file: Path) -> None:
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for other in imports(file):
        allowed = other == room or floor(other) < floor(room) or floor(room) in (0, len(FLOORS))
        assert allowed and (floor(room) or not floor(other)), f"{file.name} imports {other}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_stay_small_and_execute_nothing_that_they_read(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    assert not re.search(
        r"torch\.load\(|pickle\.load|trust_remote_code=True|(?<!\.)\beval\(|(?<!\.)\bexec\(|sys\.path\.", text
    )


def test_data_and_model_know_of_no_process_group() -> None:
    for room in ("text", "data", "model", "training", "words"):
        for file in (PACKAGE / room).rglob("*.py"):
            assert "torch.distributed" not in file.read_text(encoding="utf-8").replace("torch.distributed.run", "")

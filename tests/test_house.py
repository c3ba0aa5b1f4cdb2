"""The house: a room imports from lower floors only, files stay small, and nothing that is read is executed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

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


def test_a_room_imports_from_lower_floors_only() -> None:
    wrong = []
    for file in FILES:
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for other in imports(file):
            allowed = other == room or floor(other) < floor(room) or floor(room) in (0, len(FLOORS))
            if not allowed or (not floor(room) and floor(other)):
                wrong.append(f"{file.relative_to(PACKAGE)} imports {other}")
    assert FILES and not wrong


def test_files_stay_small() -> None:
    lines = {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8").count("\n") for file in FILES}
    assert FILES and not {name: count for name, count in lines.items() if count > 400}


def test_files_execute_nothing_that_they_read() -> None:
    # tests/test_security.py reads the syntax tree as well; these are the plain words.
    runs = re.compile(r"torch\.load\(|pickle\.load|trust_remote_code=True|(?<!\.)\beval\(|(?<!\.)\bexec\(|sys\.path\.")
    found = {str(file.relative_to(PACKAGE)): runs.findall(file.read_text(encoding="utf-8")) for file in FILES}
    assert FILES and not {name: calls for name, calls in found.items() if calls}


def test_data_and_model_know_of_no_process_group() -> None:
    for room in ("text", "data", "model", "training", "words"):
        for file in (PACKAGE / room).rglob("*.py"):
            assert "torch.distributed" not in file.read_text(encoding="utf-8").replace("torch.distributed.run", "")

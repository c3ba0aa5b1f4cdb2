"""The house: rooms import from lower floors only and without cycles, files stay small, nothing read is executed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "bert_tweets"
FILES = sorted(PACKAGE.rglob("*.py"))
# From the ground up, as in docs/architecture.md. A room's parts stand in their own order; on top are the commands.
FLOORS = (
    *("common", "config", "corpus", "data", "model", "distributed", "engine", "diagnosis", "training", "words", "page"),
)
PARTS = {
    "corpus": ("text", "sources", "dedup", "shards", "pipeline"),
    "model": ("attention", ""),
    "words": ("statistics", "occurrences", "store", "embedding", "analysis", "meaning_test", "vectors"),
}
COMMANDS = {
    *("prepare", "train", "evaluate", "classify", "embed", "analyze", "report", "run", "export", "verify", "inspect"),
    *("doctor", "meaning_test", "publish", "demo", "cli", "api", "__init__"),
}


def module_of(file: Path) -> tuple[str, ...]:
    """The dotted name of a file below the package; a package's own name for its `__init__`."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(file) for file in FILES}


def imports(file: Path) -> Iterator[tuple[str, ...]]:
    """The modules of this package that a file imports, wherever in the file."""
    package = file.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        named = tuple((node.module or "").split(".")) if node.module else ()
        if node.level:
            base = (*package[: len(package) - (node.level - 1)], *named)
        elif named[0] == "bert_tweets":
            base = named[1:]
        else:
            continue
        for alias in node.names:
            yield (*base, alias.name) if (*base, alias.name) in MODULES else base


def name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_the_root_holds_commands_and_each_folder_is_a_room() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} <= COMMANDS
    assert {file.parent.name for file in PACKAGE.glob("*/__init__.py")} == set(FLOORS)
    for room, parts in PARTS.items():
        assert {file.parent.name for file in (PACKAGE / room).glob("*/__init__.py")} == set(parts) - {""}


def test_a_room_imports_from_lower_floors_only() -> None:
    wrong = []
    for file in FILES:
        here = module_of(file)
        for other in imports(file):
            if len(here) > 1 and other and other[0] != here[0]:
                allowed = other[0] in FLOORS and FLOORS.index(other[0]) < FLOORS.index(here[0])
                wrong += [] if allowed else [f"{name(file)} imports {'.'.join(other)}"]
    assert FILES and not wrong


def test_a_part_of_a_room_imports_from_lower_parts_only() -> None:
    wrong = []
    for file in FILES:
        here = module_of(file)
        for other in imports(file):
            if here and here[0] in PARTS and other and other[0] == here[0]:
                order = PARTS[here[0]]
                mine, theirs = (part[1] if len(part) > 1 and part[1] in order else "" for part in (here, other))
                if mine != theirs and theirs and (not mine or order.index(theirs) >= order.index(mine)):
                    allowed = not mine and "" in order
                    wrong += [] if allowed else [f"{name(file)} imports {'.'.join(other)}"]
    assert FILES and not wrong


def test_no_import_leads_in_a_circle() -> None:
    graph = {module_of(file): set(imports(file)) - {module_of(file), ()} for file in FILES if module_of(file)}
    list(TopologicalSorter(graph).static_order())


def test_imports_are_relative_inside_a_folder_and_absolute_elsewhere() -> None:
    wrong = []
    for file in FILES:
        package = "bert_tweets." + ".".join(file.relative_to(PACKAGE).parts[:-1])
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                outside = node.level > 1
                inside = (
                    not node.level and package != "bert_tweets." and (node.module or "").rpartition(".")[0] == package
                )
                wrong += [f"{name(file)}:{node.lineno}"] if outside or inside else []
    assert FILES and not wrong


def test_files_stay_small() -> None:
    lines = {name(file): file.read_text(encoding="utf-8").count("\n") for file in FILES}
    assert FILES and not {name: count for name, count in lines.items() if count > 400}


def test_files_execute_nothing_that_they_read() -> None:
    # tests/test_security.py reads the syntax tree as well; these are the plain words.
    runs = re.compile(r"torch\.load\(|pickle\.load|trust_remote_code=True|(?<!\.)\beval\(|(?<!\.)\bexec\(|sys\.path\.")
    found = {name(file): runs.findall(file.read_text(encoding="utf-8")) for file in FILES}
    assert FILES and not {name: calls for name, calls in found.items() if calls}


def test_only_ranks_and_engines_know_torch_distributed() -> None:
    for room in ("corpus", "data", "model", "training", "words", "page"):
        for file in (PACKAGE / room).rglob("*.py"):
            assert "torch.distributed" not in file.read_text(encoding="utf-8").replace("torch.distributed.run", "")


def test_no_public_name_has_two_homes() -> None:
    homes: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and len(module_of(file)) > 1 and node.name[0] != "_":
                homes.setdefault(node.name, []).append(name(file))
    assert homes and not {public: files for public, files in homes.items() if len(files) > 1}


def test_rooms_print_through_the_terminal_only() -> None:
    rooms = [file for file in FILES if len(module_of(file)) > 1 and name(file) != "common/terminal.py"]
    assert rooms and not [name(file) for file in rooms if re.search(r"(?<![.\w])print\(", file.read_text("utf-8"))]


def test_no_untyped_record_crosses_a_border() -> None:
    used = {
        (*base, alias.name)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bert_tweets.")
        for base in [(node.module or "").split(".")[1:]]
        for alias in node.names
    } - {("common", "json_records", "add_checksum"), ("common", "json_records", "verify_checksum")}
    untyped = []
    for file in FILES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if (*module_of(file), getattr(node, "name", "")) in used:
                for part in node.body if isinstance(node, ast.ClassDef) else [node]:
                    texts = [ast.unparse(part.annotation)] if isinstance(part, ast.AnnAssign) else []
                    if isinstance(part, ast.FunctionDef) and part.name[0] != "_":
                        texts = [ast.unparse(each) for each in (part.args, part.returns) if each]
                    untyped += [f"{name(file)}: {text}" for text in texts if "dict[str, Any]" in text]
    assert used and not untyped

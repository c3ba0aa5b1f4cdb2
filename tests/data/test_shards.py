"""Shards: opened without a copy, gathered exactly, and every damage named."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bert_tweets.data.manifest import Manifest
from bert_tweets.data.records import sealed
from bert_tweets.data.shards import open_split, schema, verify
from bert_tweets.errors import UserError

DOCUMENT = (Path(__file__).parents[2] / "docs" / "shards.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def test_gathering_gives_the_stored_tokens_in_the_order_asked_for(shards: Path) -> None:
    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "train")
    assert len(split.shards) > 1
    indices = np.random.default_rng(0).permutation(len(split))[:150]
    tweets = split.gather(indices)
    ends = np.cumsum(tweets.lengths)
    for index, length, end in zip(indices, tweets.lengths, ends, strict=True):
        shard = int(np.searchsorted([split.first_row(i) for i in range(len(split.shards))], index, "right")) - 1
        row = int(index) - split.first_row(shard)
        assert tweets.input_ids[end - length : end].tolist() == split.batch(shard)["input_ids"][row].as_py()
        assert tweets.word_starts[end - length : end].tolist() == split.batch(shard)["word_starts"][row].as_py()


def test_opening_takes_no_memory(shards: Path) -> None:
    manifest = Manifest.read(shards)
    before = pa.total_allocated_bytes()
    split = open_split(shards, manifest, "train")
    split.gather(np.arange(len(split)))
    assert pa.total_allocated_bytes() - before < 1024


def test_a_flipped_bit_is_found_wherever_it_is(copy: Path) -> None:
    manifest = Manifest.read(copy)
    entries = manifest.splits["train"]
    verify(copy, entries)
    path = copy / entries[1].file
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 25):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place % 8)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=entries[1].file):
            verify(copy, entries)


@pytest.mark.parametrize("damage", ["missing", "truncated", "not arrow"])
def test_a_shard_that_is_not_whole_is_named(copy: Path, damage: str) -> None:
    manifest = Manifest.read(copy)
    entry = manifest.splits["train"][0]
    path = copy / entry.file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100] if damage == "truncated" else b"x" * entry.bytes)
    with pytest.raises(UserError, match=entry.file):
        verify(copy, [entry])
    with pytest.raises(UserError, match=f"{entry.file}: .*; remove {copy}, then prepare again"):
        open_split(copy, manifest, "train").gather(np.array([0]))


def test_the_documented_columns_are_those_of_a_shard() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (yes|no) \|", DOCUMENT, re.MULTILINE)
    found = [(field.name, str(field.type), "yes" if field.nullable else "no") for field in schema(30_000)]
    assert [(name, kind.strip(), null) for name, kind, null in rows] == found


def test_the_documented_way_to_read_shards_reads_them(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    names: dict[str, Any] = {}
    monkeypatch.chdir(shards.parent)
    exec(snippet, names)
    split = open_split(shards, Manifest.read(shards), "train")
    assert names["tweets"].column("text").to_pylist() == [
        text for shard in range(len(split.shards)) for text in split.batch(shard)["text"].to_pylist()
    ]


@pytest.mark.parametrize("file", ["funnel.json", "prepare.json"])
def test_every_field_is_documented(shards: Path, file: str) -> None:
    section = DOCUMENT.split(f"## `{file}`")[1].split("\n## ")[0]
    assert set(json.loads((shards / file).read_text())) == set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))


def record_of(folder: Path) -> dict[str, Any]:
    """The manifest's record as its file has it, without its checksum."""
    record: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    del record["checksum"]
    return record


def test_a_manifest_cannot_point_out_of_its_folder(copy: Path) -> None:
    (copy / "evil").mkdir()
    for name in ("../other.arrow", "/etc/passwd"):
        record = record_of(copy)
        record["splits"]["train"][0]["file"] = name
        (copy / "evil" / "manifest.json").write_text(json.dumps(sealed(record)))
        manifest = Manifest.read(copy / "evil")
        with pytest.raises(UserError, match="outside"):
            verify(copy, manifest.splits["train"])


def assert_damaged(folder: Path, what: str) -> None:
    with pytest.raises(UserError, match=f"is damaged.*{what}.*; remove {folder}, then prepare again") as caught:
        Manifest.read(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest)] + ["fingerprint", "format_version"])
def test_a_manifest_whose_field_was_changed_is_refused(copy: Path, name: str) -> None:
    path, record = copy / "manifest.json", json.loads((copy / "manifest.json").read_text())
    whole = record[name]
    changed = whole[:-1] if isinstance(whole, list | str) else {} if isinstance(whole, dict) else whole + 1
    if changed == whole:
        changed = [*whole, "more"]
    path.write_text(json.dumps({**record, name: changed}))
    assert_damaged(copy, "does not fit its checksum")
    for other in (None, "text", 1.5, True, [[]]):
        path.write_text(json.dumps(sealed({**record_of(copy), name: other})))
        if name not in ("fingerprint", "format_version"):
            assert_damaged(copy, "")
    path.write_text(json.dumps({key: value for key, value in record.items() if key != name}))
    assert_damaged(copy, "checksum")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '"text"', "[" * 10_000, "\x00"])
def test_what_is_no_manifest_is_refused(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    assert_damaged(copy, "")


def test_wrong_types_deep_inside_are_refused(copy: Path) -> None:
    for keys, value in (
        (("splits", "train", 0, "rows"), "7"),
        (("splits", "train", 0, "more"), 7),
        (("splits", "train"), {}),
        (("recipe", "added"), [7]),
        (("recipe", "clean"), 7),
        (("lengths", "train", 0), 1.5),
        (("special_ids", 0), "0"),
    ):
        record = record_of(copy)
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (copy / "evil").mkdir(exist_ok=True)
        (copy / "evil" / "manifest.json").write_text(json.dumps(sealed(record)))
        assert_damaged(copy / "evil", "")


def test_a_folder_without_a_manifest_is_no_folder_of_shards(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no manifest\.json"):
        Manifest.read(copy)

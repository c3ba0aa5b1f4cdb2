"""Shards: opened without a copy, gathered exactly, and every damage named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bert_tweets import inspect
from bert_tweets import verify as verify_stage
from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split, shard_schema, verify

DOCUMENT = (Path(__file__).parents[3] / "docs" / "shards.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def test_gathering_returns_the_stored_tokens_in_the_requested_order(shards: Path) -> None:
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


def test_no_bit_of_a_header_ends_in_a_traceback_or_a_crash(copy: Path) -> None:
    manifest = Manifest.read(copy)
    entry = manifest.splits["train"][0]
    path, whole = copy / entry.file, (copy / entry.file).read_bytes()
    columns = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(whole))).get_batch(0).columns
    begins = whole.index(columns[0].buffers()[1].to_pybytes())
    ends = whole.index(columns[-1].buffers()[2].to_pybytes()) + columns[-1].buffers()[2].size
    refused = 0
    for bit in range(0, 8 * (begins + len(whole) - ends), 11):
        place = bit // 8 if bit // 8 < begins else ends + bit // 8 - begins
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            open_split(copy, manifest, "train").gather(np.arange(entry.rows))
        except UserError as error:
            assert entry.file in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 500


def test_an_invalid_text_is_reported_before_it_is_read(copy: Path) -> None:
    manifest = Manifest.read(copy)
    entry = manifest.splits["train"][0]
    path, whole = copy / entry.file, (copy / entry.file).read_bytes()
    texts = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(whole))).get_batch(0).column("text")
    offsets, values = (whole.index(buffer.to_pybytes()) for buffer in texts.buffers()[1:])
    assert open_split(copy, manifest, "train").texts(np.array([7, 2])) == [texts[7].as_py(), texts[2].as_py()]
    for place, bit in ((values + texts.buffers()[1][28], 7), (offsets + 4 * 7 + 3, 6), (offsets + 4 * 7 + 3, 7)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        split = open_split(copy, manifest, "train")
        with pytest.raises(UserError, match=f"{entry.file}: damaged shard: the text of row [0-9]+ is not valid"):
            split.texts(np.arange(len(split)))


@pytest.mark.parametrize("stage", [verify_stage, inspect])
def test_a_permission_error_is_not_reported_as_damage(copy: Path, monkeypatch: pytest.MonkeyPatch, stage: Any) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "refused")

    for place, name in ((pa, "memory_map"), (Path, "is_file"), (Path, "is_dir")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse)
            with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); check its perm") as caught:
                stage.stage([str(copy)])
        assert "remove" not in str(caught.value)


@pytest.mark.parametrize("file", ["manifest.json", "funnel.json", "tokenizer/tokenizer.json"])
def test_a_file_that_may_not_be_read_is_named_and_is_no_damage(
    copy: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == copy / file:
            raise PermissionError(13, "refused", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(UserError, match=f"{file}: cannot be read \\(Permission denied\\)") as caught:
        inspect.stage([str(copy)])
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "truncated", "not arrow"])
def test_an_incomplete_shard_is_reported(copy: Path, damage: str) -> None:
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
    found = [(field.name, str(field.type), "yes" if field.nullable else "no") for field in shard_schema(30_000)]
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
    record = json.loads((shards / file).read_text())
    keys = {*record, *record.get("dropped", ()), *record.get("notes", ())}
    assert keys == set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))


def record_of(folder: Path) -> dict[str, Any]:
    """The manifest's record as its file has it, without its checksum."""
    record: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    del record["checksum"]
    return record


def sealed_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The folder, whose manifest is changed by somebody who knows how it is sealed."""
    record = record_of(folder)
    change(record)
    (folder / "manifest.json").write_text(json.dumps(add_checksum(record)))
    return folder


def assert_damaged(folder: Path, what: str) -> None:
    with pytest.raises(UserError, match=f"is damaged.*{what}.*; remove {folder}, then prepare again") as caught:
        Manifest.read(folder)
    assert "\n" not in str(caught.value)


NO_SHARDS = ["../other.arrow", "/etc/passwd", "train/../../x.arrow", "", ".", "/", "train", "manifest.json"]
NO_SHARDS += ["train//00000.arrow", "./train/00000.arrow", "train/00000.crc32", "train/a\0b.arrow", "test/00000.arrow"]


@pytest.mark.parametrize("file", NO_SHARDS)
def test_a_manifest_cannot_point_outside_its_folder_or_at_other_files(copy: Path, file: str) -> None:
    sealed_manifest(copy, lambda record: record["splits"]["train"][0].update(file=file))
    assert_damaged(copy, "names .* is not a shard of this folder")


def counts_of(name: str, change: int) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record["splits"]["train"][0].update({name: record["splits"]["train"][0][name] + change})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (counts_of("tokens", 1), "lengths of train do not match its shards"),
        (counts_of("rows", -1), "lengths of train do not match its shards"),
        (counts_of("rows", -10_000), "count is out of range"),
        (counts_of("rows", 2**70), "count is out of range"),
        (counts_of("bytes", 2**63), "count is out of range"),
        (lambda record: record["lengths"]["train"].append(0), "lengths of train"),
        (lambda record: record.update(max_length=10), "lengths of train"),
        (lambda record: record["lengths"].pop("validation"), "validation"),
        (lambda record: record["splits"]["validation"].append(record["splits"]["train"].pop()), "lengths of train"),
        (lambda record: record["splits"]["train"].reverse(), "fingerprint does not match its shards"),
        (lambda record: record.update(fingerprint="0" * 64), "fingerprint does not match its shards"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_rejected(
    copy: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    assert_damaged(sealed_manifest(copy, change), said)


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest)] + ["fingerprint", "format_version"])
def test_a_manifest_with_a_changed_field_is_rejected(copy: Path, name: str) -> None:
    path, record = copy / "manifest.json", json.loads((copy / "manifest.json").read_text())
    whole = record[name]
    changed = whole[:-1] if isinstance(whole, list | str) else {} if isinstance(whole, dict) else whole + 1
    if changed == whole:
        changed = [*whole, "more"]
    path.write_text(json.dumps({**record, name: changed}))
    assert_damaged(copy, "does not match its checksum")
    for other in (None, "text", 1.5, True, [[]]):
        path.write_text(json.dumps(add_checksum({**record_of(copy), name: other})))
        if name not in ("fingerprint", "format_version"):
            assert_damaged(copy, "")
    path.write_text(json.dumps({key: value for key, value in record.items() if key != name}))
    assert_damaged(copy, "checksum")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '"text"', "[" * 10_000, "\x00"])
def test_other_json_is_rejected_as_a_manifest(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    assert_damaged(copy, "")


def test_wrong_nested_types_are_rejected(copy: Path) -> None:
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
        (copy / "evil" / "manifest.json").write_text(json.dumps(add_checksum(record)))
        assert_damaged(copy / "evil", "")


def test_a_folder_without_a_manifest_is_not_a_folder_of_shards(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no manifest\.json"):
        Manifest.read(copy)

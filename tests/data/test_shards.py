"""Shards: opened without a copy, gathered exactly, and every damage named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bert_tweets.data.manifest import Manifest
from bert_tweets.data.shards import open_split, verify
from bert_tweets.errors import UserError


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
    with pytest.raises(UserError, match=entry.file):
        open_split(copy, manifest, "train").gather(np.array([0]))


def test_a_manifest_cannot_point_out_of_its_folder(copy: Path) -> None:
    path = copy / "manifest.json"
    for name in ("../other.arrow", "/etc/passwd"):
        text = path.read_text().replace(Manifest.read(copy).splits["train"][0].file, name)
        (copy / "evil").mkdir(exist_ok=True)
        (copy / "evil" / "manifest.json").write_text(text)
        manifest = Manifest.read(copy / "evil")
        with pytest.raises(UserError, match="outside"):
            verify(copy, manifest.splits["train"])


def test_a_manifest_that_was_changed_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    record = json.loads(path.read_text())
    record["splits"]["train"].pop()
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="damaged"):
        Manifest.read(copy)
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Manifest.read(copy)
    path.unlink()
    with pytest.raises(UserError, match=r"no manifest\.json"):
        Manifest.read(copy)

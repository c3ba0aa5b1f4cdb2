"""Gather from many shards: lengths only, damage reported when it is read, few open files."""

from __future__ import annotations

import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.common.arrays import ranges
from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards import reader as module
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Tweets, open_split


@given(pairs=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=20))
def test_ranges_are_those_of_python(pairs: list[tuple[int, int]]) -> None:
    starts, lengths = np.array(pairs, np.int64).reshape(-1, 2).T
    expected = [value for start, length in pairs for value in range(start, start + length)]
    assert ranges(starts, lengths).tolist() == expected


def test_lengths_are_those_of_the_gathered_tweets(shards: Path) -> None:
    split = open_split(shards, Manifest.read(shards), "train")
    indices = np.random.default_rng(0).integers(0, len(split), (3, 40))
    lengths = split.lengths_of(indices)
    assert lengths.shape == indices.shape
    assert np.array_equal(lengths.ravel(), split.gather(indices.ravel()).lengths)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_any_order_gives_the_same_tweets(shards: Path, seed: int) -> None:
    split = open_split(shards, Manifest.read(shards), "train")
    indices = np.random.default_rng(seed).integers(0, len(split), 30)
    order = np.argsort(indices, kind="stable")
    mixed, ascending = split.gather(indices), split.gather(indices[order])
    again = mixed.take(order)
    for field in ("lengths", "input_ids", "word_starts"):
        assert np.array_equal(getattr(again, field), getattr(ascending, field))


def test_an_empty_list_can_be_gathered(shards: Path) -> None:
    tweets = open_split(shards, Manifest.read(shards), "train").gather(np.empty(0, np.int64))
    assert isinstance(tweets, Tweets) and not len(tweets.lengths) and not len(tweets.input_ids)


def damage(folder: Path, name: str, change: np.ndarray, place: int) -> None:
    """Overwrites bytes of a column's buffer in a file that stays an Arrow file."""
    batch = pa.ipc.open_file(pa.memory_map(str(folder / name))).get_batch(0)
    column = batch.column("input_ids")
    flat = column.offsets.to_numpy() if change.dtype == np.int32 else column.values.to_numpy()
    path = folder / name
    data = path.read_bytes()
    begin = data.index(flat.tobytes()) + place * flat.itemsize
    path.write_bytes(data[:begin] + change.tobytes() + data[begin + change.nbytes :])


@pytest.mark.parametrize("offset", [-1, 10**6])
def test_an_offset_outside_its_shard_is_reported_when_it_is_read(shards: Path, tmp_path: Path, offset: int) -> None:
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    manifest = Manifest.read(folder)
    first, second = manifest.splits["train"][:2]
    damage(folder, second.file, np.array([offset], np.int32), place=5)
    split = open_split(folder, manifest, "train")
    split.gather(np.arange(first.rows + 4))
    for read in (split.gather, split.lengths_of):
        with pytest.raises(UserError, match=f"{second.file}.*offsets"):
            read(np.arange(len(split)))


def test_an_unknown_id_is_reported_when_it_is_read(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    manifest = Manifest.read(folder)
    second = manifest.splits["train"][1]
    damage(folder, second.file, np.array([60_000], np.uint16), place=20)
    split = open_split(folder, manifest, "train")
    with pytest.raises(UserError, match=f"{second.file}.*vocabulary"):
        split.gather(np.random.default_rng(0).permutation(len(split)))


def test_more_shards_than_open_files_are_allowed(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.read(shards)
    whole = open_split(shards, manifest, "train")
    many = open_split(shards, replace(manifest, splits={"train": manifest.splits["train"] * 40}), "train")
    monkeypatch.setattr(module, "_MOST_OPEN", 100)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 20, limits[1]))
    try:
        gathered = many.gather(np.arange(len(many)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert np.array_equal(gathered.input_ids, np.tile(whole.gather(np.arange(len(whole))).input_ids, 40))
    assert len(many._open) == 100

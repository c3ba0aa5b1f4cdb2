"""Records are read back completely, bucket by bucket, in order, in bounded memory and pieces."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.corpus.dedup import disk_buckets
from bert_tweets.corpus.dedup.disk_buckets import Buckets

RECORD = np.dtype([("key", "<u8"), ("row", "<i8")])


def records_of(rows: range) -> np.ndarray:
    records = np.empty(len(rows), RECORD)
    records["row"] = rows
    records["key"] = np.arange(rows.start, rows.stop, dtype=np.uint64) * np.uint64(7)
    return records


@settings(max_examples=40, deadline=None)
@given(
    calls=st.lists(st.lists(st.integers(0, 4), max_size=30), max_size=8),
    buffer=st.sampled_from([1, 100, 10_000]),
    read=st.sampled_from([1, 40, 10_000]),
)
def test_each_bucket_returns_its_records_in_order(calls: list[list[int]], buffer: int, read: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_buckets, "BUFFER_BYTES", buffer)
        patch.setattr(disk_buckets, "READ_BYTES", read)
        expected: list[list[int]] = [[] for _ in range(5)]
        row = 0
        with Buckets(Path(folder) / "here", RECORD, 5) as buckets:
            for call in calls:
                buckets.add(np.array(call, dtype=np.int64), records_of(range(row, row + len(call))))
                for which in call:
                    expected[which].append(row)
                    row += 1
            for _ in range(2):
                for bucket in range(5):
                    pieces = list(buckets.read(bucket))
                    assert all(piece.nbytes <= max(read, RECORD.itemsize) for piece in pieces)
                    found = np.concatenate([records_of(range(0)), *pieces])
                    assert found["row"].tolist() == expected[bucket]
                    assert (found["key"] == found["row"].astype(np.uint64) * np.uint64(7)).all()
        assert not (Path(folder) / "here").exists()


def test_other_buckets_take_records_while_one_is_read(tmp_path: Path) -> None:
    buckets = Buckets(tmp_path / "b", np.int64, 2)
    buckets.add(np.array([1, 1]), np.array([10, 11]))
    for piece in buckets.read(1):
        buckets.add(np.zeros(len(piece), np.int64), piece + 5)
    assert np.concatenate(list(buckets.read(0))).tolist() == [15, 16]
    buckets.drop(1)
    assert list(buckets.read(1)) == []


def test_a_caller_may_reuse_its_array(tmp_path: Path) -> None:
    buckets = Buckets(tmp_path, np.int64, 1)
    mine = np.array([1, 2])
    buckets.add(np.array([0, 0]), mine)
    mine[:] = 9
    assert next(buckets.read(0)).tolist() == [1, 2]


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    buckets = Buckets(tmp_path, np.int64, 3)
    buckets.add(np.array([2]), np.array([1]))
    list(buckets.read(2))
    buckets.close()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_unwritten_records_are_bounded(tmp_path: Path) -> None:
    with Buckets(tmp_path, RECORD, 3) as buckets:
        for _ in range(40):
            buckets.add(np.arange(100_000) % 3, records_of(range(100_000)))
            assert buckets._waiting_bytes < disk_buckets.BUFFER_BYTES
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 40 * 1_600_000 - disk_buckets.BUFFER_BYTES


@pytest.mark.parametrize("which", [-1, 3])
def test_an_unknown_bucket_is_an_assertion_error(tmp_path: Path, which: int) -> None:
    with pytest.raises(AssertionError):
        Buckets(tmp_path, np.int64, 3).add(np.array([which]), np.array([1]))

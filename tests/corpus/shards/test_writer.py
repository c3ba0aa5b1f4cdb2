"""Shards contain the given rows, in bytes that do not depend on how the rows were divided."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.corpus.shards.reader import Split, Tweets, shard_schema, verify
from bert_tweets.corpus.shards.writer import to_batch, write_shard


def batch_of(
    lengths: list[int], first: int = 0, vocabulary: int = 1000, groups: tuple[str, ...] = ()
) -> pa.RecordBatch:
    count, tokens = len(lengths), sum(lengths)
    draw = np.random.default_rng(first + tokens)
    names = pa.array([str(first + number) for number in range(count)], pa.string())
    known = {"id": names, "text": names, "cluster": pa.array(np.arange(first, first + count), pa.int64())}
    return to_batch(
        Tweets(
            np.array(lengths, dtype=np.int64),
            draw.integers(0, vocabulary, tokens, dtype=np.int32),
            draw.integers(0, 2, tokens).astype(np.bool_),
        ),
        known | {f"group.{group}": names for group in groups},
        shard_schema(vocabulary, groups),
    )


def write(folder, batches, vocabulary=1000, groups=(), name="train/00000.arrow"):
    (folder / "train").mkdir(exist_ok=True)
    return write_shard(folder, name, batches, shard_schema(vocabulary, groups), attempts=folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.lists(st.integers(1, 9), max_size=9), max_size=6).filter(any))
def test_rows_come_back_as_they_were_given(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("shards")
    made = [batch_of(lengths, 100 * number, groups=("party",)) for number, lengths in enumerate(batches)]
    rows = [row for batch in made for row in batch.to_pylist()]
    entry = write(folder, made, groups=("party",))
    verify(folder, [entry])
    split = Split(folder, [entry], 1000, ("party",))
    assert split.batch(0).to_pylist() == rows
    tweets = split.gather(np.arange(len(rows)))
    assert tweets.lengths.tolist() == [len(row["input_ids"]) for row in rows]
    assert tweets.input_ids.tolist() == [number for row in rows for number in row["input_ids"]]
    assert tweets.word_starts.tolist() == [start for row in rows for start in row["word_starts"]]
    assert entry.tokens == len(tweets.input_ids) and entry.rows == len(rows)


def test_the_bytes_do_not_depend_on_how_the_rows_came(tmp_path):
    whole = batch_of([3, 1, 4, 1, 5, 9, 2, 6])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = write(tmp_path / "a", [whole])
    two = write(tmp_path / "b", [whole.slice(0, 3), whole.slice(3, 4), whole.slice(7)])
    assert one == two


def test_a_second_attempt_ends_in_the_same_files(tmp_path):
    first = write(tmp_path, [batch_of([3, 1, 4])])
    assert write(tmp_path, [batch_of([3, 1, 4])]) == first
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["00000.arrow", "00000.crc32"]


@pytest.mark.parametrize(("vocabulary", "kind"), [(65_535, pa.uint16()), (65_536, pa.uint32())])
def test_ids_are_narrow_while_the_vocabulary_allows(tmp_path, vocabulary, kind):
    entry = write(tmp_path, [batch_of([2, 3], vocabulary=vocabulary)], vocabulary)
    with pa.memory_map(str(tmp_path / entry.file)) as source:
        reader = pa.ipc.open_file(source)
        assert reader.num_record_batches == 1
        assert reader.schema == shard_schema(vocabulary)
        assert reader.schema.field("input_ids").type.value_type == kind


def test_files_are_not_compressed(tmp_path):
    entry = write(tmp_path, [batch_of([100] * 100)])
    assert entry.bytes == (tmp_path / entry.file).stat().st_size >= 10_000 * 2
    before = pa.total_allocated_bytes()
    opened = pa.ipc.open_file(pa.memory_map(str(tmp_path / entry.file))).get_batch(0)
    assert opened.num_rows == 100
    assert pa.total_allocated_bytes() - before < 10_000


def test_a_kill_before_the_rename_leaves_nothing_among_the_shards(tmp_path, monkeypatch):
    (tmp_path / "attempts").mkdir()
    (tmp_path / "train").mkdir()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, "train/00000.arrow", [batch_of([3])], shard_schema(1000), attempts=tmp_path / "attempts")
    assert not any((tmp_path / "train").iterdir()) and any((tmp_path / "attempts").iterdir())

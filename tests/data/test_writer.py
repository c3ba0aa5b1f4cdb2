"""Shards hold what was given to them, in order, one batch a file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.data.shards import Split, Tweets, schema, verify
from bert_tweets.data.writer import ShardWriter, to_batch
from bert_tweets.text.times import TYPE


def batch_of(lengths: list[int], first: int = 0, vocabulary: int = 1000) -> pa.RecordBatch:
    count, tokens = len(lengths), sum(lengths)
    draw = np.random.default_rng(first + tokens)
    names = pa.array([str(first + number) for number in range(count)], pa.string())
    return to_batch(
        Tweets(
            np.array(lengths, dtype=np.int64),
            draw.integers(0, vocabulary, tokens, dtype=np.int32),
            draw.integers(0, 2, tokens).astype(np.bool_),
        ),
        names,
        pa.nulls(count, TYPE),
        pa.nulls(count, pa.string()),
        names,
        vocabulary,
    )


def write(folder, batches, shard_tweets, vocabulary=1000):
    writer = ShardWriter(folder, "train", vocabulary, shard_tweets)
    for batch in batches:
        writer.add(batch)
    return writer.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.lists(st.integers(1, 9), max_size=9), max_size=6), st.integers(1, 12))
def test_rows_come_back_as_they_were_given(tmp_path_factory, batches, shard_tweets):
    folder = tmp_path_factory.mktemp("shards")
    made = [batch_of(lengths, 100 * number) for number, lengths in enumerate(batches)]
    entries = write(folder, made, shard_tweets)
    rows = [row for batch in made for row in batch.to_pylist()]
    assert [entry.rows for entry in entries] == [
        min(shard_tweets, len(rows) - first) for first in range(0, len(rows), shard_tweets)
    ]
    verify(folder, entries)
    split = Split(folder, entries, 1000)
    assert [row for shard in range(len(entries)) for row in split.batch(shard).to_pylist()] == rows
    tweets = split.gather(np.arange(len(rows)))
    assert tweets.lengths.tolist() == [len(row["input_ids"]) for row in rows]
    assert tweets.input_ids.tolist() == [number for row in rows for number in row["input_ids"]]
    assert tweets.word_starts.tolist() == [start for row in rows for start in row["word_starts"]]
    assert sum(entry.tokens for entry in entries) == len(tweets.input_ids)


def test_the_bytes_do_not_depend_on_how_the_rows_came(tmp_path):
    whole = batch_of([3, 1, 4, 1, 5, 9, 2, 6])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = write(tmp_path / "a", [whole], 5)
    two = write(tmp_path / "b", [whole.slice(0, 3), whole.slice(3, 4), whole.slice(7)], 5)
    assert one == two


@pytest.mark.parametrize(("vocabulary", "kind"), [(65_535, pa.uint16()), (65_536, pa.uint32())])
def test_ids_are_narrow_while_the_vocabulary_allows(tmp_path, vocabulary, kind):
    entries = write(tmp_path, [batch_of([2, 3], vocabulary=vocabulary)], 10, vocabulary)
    with pa.memory_map(str(tmp_path / entries[0].file)) as source:
        reader = pa.ipc.open_file(source)
        assert reader.num_record_batches == 1
        assert reader.schema == schema(vocabulary)
        assert reader.schema.field("input_ids").type.value_type == kind


def test_files_are_not_compressed(tmp_path):
    batch = batch_of([100] * 100)
    entries = write(tmp_path, [batch], 1000)
    assert entries[0].bytes == (tmp_path / entries[0].file).stat().st_size >= 10_000 * 2
    before = pa.total_allocated_bytes()
    opened = pa.ipc.open_file(pa.memory_map(str(tmp_path / entries[0].file))).get_batch(0)
    assert opened.num_rows == 100
    assert pa.total_allocated_bytes() - before < 10_000


def test_an_early_end_when_a_shard_grows_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("bert_tweets.data.writer.LARGEST_SHARD", 500)
    entries = write(tmp_path, [batch_of([50] * 3, first) for first in range(0, 9, 3)], 1000)
    assert len(entries) > 1 and sum(entry.rows for entry in entries) == 9


def test_nothing_written_is_no_shard(tmp_path):
    assert write(tmp_path, [], 5) == []
    assert (tmp_path / "train").is_dir()

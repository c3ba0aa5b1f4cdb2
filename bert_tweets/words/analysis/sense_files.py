"""Senses of all words of a folder, and their files senses.parquet and sense_vectors.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bert_tweets.common.terminal import ProgressBar
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.occurrences.groups import group_by_column, labels
from bert_tweets.words.store.export_formats import write_word2vec_text
from bert_tweets.words.store.reader import VectorStore, chosen_words_of, open_vectors, vectors_of

from .records import SENSE_TABLE, SENSE_VECTORS, WordSenses
from .sense_report import COLUMNS, SenseModel, add_nearest_words, add_q_values, describe_senses, fit_senses

# Number of occurrences whose vectors are in memory at once, unless one word has more.
_ROWS_AT_ONCE = 100_000


def analyze_senses(folder: Path, config: AnalyzeConfig) -> dict[str, WordSenses]:
    """Find and describe the senses of each word, and write their occurrences and vectors; returns them by word.

    Raises:
        UserError: the folder of words is damaged, or scikit-learn is not installed.
    """
    store = open_vectors(config.words, config.model, config.layer or None)
    models: list[SenseModel] = []
    records: dict[str, WordSenses] = {}
    column = group_by_column(config.by)
    names = sorted({group for group in groups_of_rows(store.read([column]), config.by) if group is not None})
    with ProgressBar("senses") as advance, pq.ParquetWriter(folder / SENSE_TABLE, sense_schema()) as writer:
        for word, rows in rows_by_word(store, chosen_words_of(store), [*COLUMNS, column]):
            if not len(rows):
                # All its occurrences are lost to [UNK] or truncated.
                continue
            without_vectors = rows.drop_columns("vector")
            model = fit_senses(
                word, without_vectors, vectors_of(rows), config.max_senses, config.seed, config.max_occurrences
            )
            groups = groups_of_rows(model.rows, config.by)
            records[word] = describe_senses(model, groups, names, config.permutations, config.seed)
            models.append(model)
            writer.write_table(_sense_table(model, rows, config.model))
            advance(1)
    add_q_values(list(records.values()))
    add_nearest_words(records, models, store)
    vectors = [model.centroids for model in models] or [np.empty((0, 0), np.float32)]
    write_word2vec_text(
        folder / SENSE_VECTORS, [name for model in models for name in model.names], np.concatenate(vectors)
    )
    return records


def sense_schema() -> pa.Schema:
    """The columns of senses.parquet, which has a row for each found occurrence, copies included."""
    texts = [pa.field(name, pa.string(), nullable=False) for name in ("word", "tweet_id")]
    places = [pa.field(name, pa.int32(), nullable=False) for name in ("start", "end")]
    # Senses are numbered from 0: `virus#1` is 0.
    return pa.schema([*texts, *places, pa.field("model", pa.string(), nullable=False), pa.field("sense", pa.int32())])


def rows_by_word(store: VectorStore, words: list[str], columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """The found occurrences of each word with their vectors, which are read for several words at once."""
    counts = dict(pair.values() for pair in store.read(["word"]).column("word").value_counts().to_pylist())
    several: list[str] = []
    for number, word in enumerate(words):
        several.append(word)
        following = counts.get(words[number + 1], 0) if number + 1 < len(words) else _ROWS_AT_ONCE
        if sum(counts.get(one, 0) for one in several) + following > _ROWS_AT_ONCE or number + 1 == len(words):
            rows = store.read([*columns, "vector"], several)
            for one in several:
                yield one, rows.filter(pc.field("word") == one)
            several = []


def groups_of_rows(rows: pa.Table, by: str) -> list[str | None]:
    """The group of each row: a period of its time, or its value in a group column."""
    name = group_by_column(by)
    if name not in rows.column_names:
        return [None] * len(rows)
    return list(labels(rows.column(name), by).to_pylist())


def _sense_table(model: SenseModel, rows: pa.Table, role: str) -> pa.Table:
    columns = {name: rows.column(name) for name in ("word", "tweet_id", "start", "end")}
    columns["model"] = pa.repeat(role, len(rows))
    columns["sense"] = pa.array(model.all_labels, pa.int32())
    return pa.table([columns[name] for name in sense_schema().names], schema=sense_schema())

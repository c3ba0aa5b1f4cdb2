"""The files that analyze leaves of usage clusters: senses.json, senses.parquet and sense_vectors.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bert_tweets.common.output_folder import write_json_atomic
from bert_tweets.common.terminal import ProgressBar
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.occurrences.groups import group_by_column, labels
from bert_tweets.words.store.export_formats import write_word2vec_text
from bert_tweets.words.store.reader import VectorStore, asked, open_vectors, vectors_of

from .sense_report import COLUMNS, Usage, described, usage_of, with_nearest, with_q_values

SENSES, SENSE_TABLE, SENSE_VECTORS = "senses.json", "senses.parquet", "sense_vectors.txt"

# Occurrences whose vectors are in memory at a time, unless one word has more.
_ROWS = 100_000


def write_senses(folder: Path, config: AnalyzeConfig) -> dict[str, Any]:
    """Finds and describes the usage clusters of each asked word.

    Args:
        folder: takes the files.
        config: the settings.

    Returns:
        What was written into senses.json.

    Raises:
        UserError: the folder is not as embed leaves it, or scikit-learn is not installed.
    """
    source = open_vectors(config.words, config.model, config.layer or None)
    usages: list[Usage] = []
    records: dict[str, Any] = {}
    column = group_by_column(config.by)
    names = sorted({group for group in groups_of_rows(source.read([column]), config.by) if group is not None})
    with ProgressBar("usage clusters") as advance, pq.ParquetWriter(folder / SENSE_TABLE, sense_schema()) as writer:
        for word, rows in by_word(source, asked(source), [*COLUMNS, column]):
            if not len(rows):
                # None of its occurrences was found: lost to [UNK], or truncated away.
                continue
            usage = usage_of(
                word,
                rows.drop_columns("vector"),
                vectors_of(rows),
                config.max_senses,
                config.seed,
                config.max_occurrences,
            )
            records[word] = described(
                usage, groups_of_rows(usage.rows, config.by), names, config.permutations, config.seed
            )
            usages.append(usage)
            writer.write_table(_table(usage, rows, config.model))
            advance(1)
    with_q_values(list(records.values()))
    with_nearest(records, usages, source)
    write_json_atomic(folder / SENSES, records)
    vectors = [usage.centroids for usage in usages] or [np.empty((0, 0), np.float32)]
    write_word2vec_text(
        folder / SENSE_VECTORS, [name for usage in usages for name in usage.names], np.concatenate(vectors)
    )
    return records


def sense_schema() -> pa.Schema:
    """Columns of senses.parquet: a row a found occurrence, copies too."""
    texts = [pa.field(name, pa.string(), nullable=False) for name in ("word", "tweet_id")]
    places = [pa.field(name, pa.int32(), nullable=False) for name in ("start", "end")]
    # From 0, `virus#1` is 0.
    return pa.schema([*texts, *places, pa.field("model", pa.string(), nullable=False), pa.field("sense", pa.int32())])


def by_word(source: VectorStore, words: list[str], columns: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """The found occurrences of each word with their vectors, read for several words at a time."""
    counts = dict(pair.values() for pair in source.read(["word"]).column("word").value_counts().to_pylist())
    several: list[str] = []
    for number, word in enumerate(words):
        several.append(word)
        following = counts.get(words[number + 1], 0) if number + 1 < len(words) else _ROWS
        if sum(counts.get(one, 0) for one in several) + following > _ROWS or number + 1 == len(words):
            rows = source.read([*columns, "vector"], several)
            for one in several:
                yield one, rows.filter(pc.field("word") == one)
            several = []


def groups_of_rows(rows: pa.Table, by: str) -> list[str | None]:
    """The group of each row: a period of its time, or what a kept column says."""
    name = group_by_column(by)
    if name not in rows.column_names:
        return [None] * len(rows)
    groups: list[str | None] = labels(rows.column(name), by).to_pylist()
    return groups


def _table(usage: Usage, rows: pa.Table, model: str) -> pa.Table:
    columns = {name: rows.column(name) for name in ("word", "tweet_id", "start", "end")}
    columns["model"] = pa.repeat(model, len(rows))
    columns["sense"] = pa.array(usage.all_labels, pa.int32())
    return pa.table([columns[name] for name in sense_schema().names], schema=sense_schema())

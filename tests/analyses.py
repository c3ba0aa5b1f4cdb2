"""Folders like those of embed, made by hand, and runs of analyze on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bert_tweets import analyze
from bert_tweets.words.embedding.parquet_writer import occurrence_schema
from tests.words.summaries import summary_record, write_records
from tests.words.synthetic import occurrences

DAY = 86_400


def words_folder(folder: Path, rows: list[dict[str, Any]], weights: str = "w") -> Path:
    """Write a folder like that of embed, with these occurrences."""
    folder.mkdir(parents=True)
    filled = [
        {
            "tweet_id": str(number),
            "cluster": number,
            "author": None,
            "time": None,
            "group.party": None,
            "start": 0,
            "end": 4,
            "status": "found",
            "subwords": 1,
            "model": "model",
            "layer": "mean(1)",
            "correction": "none",
            **row,
        }
        for number, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(filled, occurrence_schema(False, ["party"])), folder / "occurrences.parquet")
    write_records(folder, summary_record(weights={"model": weights, "base": "b"}), weights)
    return folder


def word(
    name: str, count: int = 60, shift: float = 0.0, drift: float = 0.0, seed: int = 0, **columns: Any
) -> list[dict[str, Any]]:
    """Occurrences, half in January and half in February, when this word (`shift`) or every word (`drift`) changes."""
    vectors = occurrences(np.random.default_rng([seed, *name.encode()]), count)
    vectors[count // 2 :, 0] += drift
    vectors[count // 2 :, 1] += shift
    times = [(0 if number < count // 2 else 40) * DAY + number for number in range(count)]
    return [
        {"word": name, "time": time, "vector": vector.tolist(), **columns}
        for time, vector in zip(times, vectors, strict=True)
    ]


def run(words: Path, output: Path, *more: str) -> list[dict[str, Any]]:
    analyze.stage([f"words={words}", f"output={output}", "by=month", "permutations=999", "senses=false", *more])
    rows = json.loads((output / "change.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["measure"] == "energy"]

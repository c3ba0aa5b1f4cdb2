"""Write occurrences.parquet: a row per occurrence, model and layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bert_tweets.common.arrays import Bools, Floats
from bert_tweets.words.occurrences.features import CONTEXT, context_columns
from bert_tweets.words.occurrences.find import FOUND, STATUSES, Corpus, Occurrences, tweet_columns

if TYPE_CHECKING:
    from .substitutes import Substitutes

SUBSTITUTES = pa.field("substitutes", pa.list_(pa.string()))


def occurrence_schema(include_text: bool, groups: Sequence[str] = ()) -> pa.Schema:
    """Columns of occurrences.parquet; columns kept by prepare are called `group.NAME`."""
    text = [pa.field("text", pa.string(), nullable=False)] if include_text else []
    return pa.schema(
        [
            pa.field("word", pa.string(), nullable=False),
            pa.field("tweet_id", pa.string(), nullable=False),
            # Near-duplicates have the same number, as in the shards.
            pa.field("cluster", pa.int64(), nullable=False),
            pa.field("author", pa.string()),
            pa.field("time", pa.timestamp("s", tz="UTC")),
            *(pa.field(f"group.{name}", pa.string()) for name in groups),
            # Characters of the cleaned text, end excluded.
            pa.field("start", pa.int32(), nullable=False),
            pa.field("end", pa.int32(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            # Number of tokens of the word; 0 unless it is found.
            pa.field("subwords", pa.int32(), nullable=False),
            # Whether it is a control word.
            pa.field("control", pa.bool_()),
            *CONTEXT,
            # Words that the masked-LM head predicts in its place, likeliest first; in the first model only.
            SUBSTITUTES,
            pa.field("model", pa.string(), nullable=False),
            pa.field("layer", pa.string(), nullable=False),
            pa.field("correction", pa.string(), nullable=False),
            # Null unless the status is `found`. Not of fixed size: model and base may have different widths.
            pa.field("vector", pa.list_(pa.float32())),
            *text,
        ]
    )


class OccurrenceWriter(AbstractContextManager["OccurrenceWriter"]):
    """Streams rows of occurrences.parquet; `names` are those of chosen words, then of control words."""

    def __init__(
        self,
        path: Path,
        corpus: Corpus,
        names: Sequence[str],
        num_chosen: int,
        include_text: bool,
        groups: Sequence[str] = (),
    ):
        self.corpus, self.num_chosen = corpus, num_chosen
        self._schema = occurrence_schema(include_text, groups)
        self._of_tweets = ["author", "time", *(f"group.{name}" for name in groups), *(["text"] if include_text else [])]
        self.words = pa.array(names, pa.string())
        # Dictionary encoding is for repeating values: for vectors it would take half of the time, in vain.
        repeating = [name for name in self._schema.names if name not in ("vector", "text")]
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=repeating)

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write(
        self,
        occurrences: Occurrences,
        rows: slice,
        vectors: Floats,
        model: str,
        layers: Sequence[str],
        correction: str = "none",
        substitutes: Substitutes | None = None,
    ) -> None:
        """Write a slice of the occurrences with its vectors, float32 [rows, layers, width], a row per layer."""
        count = rows.stop - rows.start
        if not count:
            return
        places, status = occurrences.places.take(rows), occurrences.status[rows]
        wanted = dict.fromkeys(["id", *self._of_tweets, "text", "retweet_of"])
        tweets = tweet_columns(self.corpus, places.tweet, list(wanted))
        columns = {
            "word": self.words.take(pa.array(places.word)),
            "tweet_id": tweets.column("id"),
            "cluster": pa.array(occurrences.cluster[rows]),
            **{name: tweets.column(name) for name in self._of_tweets},
            "start": pa.array(places.start, pa.int32()),
            "end": pa.array(places.end, pa.int32()),
            "status": pa.array(STATUSES).take(pa.array(status)),
            "subwords": pa.array(occurrences.subword_counts[rows], pa.int32()),
            "substitutes": substitutes.column(rows) if substitutes else pa.nulls(count, SUBSTITUTES.type),
            "model": pa.repeat(model, count),
            "correction": pa.repeat(correction, count),
            "control": pa.array(places.word >= self.num_chosen),
            **context_columns(self.corpus, places, tweets, occurrences.first_positions(rows)),
        }
        for number, layer in enumerate(layers):
            columns["layer"] = pa.repeat(layer, count)
            columns["vector"] = _lists(vectors[:, number], status == FOUND)
            self._writer.write_table(pa.table([columns[name] for name in self._schema.names], schema=self._schema))


def _lists(vectors: Floats, present: Bools) -> pa.Array:
    width = vectors.shape[1]
    offsets = np.concatenate([[0], np.cumsum(present) * width]).astype(np.int32)
    lists = pa.ListArray.from_arrays(offsets, pa.array(vectors[present].ravel()))
    return pc.if_else(pa.array(present), lists, pa.scalar(None, lists.type))

"""What embed leaves behind: a row an occurrence in Parquet, centroids as word2vec text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bert_tweets.words.occurrences.features import CONTEXT, context_columns, first_pieces
from bert_tweets.words.occurrences.find import FOUND, STATUSES, Corpus, Occurrences, tweet_columns
from bert_tweets.words.occurrences.matching import Asked
from bert_tweets.words.store.export_formats import write_word2vec_text

from .study import MODEL

if TYPE_CHECKING:
    from .substitutes import Substitutes

Floats = npt.NDArray[np.float32]

SUBSTITUTES = pa.field("substitutes", pa.list_(pa.string()))


def occurrence_schema(include_text: bool, groups: Sequence[str] = ()) -> pa.Schema:
    """Columns of occurrences.parquet: a row an asked occurrence and model; kept columns are called `group.NAME`."""
    text = [pa.field("text", pa.string(), nullable=False)] if include_text else []
    return pa.schema(
        [
            pa.field("word", pa.string(), nullable=False),
            pa.field("tweet_id", pa.string(), nullable=False),
            # Near-duplicates share it; see the shards.
            pa.field("cluster", pa.int64(), nullable=False),
            pa.field("author", pa.string()),
            pa.field("time", pa.timestamp("s", tz="UTC")),
            *(pa.field(f"group.{name}", pa.string()) for name in groups),
            # Characters of the cleaned text, end excluded.
            pa.field("start", pa.int32(), nullable=False),
            pa.field("end", pa.int32(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            # Tokens of the word; 0 unless it is found.
            pa.field("pieces", pa.int32(), nullable=False),
            # An ordinary word, chosen for comparison.
            pa.field("control", pa.bool_()),
            *CONTEXT,
            # Words that the masked-LM head would put in its place, likeliest first; of the first model alone.
            SUBSTITUTES,
            pa.field("model", pa.string(), nullable=False),
            pa.field("layer", pa.string(), nullable=False),
            pa.field("correction", pa.string(), nullable=False),
            # Null unless the status is `found`. Not of fixed size: model and base may differ in width.
            pa.field("vector", pa.list_(pa.float32())),
            *text,
        ]
    )


class OccurrenceWriter:
    """Streams rows of occurrences.parquet.

    Args:
        path: the file.
        corpus: the tweets.
        names: of the asked words and the controls; occurrences of later numbers (the background's) are not written.
        asked: how many of these are asked for; the rest are controls.
        include_text: write the cleaned text, too.
        groups: further columns that were kept.

    Attributes:
        substitutes: of the occurrences, for the rows of the first model; None: there are none.
    """

    def __init__(
        self,
        path: Path,
        corpus: Corpus,
        names: Sequence[str],
        asked: int,
        include_text: bool,
        groups: Sequence[str] = (),
    ):
        self.corpus, self.asked = corpus, asked
        self.substitutes: Substitutes | None = None
        self._schema = occurrence_schema(include_text, groups)
        self._of_tweets = ["author", "time", *(f"group.{name}" for name in groups), *(["text"] if include_text else [])]
        self.words = pa.array(names, pa.string())
        # Dictionaries are for what repeats: of the vectors' numbers one would take half of the time, in vain.
        repeating = [name for name in self._schema.names if name not in ("vector", "text")]
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=repeating)

    def __enter__(self) -> OccurrenceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(
        self,
        occurrences: Occurrences,
        rows: slice,
        vectors: Floats,
        model: str,
        layers: Sequence[str],
        correction: str = "none",
    ) -> None:
        """Writes a slice of the occurrences with its vectors, float32 [rows, layers, width], a row a layer."""
        asked = np.flatnonzero(occurrences.places.word[rows] < len(self.words))
        if not len(asked):
            return
        places = occurrences.places.take(rows).take(asked)
        status = occurrences.status[rows][asked]
        wanted = dict.fromkeys(["id", *self._of_tweets, "text", "retweet_of"])
        tweets = tweet_columns(self.corpus, places.tweet, list(wanted))
        columns = {
            "word": self.words.take(pa.array(places.word)),
            "tweet_id": tweets.column("id"),
            "cluster": pa.array(occurrences.cluster[rows][asked]),
            **{name: tweets.column(name) for name in self._of_tweets},
            "start": pa.array(places.start, pa.int32()),
            "end": pa.array(places.end, pa.int32()),
            "status": pa.array(STATUSES).take(pa.array(status)),
            "pieces": pa.array(occurrences.piece_counts[rows][asked], pa.int32()),
            "substitutes": self._substitutes(rows.start + asked, model),
            "model": pa.repeat(model, len(asked)),
            "correction": pa.repeat(correction, len(asked)),
            "control": pa.array(places.word >= self.asked),
            **context_columns(self.corpus, places, tweets, first_pieces(occurrences, rows)[asked]),
        }
        for number, layer in enumerate(layers):
            columns["layer"] = pa.repeat(layer, len(asked))
            columns["vector"] = _lists(vectors[asked, number], status == FOUND)
            self._writer.write_table(pa.table([columns[name] for name in self._schema.names], schema=self._schema))

    def _substitutes(self, rows: npt.NDArray[np.int64], model: str) -> pa.Array:
        if self.substitutes is None or model != MODEL:
            return pa.nulls(len(rows), SUBSTITUTES.type)
        return self.substitutes.column(rows)


def _lists(vectors: Floats, present: npt.NDArray[np.bool_]) -> pa.Array:
    width = vectors.shape[1]
    offsets = np.concatenate([[0], np.cumsum(present) * width]).astype(np.int32)
    lists = pa.ListArray.from_arrays(offsets, pa.array(vectors[present].ravel()))
    return pc.if_else(pa.array(present), lists, pa.scalar(None, lists.type))


def write_word2vec(path: Path, words: Sequence[Asked], centroids: Floats) -> None:
    """Writes centroids as word2vec text: `count width`, then a word and its numbers a line.

    A space within a phrase is written `_`; a word that was not found (NaN) is left out.

    Args:
        path: the file.
        words: the asked words.
        centroids: float32 [words, width].
    """
    write_word2vec_text(path, [word.text for word in words], centroids)

"""Writing shards: rows are gathered until a shard is full, then written, flushed and checksummed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from .. import files
from .checksums import block_checksums, checksum_file
from .manifest import ShardEntry
from .shards import Tweets, schema

# Arrow's text columns count bytes in 31 bits: a shard is closed early before it comes near.
LARGEST_SHARD = 2**30


def to_batch(
    tweets: Tweets, ids: pa.Array, times: pa.Array, authors: pa.Array, texts: pa.Array, vocabulary_size: int
) -> pa.RecordBatch:
    """Tokens and what is known of each tweet as rows of a shard.

    Args:
        tweets: the tokens.
        ids, authors, texts: string [tweets]; authors may be null.
        times: timestamp[s, UTC] [tweets], may be null.
        vocabulary_size: decides the width of the ids.
    """
    columns = schema(vocabulary_size)
    offsets = pa.array(np.concatenate([[0], np.cumsum(tweets.lengths)]), pa.int32())
    item = columns.field("input_ids").type.value_type
    tokens = pa.ListArray.from_arrays(
        offsets,
        pa.array(tweets.input_ids.astype(item.to_pandas_dtype())),
        type=columns.field("input_ids").type,
    )
    starts = pa.ListArray.from_arrays(offsets, pa.array(tweets.word_starts), type=columns.field("word_starts").type)
    return pa.RecordBatch.from_arrays([tokens, starts, ids, times, authors, texts], schema=columns)


class ShardWriter:
    """Writes one split below a folder, `shard_tweets` rows a file, in the order in which they come."""

    def __init__(self, folder: Path, split: str, vocabulary_size: int, shard_tweets: int):
        self._folder = folder
        self._split = split
        self._schema = schema(vocabulary_size)
        self._shard_tweets = shard_tweets
        self._waiting: list[pa.RecordBatch] = []
        self._entries: list[ShardEntry] = []
        (folder / split).mkdir()

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes rows, and writes each shard that they fill."""
        while batch.num_rows:
            room = self._shard_tweets - sum(waiting.num_rows for waiting in self._waiting)
            piece, batch = batch.slice(0, room), batch.slice(room)
            self._waiting.append(piece)
            size = sum(waiting.nbytes for waiting in self._waiting)
            if piece.num_rows == room or size > LARGEST_SHARD:
                self._write()

    def close(self) -> list[ShardEntry]:
        """Writes what is left, and names all shards in order."""
        if self._waiting:
            self._write()
        return self._entries

    def _write(self) -> None:
        whole = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting = []
        # take() builds every buffer anew: the bytes do not tell how the rows came, in one piece or in several.
        (batch,) = whole.combine_chunks().take(pa.array(np.arange(whole.num_rows))).to_batches()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self._schema, options=pa.ipc.IpcWriteOptions(compression=None)) as writer:
            writer.write_batch(batch)
        data = sink.getvalue()
        name = f"{self._split}/{len(self._entries):05d}.arrow"
        files.write_bytes(self._folder / name, data)
        files.write_bytes(self._folder / checksum_file(name), block_checksums(data))
        tokens = len(batch.column("input_ids").flatten())
        self._entries.append(ShardEntry(name, batch.num_rows, tokens, data.size, hashlib.sha256(data).hexdigest()))

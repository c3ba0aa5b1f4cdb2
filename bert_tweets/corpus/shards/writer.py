"""Write shards: rows as one record batch, written under a temporary name, checksummed, then renamed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.common import output_folder

from .manifest import ShardEntry, checksum_file
from .reader import Tweets

BLOCK_BYTES = 2**16


def to_batch(tweets: Tweets, known: Mapping[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Combine tokens and the other columns of tweets into rows.

    Args:
        tweets: tokens.
        known: other columns by name, each [tweets]; missing ones become null.
        schema: columns of the result.
    """
    offsets = pa.array(np.concatenate([[0], np.cumsum(tweets.lengths)]), pa.int32())
    ids = tweets.input_ids.astype(schema.field("input_ids").type.value_type.to_pandas_dtype())
    lists = {
        name: pa.ListArray.from_arrays(offsets, pa.array(values), type=schema.field(name).type)
        for name, values in (("input_ids", ids), ("word_starts", tweets.word_starts))
    }
    missing = {field.name: pa.nulls(len(tweets.lengths), field.type) for field in schema}
    columns = {**missing, **known, **lists}
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def write_shard(
    folder: Path, name: str, batches: Sequence[pa.RecordBatch], schema: pa.Schema, attempts: Path
) -> ShardEntry:
    """Write one shard and the checksums of its blocks.

    Writing it twice, even at the same time, gives the same bytes: each attempt has temporary names of its own.

    Args:
        folder: folder of all shards.
        name: path of this shard below the folder, such as `train/00000.arrow`.
        batches: rows; how they are split into batches has no effect.
        schema: columns of the rows.
        attempts: another folder on the same disk for incomplete files; a killed attempt leaves its files there.
    """
    # take() builds new buffers, so that the bytes do not depend on how the rows were split into batches.
    whole = pa.Table.from_batches(batches, schema).combine_chunks()
    (batch,) = whole.take(pa.array(np.arange(whole.num_rows))).to_batches()
    del whole
    data = to_ipc(batch)
    tokens = len(batch.column("input_ids").flatten())
    for file, content in ((checksum_file(name), block_checksums(data)), (name, data)):
        path = folder / file
        side = attempts / output_folder.temporary_sibling(path).name
        output_folder.write_bytes(side, content)
        side.replace(path)
    return ShardEntry(name, batch.num_rows, tokens, data.size, hashlib.sha256(data).hexdigest())


def to_ipc(batch: pa.RecordBatch) -> pa.Buffer:
    """A record batch as an uncompressed Arrow file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=None)) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def block_checksums(data: Any) -> npt.NDArray[np.uint32]:
    """CRC-32 of each block of 64 KiB of a buffer, by which `verify` finds damaged rows; uint32 [blocks]."""
    view = memoryview(data).cast("B")
    blocks = (zlib.crc32(view[first : first + BLOCK_BYTES]) for first in range(0, len(view), BLOCK_BYTES))
    return np.fromiter(blocks, dtype=np.uint32)

"""Writing shards: rows as one record batch, written under a name of its own, checksummed, renamed to its place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from bert_tweets.common import output_folder

from .checksums import block_checksums, checksum_file
from .manifest import ShardEntry
from .reader import Tweets


def to_batch(tweets: Tweets, known: Mapping[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Tokens and what is known of each tweet as rows.

    Args:
        tweets: the tokens.
        known: the other columns by name, each [tweets]; one that is not there is null.
        schema: the columns of the result, `input_ids` and `word_starts` among them.
    """
    offsets = pa.array(np.concatenate([[0], np.cumsum(tweets.lengths)]), pa.int32())
    ids, starts = schema.field("input_ids").type, schema.field("word_starts").type
    columns = {
        "input_ids": pa.ListArray.from_arrays(
            offsets, pa.array(tweets.input_ids.astype(ids.value_type.to_pandas_dtype())), type=ids
        ),
        "word_starts": pa.ListArray.from_arrays(offsets, pa.array(tweets.word_starts), type=starts),
        **known,
    }
    nothing = len(tweets.lengths)
    return pa.RecordBatch.from_arrays(
        [columns[field.name] if field.name in columns else pa.nulls(nothing, field.type) for field in schema],
        schema=schema,
    )


def write_shard(
    folder: Path, name: str, batches: Sequence[pa.RecordBatch], schema: pa.Schema, attempts: Path
) -> ShardEntry:
    """Writes one shard and the checksums of its blocks.

    Written twice, even at the same time, it ends as the same bytes: each attempt has names of its own.

    Args:
        folder: of all shards.
        name: of this one below the folder, such as `train/00000.arrow`.
        batches: its rows; how they are cut does not show.
        schema: of the rows.
        attempts: another folder of the same disk, for what is not whole yet: a kill leaves it there.
    """
    # take() builds every buffer anew: the bytes do not tell how the rows came, in one piece or in several.
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

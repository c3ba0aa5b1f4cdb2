"""Assemble shards: take the kept rows out of their units."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common import output_folder
from bert_tweets.common.arrays import Ints
from bert_tweets.common.json_records import parse_record
from bert_tweets.corpus.dedup.clustering import CLUSTER
from bert_tweets.corpus.shards.manifest import ShardEntry
from bert_tweets.corpus.shards.reader import shard_schema
from bert_tweets.corpus.shards.writer import write_shard
from bert_tweets.corpus.sources.schema import Columns

from .selection import Piece, ShardPlan, fate_file
from .worker import ROWS, unit_folder


@dataclass(frozen=True)
class ShardJob:
    """What all shards have in common: folders of units, fates, entries of finished shards, and shards; columns."""

    units: Path
    selection: Path
    entries: Path
    shards: Path
    columns: Columns
    vocabulary_size: int


def assemble(job: ShardJob, plan: ShardPlan) -> ShardEntry:
    """Write a shard, unless it is already written. May run twice, at the same time too."""
    path = job.entries / f"{plan.file.replace('/', '-')}.json"
    if path.is_file():
        return parse_record(output_folder.from_json(path.read_bytes()), ShardEntry, "the entry")
    schema = shard_schema(job.vocabulary_size, job.columns.groups)
    batches = [_rows(job, piece, plan.fate, schema) for piece in plan.pieces]
    entry = write_shard(job.shards, plan.file, batches, schema, attempts=job.entries)
    side = output_folder.temporary_sibling(path)
    output_folder.write_bytes(side, output_folder.to_json(asdict(entry)))
    side.replace(path)
    return entry


def _rows(job: ShardJob, piece: Piece, fate: int, schema: pa.Schema) -> pa.RecordBatch:
    fates = np.fromfile(fate_file(job.selection, piece.unit), np.uint8)
    kept = np.flatnonzero(fates == fate)[piece.skip : piece.skip + piece.take]
    with pa.memory_map(str(unit_folder(job.units, piece.unit) / ROWS)) as source:
        rows = pa.ipc.open_file(source).get_batch(0).take(pa.array(kept))
    clusters = np.fromfile(piece.clusters, CLUSTER)["cluster"][kept]
    numbers = rows.column("number").to_numpy() + piece.first_row + 1
    known = {"id": _ids(rows.column("id"), numbers, job.columns), "cluster": pa.array(clusters)}
    arrays = [known[name] if name in known else rows.column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _ids(ids: pa.Array, numbers: Ints, columns: Columns) -> pa.Array:
    """Ids of the tweets; where one is missing, the number of the row in the whole input, from 1."""
    written = pa.array(numbers).cast(pa.string())
    if columns.id is None:
        return written
    # A number alone could be mistaken for another row's id.
    unnamed = pc.binary_join_element_wise("row", written, " ")
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(ids), ""), unnamed, ids)

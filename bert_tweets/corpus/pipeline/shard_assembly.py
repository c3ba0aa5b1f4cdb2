"""Assembly: the rows that stay, out of their units and into a shard."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common import output_folder
from bert_tweets.corpus.dedup.clustering import CLUSTER
from bert_tweets.corpus.shards.manifest import ShardEntry
from bert_tweets.corpus.shards.reader import shard_schema
from bert_tweets.corpus.shards.writer import write_shard

from .selection import Piece, ShardPlan, fate_file
from .worker import ROWS, Job


def assemble(job: Job, plan: ShardPlan, selection: Path, notes: Path, folder: Path) -> ShardEntry:
    """Writes a shard, or finds that it is written already; may run twice, at the same time too.

    Args:
        job: of the units.
        plan: the shard's rows.
        selection: folder that has the fates.
        notes: folder that takes a note of each shard that is whole.
        folder: of the shards.
    """
    note = notes / f"{plan.name.replace('/', '-')}.json"
    if note.is_file():
        return ShardEntry(**json.loads(note.read_bytes()))
    columns = shard_schema(job.vocabulary_size, job.columns.groups)
    batches = [_rows(job, piece, plan.fate, selection, columns) for piece in plan.pieces]
    entry = write_shard(folder, plan.name, batches, columns, attempts=notes)
    side = output_folder.temporary_sibling(note)
    output_folder.write_bytes(side, output_folder.to_json(asdict(entry)))
    side.replace(note)
    return entry


def _rows(job: Job, piece: Piece, fate: int, selection: Path, columns: pa.Schema) -> pa.RecordBatch:
    fates = np.fromfile(fate_file(selection, piece.unit), np.uint8)
    chosen = np.flatnonzero(fates == fate)[piece.skip : piece.skip + piece.take]
    with pa.memory_map(str(job.place(piece.unit) / ROWS)) as source:
        rows = pa.ipc.open_file(source).get_batch(0).take(pa.array(chosen))
    clusters = np.fromfile(piece.clusters, CLUSTER)["cluster"][chosen]
    known = {
        "id": _ids(rows.column("id"), rows.column("number").to_numpy() + piece.first_row + 1, job),
        "cluster": pa.array(clusters),
    }
    arrays = [known[name] if name in known else rows.column(name) for name in columns.names]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _ids(ids: pa.Array, numbers: npt.NDArray[np.int64], job: Job) -> pa.Array:
    """The tweets' own ids; where there is none, the number of the row in the whole input, from 1."""
    written = pa.array(numbers).cast(pa.string())
    if job.columns.id is None:
        return written
    # A number alone could be mistaken for another row's id.
    unnamed = pc.binary_join_element_wise("row", written, " ")
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(ids), ""), unnamed, ids)

"""Shards: Arrow IPC files opened by mmap, read without copies, gathered without a loop a tweet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import UserError
from .manifest import Manifest, ShardEntry

Ints = npt.NDArray[np.int64]


def schema(vocabulary_size: int) -> pa.Schema:
    """The columns of a shard; ids are uint16 while the vocabulary allows."""
    ids = pa.uint16() if vocabulary_size <= 2**16 - 1 else pa.uint32()
    return pa.schema(
        [
            pa.field("input_ids", pa.list_(pa.field("item", ids, nullable=False)), nullable=False),
            # One bit a token: the first token of a word (each special token is a word of its own).
            pa.field("word_starts", pa.list_(pa.field("item", pa.bool_(), nullable=False)), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("time", pa.timestamp("s", tz="UTC")),
            pa.field("author", pa.string()),
            pa.field("text", pa.string(), nullable=False),
        ]
    )


@dataclass(frozen=True)
class Tweets:
    """Tokens of some tweets, one after the other.

    Attributes:
        lengths: int64 [tweets], tokens of each.
        input_ids: int32 [tokens].
        word_starts: bool [tokens].
    """

    lengths: Ints
    input_ids: npt.NDArray[np.int32]
    word_starts: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _OpenShard:
    batch: pa.RecordBatch
    offsets: npt.NDArray[np.int32]
    input_ids: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    word_start_bytes: npt.NDArray[np.uint8]


class Split:
    """The tweets of one split, by tweet index (0 … rows − 1 through its shards in order).

    Shards are opened when first touched; opening costs no heap.
    """

    def __init__(self, folder: str | Path, shards: list[ShardEntry], vocabulary_size: int):
        self.folder = Path(folder)
        self.shards = shards
        self._schema = schema(vocabulary_size)
        self._vocabulary_size = vocabulary_size
        self._ends = np.cumsum([shard.rows for shard in shards], dtype=np.int64)
        self._open: dict[int, _OpenShard] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def batch(self, shard: int) -> pa.RecordBatch:
        """A shard's columns, memory-mapped."""
        return self._opened(shard).batch

    def first_row(self, shard: int) -> int:
        """The tweet index of a shard's first row."""
        return int(self._ends[shard]) - self.shards[shard].rows

    def shard_of(self, indices: Ints) -> Ints:
        """The shard of each tweet; int64 [tweets]."""
        return np.searchsorted(self._ends, indices, side="right")

    def lengths(self, shard: int) -> Ints:
        """Tokens of each tweet of a shard; int64 [rows]."""
        return np.diff(self._opened(shard).offsets).astype(np.int64)

    def gather(self, indices: Ints) -> Tweets:
        """The tokens of the tweets with these indices, in the order asked for.

        Args:
            indices: int64 [tweets], each in [0, len(self)).
        """
        homes = self.shard_of(indices)
        lengths = np.empty(len(indices), dtype=np.int64)
        found = []
        for home in np.unique(homes):
            shard = self._opened(int(home))
            where = np.flatnonzero(homes == home)
            rows = indices[where] - self.first_row(int(home))
            starts = shard.offsets[rows].astype(np.int64)
            lengths[where] = shard.offsets[rows + 1] - starts
            found.append((shard, where, starts))
        targets = np.cumsum(lengths) - lengths
        input_ids = np.empty(int(lengths.sum()), dtype=np.int32)
        word_starts = np.empty(len(input_ids), dtype=np.bool_)
        for shard, where, starts in found:
            source = ranges(starts, lengths[where])
            target = ranges(targets[where], lengths[where])
            input_ids[target] = shard.input_ids[source]
            word_starts[target] = (shard.word_start_bytes[source >> 3] >> (source & 7).astype(np.uint8)) & 1
        return Tweets(lengths, input_ids, word_starts)

    def _opened(self, index: int) -> _OpenShard:
        if index not in self._open:
            self._open[index] = self._map(self.shards[index])
        return self._open[index]

    def _map(self, entry: ShardEntry) -> _OpenShard:
        path = shard_path(self.folder, entry)
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batch = reader.get_batch(0)
        except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise _damaged(path, str(error)) from None
        if not batch.schema.equals(self._schema) or batch.num_rows != entry.rows or reader.num_record_batches != 1:
            raise _damaged(path, "its columns or rows are not those of the manifest")
        ids, starts = batch.column("input_ids"), batch.column("word_starts")
        offsets = ids.offsets.to_numpy()
        tokens = len(ids.values)
        # Offsets come out of a file: none may point outside of its tokens.
        if offsets[0] != 0 or offsets[-1] != tokens or (np.diff(offsets) < 0).any() or tokens != len(starts.values):
            raise _damaged(path, "its offsets do not fit its tokens")
        ids_flat = ids.values.to_numpy()
        if tokens and ids_flat.max() >= self._vocabulary_size:
            raise _damaged(path, "it holds ids that are not in the vocabulary")
        bits = np.frombuffer(starts.values.buffers()[1], dtype=np.uint8)
        return _OpenShard(batch, offsets, ids_flat, bits)


def open_split(folder: str | Path, manifest: Manifest, split: str) -> Split:
    """One split of a folder of shards."""
    return Split(folder, manifest.splits[split], manifest.vocabulary_size)


def verify(folder: str | Path, shards: Iterable[ShardEntry]) -> None:
    """Compares shards with their size and checksum.

    Raises:
        UserError: names the first file that is missing or damaged.
    """
    for entry in shards:
        path = shard_path(Path(folder), entry)
        if not path.is_file():
            raise _damaged(path, "it is missing")
        if path.stat().st_size != entry.bytes:
            raise _damaged(path, f"it has {path.stat().st_size} bytes instead of {entry.bytes}")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise _damaged(path, "its bytes do not fit their checksum")


def shard_path(folder: Path, entry: ShardEntry) -> Path:
    """Where a shard lies; a manifest may not point out of its own folder."""
    parts = PurePosixPath(entry.file)
    if parts.is_absolute() or ".." in parts.parts:
        raise UserError(f"{folder}: its manifest names '{entry.file}', which is outside of it; prepare again")
    return folder / parts


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """The integers of [start, start + length) for each pair, one after the other; int64 [sum of lengths]."""
    ends = np.cumsum(lengths)
    count = int(ends[-1]) if len(ends) else 0
    inside: Ints = np.arange(count) + np.repeat(starts - (ends - lengths), lengths)
    return inside


def _damaged(path: Path, how: str) -> UserError:
    return UserError(f"{path}: damaged shard: {how}; prepare the tweets again", found_by_one_rank=True)

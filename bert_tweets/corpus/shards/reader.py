"""Read shards: Arrow IPC files, memory-mapped, read without copies, gathered without a loop over tweets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.common.arrays import Bools, Ints, ranges
from bert_tweets.common.errors import UserError

from .manifest import Manifest, ShardEntry, how_to_recreate, read_errors

# Each takes about 2 kB, and one of the 65,530 mappings that Linux allows a process.
_MOST_OPEN = 16_384


def shard_schema(vocabulary_size: int, groups: Sequence[str] = ()) -> pa.Schema:
    """Columns of a shard; ids are uint16 if the vocabulary allows, additional columns are called `group.NAME`."""
    ids = pa.uint16() if vocabulary_size <= 2**16 - 1 else pa.uint32()
    return pa.schema(
        [
            pa.field("input_ids", pa.list_(pa.field("item", ids, nullable=False)), nullable=False),
            # One bit per token: the first token of a word (each special token is a word of its own).
            pa.field("word_starts", pa.list_(pa.field("item", pa.bool_(), nullable=False)), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("time", pa.timestamp("s", tz="UTC")),
            pa.field("author", pa.string()),
            pa.field("language", pa.string()),
            # Null: not a retweet; empty: a retweet of an unknown tweet; else the original's id.
            pa.field("retweet_of", pa.string()),
            # Shared by near-duplicates: the number of the earliest of them.
            pa.field("cluster", pa.int64(), nullable=False),
            *(pa.field(f"group.{name}", pa.string()) for name in groups),
            pa.field("text", pa.string(), nullable=False),
        ]
    )


@dataclass(frozen=True)
class Tweets:
    """Tokens of several tweets, concatenated.

    Attributes:
        lengths: int64 [tweets], number of tokens of each.
        input_ids: int32 [tokens].
        word_starts: bool [tokens], whether a token is the first of a word.
    """

    lengths: Ints
    input_ids: npt.NDArray[np.int32]
    word_starts: Bools

    def take(self, order: Ints) -> Tweets:
        """These tweets in another order, int64 [tweets]."""
        lengths = self.lengths[order]
        tokens = ranges((np.cumsum(self.lengths) - self.lengths)[order], lengths)
        return Tweets(lengths, self.input_ids.take(tokens), self.word_starts.take(tokens))


@dataclass(frozen=True)
class _OpenShard:
    path: Path
    batch: pa.RecordBatch
    offsets: npt.NDArray[np.int32]
    input_ids: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    word_start_bytes: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Places:
    """Places of tweets that are ordered by shard; all int64.

    Attributes:
        shards: shards of the tweets.
        bounds: [shards + 1], tweets [bounds[i], bounds[i + 1]) are in shards[i].
        starts, lengths: [tweets], first token within the shard, and number of tokens.
    """

    shards: list[_OpenShard]
    bounds: Ints
    starts: Ints
    lengths: Ints

    def shard_of(self, tweet: int) -> _OpenShard:
        return self.shards[int(np.searchsorted(self.bounds, tweet, side="right")) - 1]


class Split:
    """The tweets of one split, by tweet index (0 … rows − 1 through its shards in order).

    Shards are opened when first used, which takes no heap memory for their rows. The oldest of many is closed.
    """

    def __init__(self, folder: str | Path, shards: list[ShardEntry], vocabulary_size: int, groups: Sequence[str] = ()):
        self.folder = Path(folder)
        self.shards = shards
        self._schema = shard_schema(vocabulary_size, groups)
        self._vocabulary_size = vocabulary_size
        self._ends = np.cumsum([shard.rows for shard in shards], dtype=np.int64)
        self._open: dict[int, _OpenShard] = {}
        self._opening = Lock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def batch(self, shard: int) -> pa.RecordBatch:
        """A shard's columns, memory-mapped."""
        return self._opened(shard).batch

    def first_row(self, shard: int) -> int:
        """Tweet index of a shard's first row."""
        return int(self._ends[shard]) - self.shards[shard].rows

    def shard_of(self, indices: Ints) -> Ints:
        """Shard of each tweet; int64 [tweets]."""
        return np.searchsorted(self._ends, indices, side="right")

    def lengths(self, shard: int) -> Ints:
        """Length in tokens of each tweet of a shard; int64 [rows]."""
        return np.diff(self._opened(shard).offsets).astype(np.int64)

    def lengths_of(self, indices: Ints) -> Ints:
        """Lengths in tokens of the tweets with these indices, int64 of any shape; reads no tokens."""
        flat = indices.ravel()
        homes = self.shard_of(flat)
        # 16-bit integers are sorted by counting.
        order = np.argsort(homes.astype(np.uint16) if len(self.shards) < 2**16 else homes, kind="stable")
        lengths = np.empty_like(flat)
        lengths[order] = self._locate(flat[order], homes[order]).lengths
        return lengths.reshape(indices.shape)

    def gather(self, indices: Ints) -> Tweets:
        """Tokens of the tweets with these indices, int64 [tweets], in their order.

        Each shard is read once, in ascending order: ascending indices are cheapest.
        """
        if (indices[1:] >= indices[:-1]).all():
            return self._read(self._locate(indices, self.shard_of(indices)))
        order = np.argsort(indices)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return self.gather(indices[order]).take(back)

    def texts(self, indices: Ints) -> list[str]:
        """Texts of the tweets with these indices, int64 [tweets], in their order; loops over the tweets."""
        found = []
        for index, home in zip(indices.tolist(), self.shard_of(indices).tolist(), strict=True):
            shard = self._opened(home)
            text = shard.batch.column("text").slice(index - self.first_row(home), 1)
            try:
                # Offsets come from the file: one that points outside it would crash the process.
                text.validate(full=True)
            except pa.ArrowInvalid:
                raise _damaged(shard.path, f"the text of row {text.offset} is not valid") from None
            found += text.to_pylist()
        return found

    def column(self, name: str, indices: Ints) -> list[Any]:
        """Values of a column for the tweets with these indices, int64 [tweets], in their order."""
        homes = self.shard_of(indices)
        found: list[Any] = [None] * len(indices)
        for home in np.unique(homes).tolist():
            places = np.flatnonzero(homes == home)
            values = self.batch(home).column(name).take(pa.array(indices[places] - self.first_row(home)))
            for place, value in zip(places.tolist(), values.to_pylist(), strict=True):
                found[place] = value
        return found

    def _locate(self, indices: Ints, homes: Ints) -> _Places:
        """Look up tweets; `homes`, their shards, are ascending."""
        firsts = np.flatnonzero(np.diff(homes, prepend=-1))
        shards = [self._opened(home) for home in homes[firsts].tolist()]
        bounds = np.append(firsts, len(indices))
        starts, ends = np.empty_like(indices), np.empty_like(indices)
        inside = indices - np.append(0, self._ends)[homes]
        for shard, first, last in zip(shards, bounds.tolist(), bounds[1:].tolist(), strict=False):
            rows = inside[first:last]
            starts[first:last] = shard.offsets.take(rows)
            ends[first:last] = shard.offsets.take(rows + 1)
        places = _Places(shards, bounds, starts, ends - starts)
        # Offsets come from the file: none may point outside its tokens.
        tokens = np.repeat(np.array([len(shard.input_ids) for shard in shards], np.int64), np.diff(bounds))
        wrong = np.flatnonzero((starts < 0) | (ends < starts) | (ends > tokens))
        if len(wrong):
            raise _damaged(places.shard_of(wrong[0]).path, "its offsets do not match its tokens")
        return places

    def _read(self, places: _Places) -> Tweets:
        source = ranges(places.starts, places.lengths)
        token_ends = np.cumsum(places.lengths)
        input_ids = np.empty(len(source), dtype=np.uint32)
        starts = np.empty(len(source), dtype=np.uint8)
        bounds = np.append(0, token_ends)[places.bounds].tolist()
        for shard, first, last in zip(places.shards, bounds, bounds[1:], strict=False):
            input_ids[first:last] = shard.input_ids.take(source[first:last])
            starts[first:last] = shard.word_start_bytes.take(source[first:last] >> 3)
        if len(input_ids) and input_ids.max() >= self._vocabulary_size:
            tweet = int(np.searchsorted(token_ends, input_ids.argmax(), side="right"))
            raise _damaged(places.shard_of(tweet).path, "it contains ids that are not in the vocabulary")
        starts >>= source.astype(np.uint8) & 7
        starts &= 1
        return Tweets(places.lengths, input_ids.view(np.int32), starts.view(np.bool_))

    def _opened(self, index: int) -> _OpenShard:
        shard = self._open.get(index)
        if shard is None:
            with self._opening:
                if len(self._open) >= _MOST_OPEN:
                    del self._open[next(iter(self._open))]
                shard = self._open[index] = self._map(self.shards[index])
        return shard

    def _map(self, entry: ShardEntry) -> _OpenShard:
        path = shard_path(self.folder, entry)
        try:
            # The columns keep the mapping, which needs no open file, so many shards do not exhaust file handles.
            with read_errors(path), pa.memory_map(str(path)) as file:
                batch = shard_columns(file, self._schema, entry.rows)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, " ".join(str(error).split())) from None
        ids, starts = batch.column("input_ids"), batch.column("word_starts")
        offsets = ids.offsets.to_numpy()
        tokens = len(ids.values)
        # The other offsets are checked when they are read, so that opening costs the same for shards of any size.
        if offsets[0] != 0 or offsets[-1] != tokens or tokens != len(starts.values):
            raise _damaged(path, "its offsets do not match its tokens")
        bits = np.frombuffer(starts.values.buffers()[1], dtype=np.uint8)
        return _OpenShard(path, batch, offsets, ids.values.to_numpy(), bits)


def open_split(folder: str | Path, manifest: Manifest, split: str) -> Split:
    """Open one split of a folder of shards."""
    return Split(folder, manifest.splits[split], manifest.vocabulary_size, manifest.groups)


def shard_columns(source: Any, schema: pa.Schema, rows: int) -> pa.RecordBatch:
    """Read the columns of a shard, without copying.

    Lengths in the header are checked; offsets and values are not.

    Args:
        source: Arrow file or buffer reader.
        schema, rows: columns and number of rows that the shard must have.

    Raises:
        pa.ArrowException, OSError: it has others, or its header promises more than there is.
    """
    reader = pa.ipc.open_file(source)
    if reader.num_record_batches != 1 or not reader.schema.equals(schema):
        raise pa.ArrowInvalid("its columns are not those of the manifest")
    batch = reader.get_batch(0)
    if batch.num_rows != rows:
        raise pa.ArrowInvalid("its rows are not those of the manifest")
    # Checks only lengths, so that it costs the same for shards of any size: reading beyond a buffer is a crash.
    batch.validate()
    lists = [batch.column(name) for name in ("input_ids", "word_starts")]
    if any(part.null_count for column in lists for part in (column, column.values)):
        raise pa.ArrowInvalid("a token or a tweet is missing")
    return batch


def verify(folder: str | Path, shards: Iterable[ShardEntry]) -> None:
    """Compare shards with their size and checksum; UserError names the first file that is missing or damaged."""
    for entry in shards:
        path = shard_path(Path(folder), entry)
        if not path.is_file():
            raise _damaged(path, "it is missing")
        if path.stat().st_size != entry.bytes:
            raise _damaged(path, f"it has {path.stat().st_size} bytes instead of {entry.bytes}")
        with read_errors(path), path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise _damaged(path, "its bytes do not match their checksum")


class ShardWatcher:
    """Watch shards that must not change while they are read."""

    def __init__(self, folder: str | Path, shards: Sequence[ShardEntry]):
        self.folder = Path(folder)
        self._marks = {entry: self._mark(entry) for entry in shards}

    def require(self) -> None:
        """Verify the shards whose file status has changed; UserError names the first one that differs."""
        for entry, mark in self._marks.items():
            now = self._mark(entry)
            if now != mark:
                verify(self.folder, [entry])
                self._marks[entry] = now

    def _mark(self, entry: ShardEntry) -> tuple[int, int, int] | None:
        try:
            status = shard_path(self.folder, entry).stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def shard_path(folder: Path, entry: ShardEntry) -> Path:
    """Path of a shard, which must be a file in its own folder; UserError if it is a link."""
    path = folder / entry.file
    if path.is_symlink() or path.parent.is_symlink():
        raise UserError(f"{path}: is a link, but a shard must be a file in its own folder; put the file there")
    return path


def _damaged(path: Path, how: str) -> UserError:
    # A shard is in the folder of its split, below the folder of the shards.
    return UserError(f"{path}: damaged shard: {how}; {how_to_recreate(path.parent.parent)}", found_by_one_rank=True)

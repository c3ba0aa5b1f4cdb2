"""Verify every byte of a folder of shards, and report damage by file and rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from bert_tweets.common.arrays import Ints
from bert_tweets.common.errors import UserError
from bert_tweets.common.output_folder import MARKER, from_json
from bert_tweets.corpus.text.tokenizer import fingerprint, ids_of, load_tokenizer

from .funnel import Funnel
from .manifest import (
    FUNNEL_FILE,
    MANIFEST_FILE,
    RECORD_FILE,
    SPLITS,
    TOKENIZER_FOLDER,
    Manifest,
    ShardEntry,
    checksum_file,
    damaged_tokenizer_files,
    read_errors,
)
from .reader import shard_columns, shard_path, shard_schema
from .writer import BLOCK_BYTES, block_checksums

Span = tuple[int, int]


@dataclass(frozen=True)
class Damage:
    """Something that is not as prepare wrote it.

    Attributes:
        file: path below the folder.
        what: description of the damage.
        rows: first and last row in the file that may be affected; None: the whole file.
        foreign: the file was not written by prepare, and its own files are not affected.
    """

    file: str
    what: str
    rows: Span | None = None
    foreign: bool = False

    def __str__(self) -> str:
        if self.rows is None:
            return f"{self.file}: {self.what}"
        first, last = self.rows
        where = f"row {first}" if first == last else f"rows {first} to {last}"
        return f"{self.file}: {where}: {self.what}"


def damages(folder: Path, manifest: Manifest, advance: Callable[[int], None] = lambda _: None) -> Iterator[Damage]:
    """Find all damage in a folder of shards; `advance` is called with the number of bytes that were read."""
    yield from _foreign_files(folder, manifest)
    yield from _record_damages(folder, manifest)
    yield from _tokenizer_damages(folder, manifest)
    tallies = {split: _Tally(np.zeros(manifest.max_length + 1, np.int64)) for split in SPLITS}
    is_whole = True
    for split in SPLITS:
        for entry in manifest.splits[split]:
            for damage in _shard_damages(folder, entry, manifest, tallies[split]):
                is_whole = False
                yield damage
            advance(entry.bytes)
    if is_whole:
        yield from _wrong_counts(tallies, manifest)


@dataclass
class _Tally:
    """Counts over the shards of a split; entry n of `lengths` counts the tweets of n tokens."""

    lengths: Ints
    unknown_tokens: int = 0

    def add(self, batch: pa.RecordBatch, unknown_id: int) -> None:
        """Count the rows of a shard whose offsets and ids are within bounds."""
        tokens = batch.column("input_ids")
        self.lengths += np.bincount(np.diff(tokens.offsets.to_numpy()), minlength=len(self.lengths))
        self.unknown_tokens += int(np.count_nonzero(tokens.values.to_numpy() == unknown_id))


def _wrong_counts(tallies: dict[str, _Tally], manifest: Manifest) -> Iterator[Damage]:
    for split, tally in tallies.items():
        if tally.lengths.tolist() != manifest.lengths[split]:
            yield Damage(MANIFEST_FILE, f"its lengths of {split} do not match the shards")
    unknown = sum(tally.unknown_tokens for tally in tallies.values())
    if unknown != manifest.unknown_tokens:
        yield Damage(MANIFEST_FILE, f"counts {manifest.unknown_tokens:,} [UNK] tokens, but the shards have {unknown:,}")


def _foreign_files(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    shards = {entry.file for split in SPLITS for entry in manifest.splits[split]}
    known = {MANIFEST_FILE, FUNNEL_FILE, RECORD_FILE, TOKENIZER_FOLDER, MARKER, *SPLITS}
    known |= shards | set(map(checksum_file, shards))
    known |= {f"{TOKENIZER_FOLDER}/{name}" for name in manifest.tokenizer_files}
    places = (folder, *(folder / name for name in (*SPLITS, TOKENIZER_FOLDER)))
    for path in sorted(chain.from_iterable(place.glob("*") for place in places)):
        file = path.relative_to(folder).as_posix()
        if file not in known:
            yield Damage(file, "does not belong to these shards; move it away", foreign=True)


def _record_damages(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    """Check the files that describe how the shards were made."""
    try:
        funnel = Funnel.from_file(folder / FUNNEL_FILE)
        matches = (funnel.recipe, funnel.lengths) == (manifest.recipe.hash, manifest.lengths)
    except UserError:
        matches = False
    if not matches:
        yield Damage(FUNNEL_FILE, "does not belong to these shards")
    try:
        matches = from_json((folder / RECORD_FILE).read_bytes())["settings"] == manifest.settings
    except (OSError, ValueError, KeyError, TypeError):
        matches = False
    if not matches:
        yield Damage(RECORD_FILE, "does not contain the settings of the manifest")


def _tokenizer_damages(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    try:
        tokenizer = load_tokenizer(str(folder / TOKENIZER_FOLDER), local_only=True)
    except UserError:
        tokenizer = None
    if tokenizer is None or fingerprint(tokenizer) != manifest.recipe.tokenizer:
        yield Damage(TOKENIZER_FOLDER, "is not the tokenizer of the manifest")
        return
    if any(getattr(manifest, name) != value for name, value in ids_of(tokenizer).items()):
        yield Damage(MANIFEST_FILE, "its ids are not those of the tokenizer")
    for file in damaged_tokenizer_files(folder, manifest):
        yield Damage(file, "is missing or has changed")


def _shard_damages(folder: Path, entry: ShardEntry, manifest: Manifest, tally: _Tally) -> Iterator[Damage]:
    path, checksums = shard_path(folder, entry), folder / checksum_file(entry.file)
    if not checksums.is_file():
        yield Damage(checksum_file(entry.file), "is missing")
    if not path.is_file():
        yield Damage(entry.file, "is missing")
        return
    if path.stat().st_size != entry.bytes:
        yield Damage(entry.file, f"has {path.stat().st_size:,} bytes instead of {entry.bytes:,}")
        return
    with read_errors(path):
        whole = pa.memory_map(str(path)).read_buffer()
    broken = hashlib.sha256(whole).hexdigest() != entry.sha256
    try:
        batch = shard_columns(
            pa.BufferReader(whole), shard_schema(manifest.vocabulary_size, manifest.groups), entry.rows
        )
    except (OSError, pa.ArrowException):
        yield Damage(entry.file, "its header does not have the columns and rows of the manifest")
        return
    found = list(_content_damages(entry, batch, manifest))
    if broken and not found:
        found = list(_byte_damages(folder, entry, whole, batch))
    yield from found
    if not found:
        tally.add(batch, manifest.unknown_id)
    if not broken and checksums.is_file() and checksums.read_bytes() != block_checksums(whole).tobytes():
        yield Damage(checksum_file(entry.file), "does not belong to its shard")


def _content_damages(entry: ShardEntry, batch: pa.RecordBatch, manifest: Manifest) -> Iterator[Damage]:
    """Check the columns themselves, before anything is read through their offsets."""
    for name in ("input_ids", "word_starts", "id", "author", "text"):
        column = batch.column(name)
        offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1)
        limit = len(column.values) if name in ("input_ids", "word_starts") else column.buffers()[2].size
        wrong = np.flatnonzero((np.diff(offsets) < 0) | (offsets[:-1] < 0) | (offsets[1:] > limit))
        if len(wrong):
            yield Damage(entry.file, f"the offsets of {name} are out of order", _span(wrong))
            return
    offsets = batch.column("input_ids").offsets.to_numpy()
    lengths, ids = np.diff(offsets), batch.column("input_ids").values.to_numpy()
    unequal = np.flatnonzero(lengths != np.diff(batch.column("word_starts").offsets.to_numpy()))
    if len(unequal):
        yield Damage(entry.file, "the numbers of word starts and tokens differ", _span(unequal))
    long = np.flatnonzero(lengths > manifest.max_length)
    if len(long):
        yield Damage(entry.file, f"is longer than {manifest.max_length} tokens", _span(long))
    beyond = np.flatnonzero(ids >= manifest.vocabulary_size)
    if len(beyond):
        rows = np.searchsorted(offsets, beyond, side="right") - 1
        yield Damage(entry.file, "contains an id that is not in the vocabulary", _span(rows))
    if len(ids) != entry.tokens:
        yield Damage(entry.file, f"has {len(ids):,} tokens instead of {entry.tokens:,}")
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        yield Damage(entry.file, f"is not valid ({error})")


def _byte_damages(folder: Path, entry: ShardEntry, whole: pa.Buffer, batch: pa.RecordBatch) -> Iterator[Damage]:
    """Find the blocks of bytes that differ from those that were written, and their rows."""
    saved = folder / checksum_file(entry.file)
    expected = np.fromfile(saved, np.uint32) if saved.is_file() else np.empty(0, np.uint32)
    found = block_checksums(whole)
    if len(expected) != len(found) or (expected == found).all():
        yield Damage(entry.file, "its bytes do not match their checksum")
        return
    for block in np.flatnonzero(expected != found).tolist():
        rows = _rows_of_bytes(batch, whole.address, (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES))
        yield Damage(entry.file, "bytes of these rows do not match their checksum", rows)


def _rows_of_bytes(batch: pa.RecordBatch, start: int, span: Span) -> Span | None:
    """First and last row with a byte in a span [first, last) of the file that is mapped to memory address `start`.

    None if the span is padding or header.
    """
    rows: list[int] = []
    for column in batch.columns:
        count = len(column)
        offsets = None
        for number, buffer in enumerate(column.buffers()):
            if buffer is None or not buffer.size:
                continue
            first, last = (max(0, min(edge - (buffer.address - start), buffer.size)) for edge in span)
            if number == 1 and pa.types.is_nested(column.type) | pa.types.is_string(column.type):
                offsets = np.frombuffer(buffer, np.int32, count + 1)
            if first >= last:
                continue
            size = buffer.size
            if number >= 2 and offsets is not None:
                # A buffer of values that the offsets point into: its bytes are proportional to its items.
                items = int(offsets[-1])
                edges = [first * items // size, -(-(last - 1) * items // size)]
                rows += np.clip(np.searchsorted(offsets, edges, side="right") - 1, 0, count - 1).tolist()
            elif offsets is not None or number == 1:
                width = 4 if offsets is not None else 8
                rows += [min(first // width, count - 1), min((last - 1) // width, count - 1)]
            else:
                rows += [min(first * 8, count - 1), min(last * 8 - 1, count - 1)]
    return (min(rows), max(rows)) if rows else None


def _span(rows: Ints) -> Span:
    return int(rows[0]), int(rows[-1])

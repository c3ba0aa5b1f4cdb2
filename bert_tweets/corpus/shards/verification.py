"""Verification: every byte of a folder of shards, and what is damaged by file and row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.common.errors import UserError
from bert_tweets.common.output_folder import MARKER, from_json
from bert_tweets.corpus.text.tokenizer import BatchTokenizer, fingerprint, ids_of, load_tokenizer

from .checksums import BLOCK_BYTES, block_checksums, checksum_file
from .funnel import Funnel
from .manifest import (
    FILE,
    FUNNEL_FILE,
    RECORD_FILE,
    SPLITS,
    TOKENIZER_FOLDER,
    Manifest,
    ShardEntry,
    damaged_tokenizer_files,
    read_errors,
)
from .reader import shard_columns, shard_path, shard_schema

Ints = npt.NDArray[np.int64]
Span = tuple[int, int]

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Damage:
    """Something that is not as prepare left it.

    Attributes:
        file: path below the folder.
        what: is wrong with it.
        rows: first and last row (within the file) that may be touched; None where it is the whole file.
        foreign: prepare did not write the file; its own are none the worse for it.
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
    """Everything that is wrong with a folder of shards.

    Args:
        folder: of the shards.
        manifest: theirs.
        advance: is told of bytes as they are read.
    """
    yield from _strangers(folder, manifest)
    yield from _record_damages(folder, manifest)
    tokenizer = _tokenizer(folder, manifest)
    encoder = tokenizer and BatchTokenizer(tokenizer, manifest.max_length)
    if tokenizer is None:
        yield Damage(TOKENIZER_FOLDER, "is not the tokenizer that the manifest names")
    else:
        if any(getattr(manifest, name) != value for name, value in ids_of(tokenizer).items()):
            yield Damage(FILE, "its ids are not those of the tokenizer")
        for file in damaged_tokenizer_files(folder, manifest):
            yield Damage(file, "is missing, or is not as it was written")
    tallies, is_whole = {split: _Tally.of(manifest) for split in SPLITS}, True
    for split in SPLITS:
        for entry in manifest.splits[split]:
            for damage in _shard_damages(folder, entry, manifest, encoder, tallies[split]):
                is_whole = False
                yield damage
            advance(entry.bytes)
    if is_whole:
        yield from _miscounts(tallies, manifest)


@dataclass
class _Tally:
    """What the shards of a split hold.

    Attributes:
        lengths: int64 [max_length + 1], entry n counts the tweets of n tokens.
        unknown_tokens: [UNK]s.
    """

    lengths: Ints
    unknown_tokens: int = 0

    @staticmethod
    def of(manifest: Manifest) -> _Tally:
        return _Tally(np.zeros(manifest.max_length + 1, np.int64))

    def add(self, batch: pa.RecordBatch, unknown_id: int) -> None:
        """Counts the rows of a shard whose offsets and ids are in bounds."""
        tokens = batch.column("input_ids")
        self.lengths += np.bincount(np.diff(tokens.offsets.to_numpy()), minlength=len(self.lengths))
        self.unknown_tokens += int(np.count_nonzero(tokens.values.to_numpy() == unknown_id))


def _miscounts(tallies: dict[str, _Tally], manifest: Manifest) -> Iterator[Damage]:
    for split, tally in tallies.items():
        if tally.lengths.tolist() != manifest.lengths[split]:
            yield Damage(FILE, f"its lengths of {split} are not those of the shards")
    unknown = sum(tally.unknown_tokens for tally in tallies.values())
    if unknown != manifest.unknown_tokens:
        yield Damage(FILE, f"counts {manifest.unknown_tokens:,} [UNK] tokens, and the shards hold {unknown:,}")


def _strangers(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    shards = {entry.file for split in SPLITS for entry in manifest.splits[split]}
    known = {*shards, *map(checksum_file, shards), FILE, FUNNEL_FILE, RECORD_FILE, TOKENIZER_FOLDER, *SPLITS, MARKER}
    known |= {f"{TOKENIZER_FOLDER}/{name}" for name in manifest.tokenizer_files}
    places = (folder, *(folder / name for name in (*SPLITS, TOKENIZER_FOLDER)))
    for path in sorted(chain.from_iterable(place.glob("*") for place in places)):
        file = path.relative_to(folder).as_posix()
        if file not in known:
            yield Damage(file, "is no file of these shards; move it away", foreign=True)


def _record_damages(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    """What is wrong with the files that tell how the shards were made."""
    try:
        funnel = Funnel.from_file(folder / FUNNEL_FILE)
        same = (funnel.recipe, funnel.lengths) == (manifest.recipe.hash, manifest.lengths)
    except UserError:
        same = False
    if not same:
        yield Damage(FUNNEL_FILE, "is not the funnel of these shards")
    try:
        same = from_json((folder / RECORD_FILE).read_bytes())["settings"] == manifest.settings
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        yield Damage(RECORD_FILE, "does not hold the settings of the manifest")


def _tokenizer(folder: Path, manifest: Manifest) -> Any:
    """The tokenizer of the shards; None where it is another one, or none."""
    try:
        tokenizer = load_tokenizer(str(folder / TOKENIZER_FOLDER), local_only=True)
    except UserError:
        return None
    return tokenizer if fingerprint(tokenizer) == manifest.recipe.tokenizer else None


def _shard_damages(
    folder: Path, entry: ShardEntry, manifest: Manifest, encoder: BatchTokenizer | None, tally: _Tally
) -> Iterator[Damage]:
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
        yield Damage(entry.file, "its header does not name the columns and rows of the manifest")
        return
    inside = list(_content_damages(entry, batch, manifest))
    if broken and not inside:
        inside = list(_byte_damages(folder, entry, whole, batch, encoder))
    yield from inside
    if not inside:
        tally.add(batch, manifest.unknown_id)
    if not broken and checksums.is_file() and checksums.read_bytes() != block_checksums(whole).tobytes():
        yield Damage(checksum_file(entry.file), "is not of its shard")


def _content_damages(entry: ShardEntry, batch: pa.RecordBatch, manifest: Manifest) -> Iterator[Damage]:
    """What the columns themselves show, before anything is read through their offsets."""
    for name in ("input_ids", "word_starts", "id", "author", "text"):
        column = batch.column(name)
        offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1)
        limit = len(column.values) if name in ("input_ids", "word_starts") else column.buffers()[2].size
        wrong = np.flatnonzero((np.diff(offsets) < 0) | (offsets[:-1] < 0) | (offsets[1:] > limit))
        if len(wrong):
            yield Damage(entry.file, f"the offsets of {name} are out of order", _span(wrong))
            return
    lengths = np.diff(batch.column("input_ids").offsets.to_numpy())
    odd = np.flatnonzero(lengths != np.diff(batch.column("word_starts").offsets.to_numpy()))
    if len(odd):
        yield Damage(entry.file, "word starts and tokens are not as many", _span(odd))
    long = np.flatnonzero(lengths > manifest.max_length)
    if len(long):
        yield Damage(entry.file, f"is longer than {manifest.max_length} tokens", _span(long))
    ids = batch.column("input_ids").values.to_numpy()
    beyond = np.flatnonzero(ids >= manifest.vocabulary_size)
    if len(beyond):
        yield Damage(
            entry.file, "holds an id that is not in the vocabulary", _span(_rows_of(batch, "input_ids", beyond))
        )
    if len(ids) != entry.tokens:
        yield Damage(entry.file, f"has {len(ids):,} tokens instead of {entry.tokens:,}")
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        yield Damage(entry.file, f"is not valid ({error})")


def _byte_damages(
    folder: Path, entry: ShardEntry, whole: pa.Buffer, batch: pa.RecordBatch, encoder: BatchTokenizer | None
) -> Iterator[Damage]:
    """Where the bytes differ from those that were written: by block, and by row where text and tokens disagree."""
    saved = folder / checksum_file(entry.file)
    expected = np.fromfile(saved, np.uint32) if saved.is_file() else np.empty(0, np.uint32)
    found = block_checksums(whole)
    if len(expected) != len(found) or (expected == found).all():
        yield Damage(entry.file, "its bytes do not fit their checksum")
        return
    for block in np.flatnonzero(expected != found).tolist():
        rows = _rows_of_bytes(batch, whole.address, (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES))
        exact = _rows_that_disagree(batch, rows, encoder) if rows and encoder else np.empty(0, np.int64)
        if len(exact):
            yield Damage(entry.file, "text and tokens are not of each other", _span(exact))
        else:
            yield Damage(entry.file, "bytes of these rows do not fit their checksum", rows)


def _rows_of_bytes(batch: pa.RecordBatch, start: int, span: Span) -> Span | None:
    """First and last row that have a byte in a span of the file, None where it is padding or header."""
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
                # Values behind offsets: the bytes' share of them tells the place.
                items = int(offsets[-1])
                edges = [first * items // size, -(-(last - 1) * items // size)]
                rows += np.clip(np.searchsorted(offsets, edges, side="right") - 1, 0, count - 1).tolist()
            elif offsets is not None or number == 1:
                width = 4 if offsets is not None else 8
                rows += [min(first // width, count - 1), min((last - 1) // width, count - 1)]
            else:
                rows += [min(first * 8, count - 1), min(last * 8 - 1, count - 1)]
    return (min(rows), max(rows)) if rows else None


def _rows_that_disagree(batch: pa.RecordBatch, rows: Span, encoder: BatchTokenizer) -> Ints:
    """Rows whose stored tokens are not those of their stored text."""
    found = []
    for first in range(rows[0], rows[1] + 1, _ROWS_AT_ONCE):
        part = batch.slice(first, min(_ROWS_AT_ONCE, rows[1] + 1 - first))
        encoded = encoder(part.column("text"))
        offsets = part.column("input_ids").offsets.to_numpy()
        stored = part.column("input_ids").values.to_numpy()
        starts = part.column("word_starts").values.to_numpy(zero_copy_only=False)
        ends = np.cumsum(encoded.lengths)
        for row, (end, length) in enumerate(zip(ends.tolist(), encoded.lengths.tolist(), strict=True)):
            kept, fresh = slice(offsets[row], offsets[row + 1]), slice(end - length, end)
            if not (
                np.array_equal(stored[kept], encoded.input_ids[fresh])
                and np.array_equal(starts[kept], encoded.word_starts[fresh])
            ):
                found.append(first + row)
    return np.array(found, dtype=np.int64)


def _rows_of(batch: pa.RecordBatch, name: str, items: Ints) -> Ints:
    offsets = batch.column(name).offsets.to_numpy()
    return np.searchsorted(offsets, items, side="right") - 1


def _span(rows: Ints) -> Span:
    return int(rows[0]), int(rows[-1])

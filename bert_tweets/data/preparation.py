"""Preparation: rows of tweets cleaned, told apart, encoded and written as shards, each dropped row with its reason."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..config import PrepareConfig
from ..errors import UserError
from ..text import cleaning, duplicates, sources, times
from ..text import tokenizer as tokenizers
from ..text.duplicates import Seen
from ..text.recipe import Recipe
from ..text.rows import Columns, Rows
from ..text.tokenizer import Encoded, Encoder
from .funnel import Funnel
from .manifest import SPLITS, Manifest
from .shards import Tweets
from .writer import ShardWriter, to_batch

ENCODED_AT_ONCE = 4096
# More rows than these in another encoding are no accident.
_STRAY_ROWS, _STRAY_SHARE = 20, 0.05


def write_shards(
    config: PrepareConfig,
    paths: list[Path],
    columns: Columns,
    tokenizer: Any,
    folder: Path,
    advance: Callable[[int], None],
) -> tuple[Manifest, Funnel]:
    """Streams all rows into the shards of both splits.

    Args:
        paths, columns: what to read.
        tokenizer: a fast tokenizer of `transformers`.
        folder: takes the shards; the rest is its caller's.
        advance: is told of tweets as they are written.

    Raises:
        UserError: an input cannot be read, or not one tweet is left.
    """
    preset = cleaning.resolve(config.clean, tokenizer)
    recipe = Recipe(preset, cleaning.rules_fingerprint(preset), tokenizers.fingerprint(tokenizer))
    funnel = Funnel(columns=dict(vars(columns)), recipe=recipe.hash)
    writers = {split: ShardWriter(folder, split, len(tokenizer), config.shard_tweets) for split in SPLITS}
    seen = Seen() if config.deduplicate == "exact" else None
    salt = config.author_salt.encode() or secrets.token_bytes(32)

    def kept() -> Iterator[pa.RecordBatch]:
        for rows in sources.read(paths, columns):
            batch = _split(_hide_authors(_cleaned(rows, config, preset, funnel), salt), config, seen, funnel)
            for first in range(0, batch.num_rows, ENCODED_AT_ONCE):
                yield batch.slice(first, ENCODED_AT_ONCE)

    for batch, encoded in _encoded(kept(), Encoder(tokenizer, config.max_length)):
        _note(encoded, batch, tokenizer.unk_token_id, funnel)
        _add(batch, encoded, len(tokenizer), writers)
        advance(batch.num_rows)
    shards = {split: writer.close() for split, writer in writers.items()}
    for split, entries in shards.items():
        funnel.splits[split] = {
            "tweets": sum(entry.rows for entry in entries),
            "tokens": sum(entry.tokens for entry in entries),
        }
    if not funnel.kept:
        raise UserError(_nothing_kept(paths, funnel))
    lost = funnel.dropped["not UTF-8"]
    if lost > max(_STRAY_ROWS, funnel.read * _STRAY_SHARE):
        # Rows with accents and emoji are those that go: what is left would not be a sample of the whole.
        raise UserError(
            f"{paths[0]}{' and others' if len(paths) > 1 else ''}: {lost:,} of {funnel.read:,} rows are not UTF-8: "
            "the file has another encoding; save it as UTF-8"
        )
    manifest = Manifest(
        recipe=recipe,
        max_length=config.max_length,
        vocabulary_size=len(tokenizer),
        special_ids=tokenizers.special_ids(tokenizer),
        pad_id=tokenizer.pad_token_id,
        mask_id=tokenizer.mask_token_id,
        unknown_id=tokenizer.unk_token_id,
        unknown_tokens=funnel.notes["[UNK] tokens"],
        splits=shards,
        settings=settings_of(config),
    )
    return manifest, funnel


def _cleaned(rows: Rows, config: PrepareConfig, preset: str, funnel: Funnel) -> pa.RecordBatch:
    """The rows that hold a text, cleaned: columns text, id, time, author (null where there is none)."""
    funnel.read += rows.read
    funnel.dropped["malformed row"] += rows.malformed
    funnel.dropped["not UTF-8"] += rows.not_utf8
    nothing = pa.nulls(len(rows.text), pa.string())
    numbers = pa.array(rows.numbers).cast(pa.string())
    if rows.id is not None:
        # A number alone could be mistaken for another row's id.
        unnamed = pc.binary_join_element_wise("row", numbers, " ")
        numbers = pc.if_else(pc.equal(pc.utf8_trim_whitespace(rows.id), ""), unnamed, rows.id)
    batch = pa.RecordBatch.from_arrays(
        [rows.text, numbers, rows.time or nothing, rows.author or nothing], names=["text", "id", "time", "author"]
    )
    blank = pc.equal(pc.utf8_trim_whitespace(batch.column("text")), "")
    batch = _drop(batch, blank, "empty", funnel)
    too_long = pc.greater(pc.utf8_length(batch.column("text")), config.max_characters)
    batch = _drop(batch, too_long, "longer than max_characters", funnel)
    batch = batch.set_column(0, "text", cleaning.clean(batch.column("text"), preset))
    return _drop(batch, pc.equal(batch.column("text"), ""), "empty after cleaning", funnel)


def _hide_authors(batch: pa.RecordBatch, salt: bytes) -> pa.RecordBatch:
    """The same rows with their authors as salted hashes, none where the author is empty."""
    # BLAKE2b takes a key of 64 bytes at most.
    key = hashlib.sha512(salt).digest()
    hashes = [
        hashlib.blake2b(author.encode(), key=key, digest_size=16).hexdigest() if author else None
        for author in batch.column("author").to_pylist()
    ]
    return batch.set_column(3, "author", pa.array(hashes, pa.string()))


def _split(batch: pa.RecordBatch, config: PrepareConfig, seen: Seen | None, funnel: Funnel) -> pa.RecordBatch:
    """The rows that are no copy of an earlier one, with times parsed and a column `held_out`."""
    hashes = duplicates.hash_keys(cleaning.duplicate_key(batch.column("text")))
    if seen is not None:
        first = seen.first_time(hashes)
        batch = _drop(batch, pa.array(~first), "duplicate", funnel)
        hashes = hashes[first]
    parsed = times.parse(batch.column("time"))
    lost = times.not_understood(batch.column("time"), parsed)
    funnel.notes["time not understood"] += pc.sum(lost, min_count=0).as_py()
    held_out = duplicates.held_out(hashes, config.seed, config.validation_fraction)
    return batch.set_column(2, "time", parsed).append_column("held_out", pa.array(held_out))


def _drop(batch: pa.RecordBatch, which: pa.Array, reason: str, funnel: Funnel) -> pa.RecordBatch:

    kept = batch.filter(pc.invert(which))
    funnel.dropped[reason] += batch.num_rows - kept.num_rows
    return kept


def _encoded(batches: Iterable[pa.RecordBatch], encoder: Encoder) -> Iterator[tuple[pa.RecordBatch, Encoded]]:
    """Each batch with its tokens, in order; while one is taken apart in Python, Rust makes the next."""
    waiting: deque[tuple[pa.RecordBatch, Future[Encoded]]] = deque()
    with ThreadPoolExecutor(2) as pool:
        for batch in batches:
            waiting.append((batch, pool.submit(encoder, batch.column("text").to_pylist())))
            if len(waiting) > 2:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _note(encoded: Encoded, batch: pa.RecordBatch, unknown_id: int, funnel: Funnel) -> None:

    unknown = encoded.input_ids == unknown_id
    tweets = np.repeat(np.arange(batch.num_rows), encoded.lengths)
    funnel.notes["truncated to max_length"] += encoded.truncated
    funnel.notes["[UNK] tokens"] += int(unknown.sum())
    funnel.notes["tweets with [UNK]"] += len(np.unique(tweets[unknown]))


def _add(batch: pa.RecordBatch, encoded: Encoded, vocabulary_size: int, writers: dict[str, ShardWriter]) -> None:

    tweets = Tweets(encoded.lengths, encoded.input_ids, encoded.word_starts)
    columns = {name: batch.column(name) for name in ("id", "time", "author", "text")}
    rows = to_batch(
        tweets, columns["id"], columns["time"], columns["author"], columns["text"], vocabulary_size=vocabulary_size
    )
    held_out = batch.column("held_out")
    writers["train"].add(rows.filter(pc.invert(held_out)))
    writers["validation"].add(rows.filter(held_out))


def tokenizer_of(config: PrepareConfig, paths: list[Path], columns: Columns) -> Any:
    """The tokenizer that is asked for; `wordpiece` is trained on the cleaned input."""

    if config.tokenizer != "wordpiece":
        return tokenizers.load_tokenizer(config.tokenizer, config.tokenizer_revision)
    preset = cleaning.resolve(config.clean, None)
    funnel = Funnel()

    def texts() -> Iterator[list[str]]:
        for rows in sources.read(paths, columns):
            yield _cleaned(rows, config, preset, funnel).column("text").to_pylist()
        if not funnel.kept:
            raise UserError(_nothing_kept(paths, funnel))

    return tokenizers.train_wordpiece(texts(), config.vocabulary_size)


def recipe_identity(config: PrepareConfig) -> dict[str, str]:
    """What tells, without loading a tokenizer, whether the same settings still mean the same recipe."""
    preset = cleaning.resolve(config.clean, None)
    found = {"rules": cleaning.rules_fingerprint(preset)}
    for name in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"):
        path = Path(config.tokenizer) / name
        if path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def settings_of(config: PrepareConfig) -> dict[str, Any]:
    """The settings that decide what the shards hold; of the secret only whether there is one."""
    settings = dataclasses.asdict(config)
    for name in ("output", "num_workers"):
        del settings[name]
    settings["author_salt"] = "given" if config.author_salt else "random"
    return settings


def _nothing_kept(paths: list[Path], funnel: Funnel) -> str:
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if not funnel.read:
        return f"{where}: holds a header and no rows"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in funnel.dropped.items() if count)
    return f"{where}: not one tweet is left of {funnel.read:,} rows ({reasons})"

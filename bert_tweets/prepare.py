"""prepare: raw tweets to pre-tokenized Arrow shards, each dropped row counted with its reason."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import files, options
from .config import PrepareConfig
from .data.manifest import FILE as MANIFEST_FILE
from .data.manifest import FUNNEL_FILE, SPLITS, TOKENIZER_FOLDER, Manifest
from .errors import UserError, run_entry
from .text.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

    from .data.funnel import Funnel
    from .data.writer import ShardWriter
    from .text.duplicates import Seen
    from .text.sources import Columns, Rows
    from .text.tokenizer import Encoded, Encoder

RECORD_FILE = "prepare.json"
ENCODED_AT_ONCE = 4096


def stage(argv: list[str]) -> None:
    """Reads the settings, then prepares."""
    prepare(options.load(PrepareConfig, argv))


def main(argv: list[str] | None = None) -> None:
    """The command: settings from the arguments, one line and exit code 2 for a user's mistake."""
    run_entry(stage, argv)


def prepare(config: PrepareConfig) -> Manifest:
    """Makes a folder of shards, or finds that it is made already.

    Raises:
        UserError: see `text.sources`, `text.tokenizer` and `files`; nothing is left half-written.
    """
    from .text import sources

    paths = sources.expand(config.input)
    record = {"settings": _settings(config), "input": sources.identity(paths)}
    if files.already_made(config.output, RECORD_FILE, record, "prepare"):
        print(f"{config.output}: is complete, made from the same input and settings; nothing to do")
        return Manifest.read(config.output)
    columns = sources.find_columns(paths, _asked(config))
    for role, name in vars(columns).items():
        print(f"{role + ':':8}{f'column {name!r}' if name is not None else 'no column'}")
    if config.num_workers:
        # Read once, when the tokenizer's thread pool is first used.
        os.environ["RAYON_NUM_THREADS"] = str(config.num_workers)
    with files.side_folder(config.output) as folder:
        tokenizer = _tokenizer(config, paths, columns)
        manifest, funnel = _write(config, paths, columns, tokenizer, folder)
        tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
        files.write_bytes(folder / RECORD_FILE, files.to_json(record))
        files.write_bytes(folder / FUNNEL_FILE, files.to_json(funnel.to_json()))
        files.write_bytes(folder / MANIFEST_FILE, files.to_json(manifest.to_json()))
    _tell(config, funnel)
    return manifest


def _write(
    config: PrepareConfig, paths: list[Path], columns: Columns, tokenizer: Any, folder: Path
) -> tuple[Manifest, Funnel]:
    """Streams all rows into the shards of both splits."""
    from .data.funnel import Funnel
    from .data.writer import ShardWriter
    from .text import cleaning, sources
    from .text import tokenizer as tokenizers
    from .text.duplicates import Seen

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

    with _Progress() as advance:
        for batch, encoded in _encoded(kept(), tokenizers.Encoder(tokenizer, config.max_length)):
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
        settings=_settings(config),
    )
    return manifest, funnel


def _cleaned(rows: Rows, config: PrepareConfig, preset: str, funnel: Funnel) -> pa.RecordBatch:
    """The rows that hold a text, cleaned: columns text, id, time, author (null where there is none)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from .text import cleaning

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
    import pyarrow as pa

    # BLAKE2b takes a key of 64 bytes at most.
    key = hashlib.sha512(salt).digest()
    hashes = [
        hashlib.blake2b(author.encode(), key=key, digest_size=16).hexdigest() if author else None
        for author in batch.column("author").to_pylist()
    ]
    return batch.set_column(3, "author", pa.array(hashes, pa.string()))


def _split(batch: pa.RecordBatch, config: PrepareConfig, seen: Seen | None, funnel: Funnel) -> pa.RecordBatch:
    """The rows that are no copy of an earlier one, with times parsed and a column `held_out`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from .text import cleaning, duplicates, times

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
    import pyarrow.compute as pc

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
    import numpy as np

    unknown = encoded.input_ids == unknown_id
    tweets = np.repeat(np.arange(batch.num_rows), encoded.lengths)
    funnel.notes["truncated to max_length"] += encoded.truncated
    funnel.notes["[UNK] tokens"] += int(unknown.sum())
    funnel.notes["tweets with [UNK]"] += len(np.unique(tweets[unknown]))


def _add(batch: pa.RecordBatch, encoded: Encoded, vocabulary_size: int, writers: dict[str, ShardWriter]) -> None:
    import pyarrow.compute as pc

    from .data.shards import Tweets
    from .data.writer import to_batch

    tweets = Tweets(encoded.lengths, encoded.input_ids, encoded.word_starts)
    columns = {name: batch.column(name) for name in ("id", "time", "author", "text")}
    rows = to_batch(
        tweets, columns["id"], columns["time"], columns["author"], columns["text"], vocabulary_size=vocabulary_size
    )
    held_out = batch.column("held_out")
    writers["train"].add(rows.filter(pc.invert(held_out)))
    writers["validation"].add(rows.filter(held_out))


def _tokenizer(config: PrepareConfig, paths: list[Path], columns: Columns) -> Any:
    from .data.funnel import Funnel
    from .text import cleaning, sources
    from .text import tokenizer as tokenizers

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


def _settings(config: PrepareConfig) -> dict[str, Any]:
    """The settings that decide what the shards hold; of the secret only whether there is one."""
    settings = dataclasses.asdict(config)
    for name in ("output", "num_workers"):
        del settings[name]
    settings["author_salt"] = "given" if config.author_salt else "random"
    return settings


def _asked(config: PrepareConfig) -> dict[str, str]:
    return {
        "text": config.text_column,
        "id": config.id_column,
        "time": config.time_column,
        "author": config.author_column,
    }


def _tell(config: PrepareConfig, funnel: Funnel) -> None:
    from rich.console import Console

    funnel.show(Console(highlight=False))
    if config.validation_fraction and not funnel.splits["validation"]["tweets"]:
        _warn("no tweet was held out for validation; raise validation_fraction if you want to validate or evaluate")
    malformed = funnel.dropped["malformed row"] + funnel.dropped["not UTF-8"]
    if malformed > funnel.read // 100:
        _warn(f"{malformed:,} of {funnel.read:,} rows could not be read; was the file saved as CSV in UTF-8?")
    if funnel.notes["time not understood"]:
        _warn("times that were not understood are left out; write them like 2018-10-10T20:19:24Z")
    print(f"{config.output}: complete")


def _nothing_kept(paths: list[Path], funnel: Funnel) -> str:
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if not funnel.read:
        return f"{where}: holds a header and no rows"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in funnel.dropped.items() if count)
    return f"{where}: not one tweet is left of {funnel.read:,} rows ({reasons})"


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


class _Progress:
    """A line on the terminal that counts tweets; nothing where there is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status = self._console.status("preparing") if self._console.is_terminal else None
        self._count = 0

    def __enter__(self) -> Callable[[int], None]:
        if self._status:
            self._status.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def _advance(self, tweets: int) -> None:
        self._count += tweets
        if self._status:
            self._status.update(f"preparing: {self._count:,} tweets kept")


if __name__ == "__main__":
    main()

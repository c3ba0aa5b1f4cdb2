"""Preparation: units of work cleaned and encoded by workers, copies told apart over all of them, shards assembled.

Every part can be done again: what is whole in the work folder is found there by the next run, and nothing depends on
how many workers there are, or in which order they come to an end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_tweets.common import output_folder
from bert_tweets.common.errors import UserError, without_secrets
from bert_tweets.common.executors import Inline, Workers, open_workers
from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.dedup.clustering import find_clusters
from bert_tweets.corpus.shards.funnel import ROUNDED, Funnel
from bert_tweets.corpus.shards.manifest import SPLITS, TOKENIZER_FOLDER, Manifest, tokenizer_files
from bert_tweets.corpus.sources import discovery, work_unit
from bert_tweets.corpus.sources.schema import Columns
from bert_tweets.corpus.sources.work_unit import Unit
from bert_tweets.corpus.text import cleaning
from bert_tweets.corpus.text import tokenizer as tokenizers
from bert_tweets.corpus.text.added_tokens import add_emoji, recipe_of

from .selection import Selection
from .shard_assembly import assemble
from .unit_report import Report, long_records, unreadable_rows
from .worker import KEYS, Job, cleaned, do_unit, report_of

WORK = "work"
# Of what lies there: to be raised when units are cut, hashed or written in another way.
WORK_VERSION = 4
# More rows than these in another encoding are no accident.
_STRAY_ROWS, _STRAY_SHARE = 20, 0.05
# What a vocabulary is learnt from: memory must not grow with the input.
_LEARNT_FROM = 1_000_000


def write_shards(
    config: PrepareConfig, paths: list[str], columns: Columns, folder: Path, advance: Callable[[int], None]
) -> tuple[Manifest, Funnel]:
    """Writes the shards of both splits and the tokenizer; goes on with what an equal run has left there.

    Args:
        paths, columns: what to read.
        folder: takes the shards; the rest is its caller's. What is needed on the way lies in its folder `WORK`.
        advance: is told of rows as they are read.

    Raises:
        UserError: an input or the tokenizer cannot be read, or not one tweet is left.
        Interrupted: a worker died.
    """
    kept, work = folder / WORK, _own_folder(folder / WORK)
    for place in (work / "units", work / "shards", *(folder / split for split in SPLITS)):
        place.mkdir(parents=True, exist_ok=True)
    inputs = discovery.units(paths, columns, config.unit_bytes)
    first = list(islice(inputs, config.num_workers or os.cpu_count() or 1))
    ahead, inputs = len(first), chain(first, inputs)
    del first  # so that a unit that is done leaves memory
    with open_workers(config.executor, config.num_workers, ahead, do_unit.__module__) as workers:
        tokenizer, preset = _saved_tokenizer(config, paths, columns, folder)
        alone = isinstance(workers.executor, Inline) and config.num_workers != 1
        job = _job(config, columns, preset, tokenizer, work, _author_key(config, kept), one_thread=not alone)
        reports = _all_units(job, inputs, workers, advance)
        clusters = find_clusters(
            [job.place(report.number) / KEYS for report in reports],
            [report.rows for report in reports],
            _emptied(work / "clusters"),
            workers,
            config.near.jaccard,
        )
        recipe = recipe_of(preset, cleaning.rules_fingerprint(preset), tokenizer)
        funnel = _begun_funnel(columns, recipe.hash, reports)
        plans = Selection(config, job, reports, clusters, _emptied(work / "selection")).decide(funnel)
        _require_tweets(config, paths, columns, funnel)
        tasks = ((job, plan, work / "selection", work / "shards", folder) for plan in plans)
        entries = {entry.file: entry for entry in workers.run(assemble, tasks)}
    manifest = Manifest(
        recipe=recipe,
        max_length=config.max_length,
        **tokenizers.ids_of(tokenizer),
        unknown_tokens=funnel.notes["[UNK] tokens"],
        splits={split: [entries[plan.name] for plan in plans if plan.name.startswith(f"{split}/")] for split in SPLITS},
        groups=list(columns.groups),
        lengths=funnel.lengths,
        settings=deciding_settings(config),
        tokenizer_files=tokenizer_files(folder),
    )
    return manifest, funnel


def _begun_funnel(columns: Columns, recipe: str, reports: list[Report]) -> Funnel:
    """What the reports tell that no row's fate changes."""
    examples = {
        "time not understood": next(filter(None, (report.odd_time for report in reports)), ""),
        ROUNDED: next(filter(None, (report.odd_id for report in reports)), ""),
    }
    return Funnel(
        columns=dataclasses.asdict(columns),
        recipe=recipe,
        unreadable=unreadable_rows(reports),
        several_lines=sum(report.several_lines for report in reports),
        most_lines=max((report.most_lines for report in reports), default=0),
        long_records=long_records(reports),
        examples={note: example for note, example in examples.items() if example},
    )


def _own_folder(work: Path) -> Path:
    """A folder that this run and those that go on with it work in, and no other run ever.

    A task of a run before may still be on its way on a cluster: it finds its folder gone, wherever the output lies.
    """
    made = next(work.glob("run-*"), None) or work / f"run-{secrets.token_hex(8)}"
    made.mkdir(parents=True, exist_ok=True)
    return made


def _job(
    config: PrepareConfig,
    columns: Columns,
    preset: str,
    tokenizer: Any,
    work: Path,
    author_key: bytes,
    one_thread: bool,
) -> Job:
    backend = work / "tokenizer.json"
    output_folder.write_atomic(backend, tokenizers.private_backend(tokenizer).to_str().encode())
    return Job(
        folder=str((work / "units").absolute()),
        columns=columns,
        preset=preset,
        tokenizer=str(backend.absolute()),
        vocabulary_size=len(tokenizer),
        unknown_id=tokenizer.unk_token_id,
        max_length=config.max_length,
        max_characters=config.max_characters,
        drop_copies=config.deduplicate != "none",
        near=config.near,
        filter=config.filter,
        author_key=author_key,
        one_thread=one_thread,
        time_format=config.time_format,
    )


def _author_key(config: PrepareConfig, work: Path) -> bytes:
    """What authors are hashed with; where none is given a fresh one, kept for as long as the work folder is."""
    salt = config.author_salt.encode()
    if not salt:
        kept = work / "salt"
        if not kept.is_file():
            side = kept.with_name(".salt.unfinished")
            side.unlink(missing_ok=True)
            output_folder.write_bytes(side, secrets.token_bytes(32), mode=0o600)
            side.replace(kept)
        salt = kept.read_bytes()
    # BLAKE2b takes a key of 64 bytes at most.
    return hashlib.sha512(salt).digest()


def _all_units(job: Job, inputs: Iterator[Unit], workers: Workers, advance: Callable[[int], None]) -> list[Report]:
    """The reports of all units, in order; units that are done already are not done again."""
    reports: dict[int, Report] = {}

    def finished(report: Report) -> None:
        reports[report.number] = report
        advance(report.read)

    def missing() -> Iterator[tuple[Job, Unit]]:
        for unit in inputs:
            report = report_of(job, unit.number)
            if report:
                finished(report)
            else:
                yield job, unit

    for report in workers.run(do_unit, missing()):
        finished(report)
    return [reports[number] for number in sorted(reports)]


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _saved_tokenizer(config: PrepareConfig, paths: list[str], columns: Columns, folder: Path) -> tuple[Any, str]:
    """The tokenizer, out of the folder of the shards, where a first run has saved it, and the recipe of cleaning.

    The recipe is picked by the tokenizer that was asked for: its copy does not tell its name.
    """
    place, recipe = folder / TOKENIZER_FOLDER, folder / WORK / "clean.txt"
    if not place.is_dir():
        side = folder / f".{TOKENIZER_FOLDER}.unfinished"
        shutil.rmtree(side, ignore_errors=True)
        tokenizer = tokenizer_of(config, paths, columns)
        output_folder.write_atomic(recipe, cleaning.resolve(config.clean, tokenizer, config.emoji).encode())
        tokenizers.save(tokenizer, side)
        side.replace(place)
    return tokenizers.load_tokenizer(str(place), local_only=True), recipe.read_text(encoding="utf-8")


def tokenizer_of(config: PrepareConfig, paths: list[str], columns: Columns) -> Any:
    """The tokenizer that is asked for; what is learnt from the input is learnt from its first million tweets."""
    if config.tokenizer == "wordpiece":
        preset = cleaning.resolve(config.clean, None, config.emoji)
        texts = (column.to_pylist() for column in _cleaned_texts(config, paths, columns, preset))
        tokenizer = tokenizers.train_wordpiece(texts, config.vocabulary_size)
    else:
        tokenizer = tokenizers.load_tokenizer(config.tokenizer, config.tokenizer_revision)
    if config.emoji != "tokens":
        return tokenizer
    preset = cleaning.resolve(config.clean, tokenizer, config.emoji)
    return add_emoji(tokenizer, _cleaned_texts(config, paths, columns, preset), config.emoji_vocabulary)


def _cleaned_texts(config: PrepareConfig, paths: list[str], columns: Columns, preset: str) -> Iterator[pa.Array]:
    """The first cleaned texts of the input."""
    job = Job("", columns, preset, "", 0, 0, 0, config.max_characters, False, config.near, config.filter, b"")
    read = kept = 0
    dropped: dict[str, int] = {}
    for unit in discovery.units(paths, columns):
        rows = work_unit.read_unit(unit, columns)
        texts = cleaned(rows, job, dropped).column("text")
        read, kept = read + rows.read, kept + len(texts)
        yield texts
        if kept >= _LEARNT_FROM:
            break
    if not kept:
        funnel = Funnel(read=read)
        funnel.add(dropped)
        _require_tweets(config, paths, columns, funnel)


def recipe_identity(config: PrepareConfig) -> dict[str, str]:
    """What tells, without loading a tokenizer, whether the same settings still mean the same recipe."""
    preset = cleaning.resolve(config.clean, None, config.emoji)
    found = {"rules": cleaning.rules_fingerprint(preset)}
    for name in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json"):
        path = Path(config.tokenizer) / name
        if path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def deciding_settings(config: PrepareConfig) -> dict[str, Any]:
    """The settings that decide what the shards hold; of the secret only whether there is one, of URLs the address."""
    settings = dataclasses.asdict(config)
    settings["input"] = [without_secrets(name) for name in config.input]
    for name in ("output", "num_workers", "executor"):
        del settings[name]
    settings["author_salt"] = "given" if config.author_salt else "random"
    return settings


def _require_tweets(config: PrepareConfig, paths: list[str], columns: Columns, funnel: Funnel) -> None:
    """Raises UserError where nothing is left, or so much was in another encoding that the rest is no sample of it."""
    lost = funnel.dropped["not UTF-8"]
    if lost > max(_STRAY_ROWS, funnel.read * _STRAY_SHARE):
        # Rows with accents and emoji are those that go.
        raise UserError(
            f"{paths[0]}{' and others' if len(paths) > 1 else ''}: {lost:,} of {funnel.read:,} rows are not UTF-8: "
            "the file has another encoding; save it as UTF-8"
        )
    if funnel.kept:
        return
    where = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if not funnel.read:
        raise UserError(f"{where}: holds a header and no rows")
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in funnel.dropped.items() if count)
    spoken = ""
    if funnel.dropped["other language"] and not config.filter.detect_language:
        spoken = f"; its commonest languages are {', '.join(discovery.commonest(paths, columns, 'language'))}"
    raise UserError(f"{where}: not one tweet is left of {funnel.read:,} rows ({reasons}){spoken}")

"""The pipeline of prepare: workers clean and encode units, duplicates are found over all of them, shards are assembled.

Every step can be repeated: the next run finds what is complete in the work folder. Nothing depends on the number of
workers, or on the order in which they finish.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from bert_tweets.common import output_folder
from bert_tweets.common.executors import Inline, Workers, open_workers
from bert_tweets.common.system import cores
from bert_tweets.corpus.dedup.clustering import find_clusters
from bert_tweets.corpus.shards.funnel import Funnel, Note
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest, tokenizer_files
from bert_tweets.corpus.sources import discovery
from bert_tweets.corpus.sources.byte_stream import file_name, is_url
from bert_tweets.corpus.sources.discovery import Unit
from bert_tweets.corpus.sources.schema import FEW

from .preparation import Preparation, TextRecipe, make_text_recipe
from .prepare_record import recorded_settings
from .selection import FinishedUnits, Selection
from .shard_assembly import ShardJob, assemble
from .worker import KEYS, DropCounts, UnitJob, UnitReport, do_unit, report_of, unit_folder

WORK = "work"
# Version of the files in it; to be raised when units are cut, hashed or written differently.
WORK_VERSION = 5


def write_shards(preparation: Preparation, folder: Path, advance: Callable[[int], None]) -> tuple[Manifest, Funnel]:
    """Write the shards of both splits and the tokenizer; resume from what an equal run has left there.

    Args:
        preparation: settings and input.
        folder: folder for the shards and, in its subfolder `WORK`, temporary data.
        advance: is called with the number of rows that were read.

    Raises:
        UserError: an input or the tokenizer cannot be read, or no tweet is left.
        Interrupted: a worker died.
    """
    config, columns = preparation.config, preparation.columns
    work = _own_folder(folder / WORK)
    units, entries, selection = work / "units", work / "shards", work / "selection"
    for place in (units, entries, *(folder / split for split in SPLITS)):
        place.mkdir(parents=True, exist_ok=True)
    inputs = discovery.units(preparation.paths, columns, config.unit_bytes)
    first = list(islice(inputs, config.num_workers or cores()))
    ahead, inputs = len(first), chain(first, inputs)
    del first  # so that the memory of finished units is freed
    with open_workers(config.executor, config.num_workers, ahead, do_unit.__module__) as workers:
        text = make_text_recipe(preparation, folder, folder / WORK)
        is_alone = isinstance(workers.executor, Inline) and config.num_workers != 1
        job = _unit_job(preparation, text, work, one_thread=not is_alone)
        reports = _do_units(job, inputs, workers, advance)
        clusters = find_clusters(
            [unit_folder(units, report.number) / KEYS for report in reports],
            [report.rows for report in reports],
            _emptied(work / "clusters"),
            workers,
            config.near.jaccard,
        )
        funnel = _funnel_of_reports(preparation, text, reports)
        plans = Selection(config, FinishedUnits(units, reports, clusters), _emptied(selection)).decide(funnel)
        preparation.require_tweets(funnel.read, DropCounts(funnel.dropped))
        shard_job = ShardJob(units, selection, entries, folder, columns, text.ids["vocabulary_size"])
        written = {entry.file: entry for entry in workers.run(assemble, ((shard_job, plan) for plan in plans))}
    manifest = Manifest(
        recipe=text.recipe,
        max_length=config.max_length,
        **text.ids,
        unknown_tokens=funnel.notes[Note.UNKNOWN_TOKENS],
        splits={split: [written[plan.file] for plan in plans if plan.file.startswith(f"{split}/")] for split in SPLITS},
        groups=list(columns.groups),
        lengths=funnel.lengths,
        settings=recorded_settings(config),
        tokenizer_files=tokenizer_files(folder),
    )
    return manifest, funnel


def _own_folder(work: Path) -> Path:
    """A folder for this run and those that resume it, and for no other run.

    A task of an earlier run may still be on its way on a cluster: it finds its folder gone, wherever the output is.
    """
    made = next(work.glob("run-*"), None) or work / f"run-{secrets.token_hex(8)}"
    made.mkdir(parents=True, exist_ok=True)
    return made


def _unit_job(preparation: Preparation, text: TextRecipe, work: Path, one_thread: bool) -> UnitJob:
    tokenizer_file = work / "tokenizer.json"
    output_folder.write_atomic(tokenizer_file, text.tokenizer_json)
    return UnitJob(
        folder=str((work / "units").absolute()),
        # The salt stays in this process.
        config=replace(preparation.config, author_salt=""),
        columns=preparation.columns,
        preset=text.recipe.clean,
        tokenizer_file=str(tokenizer_file.absolute()),
        vocabulary_size=text.ids["vocabulary_size"],
        unknown_id=text.ids["unknown_id"],
        author_key=_author_key(preparation.config.author_salt, work.parent / "salt"),
        one_thread=one_thread,
    )


def _author_key(salt: str, file: Path) -> bytes:
    """Key for hashing authors, from the salt, or from a random one that is kept in a file until the output is done."""
    secret = salt.encode()
    if not secret:
        if not file.is_file():
            side = file.with_name(f".{file.name}.unfinished")
            side.unlink(missing_ok=True)
            output_folder.write_bytes(side, secrets.token_bytes(32), mode=0o600)
            side.replace(file)
        secret = file.read_bytes()
    # BLAKE2b takes a key of at most 64 bytes.
    return hashlib.sha512(secret).digest()


def _do_units(
    job: UnitJob, inputs: Iterator[Unit], workers: Workers, advance: Callable[[int], None]
) -> list[UnitReport]:
    """Reports of all units, in order; finished units are not done again."""
    reports: dict[int, UnitReport] = {}

    def finished(report: UnitReport) -> None:
        reports[report.number] = report
        advance(report.read)

    def missing() -> Iterator[tuple[UnitJob, Unit]]:
        for unit in inputs:
            if report := report_of(job.folder, unit.number):
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


def _funnel_of_reports(preparation: Preparation, text: TextRecipe, reports: list[UnitReport]) -> Funnel:
    """A funnel with everything from the reports that does not depend on the fates of the rows."""
    examples = {
        Note.UNPARSED_TIME: next(filter(None, (report.odd_time for report in reports)), ""),
        Note.ROUNDED_ID: next(filter(None, (report.odd_id for report in reports)), ""),
    }
    unreadable, long_records = places_of_rows(reports)
    return Funnel(
        columns=preparation.columns,
        recipe=text.recipe.hash,
        unreadable=unreadable,
        several_lines=sum(report.several_lines for report in reports),
        most_lines=max((report.most_lines for report in reports), default=0),
        long_records=long_records,
        examples={note: example for note, example in examples.items() if example},
    )


def places_of_rows(reports: list[UnitReport]) -> tuple[list[str], list[str]]:
    """Places of the first unreadable rows, and of the first suspiciously long records with their length."""
    unreadable: list[str] = []
    long_records: list[str] = []
    before: dict[str, int] = {}
    for report in reports:
        # A resumed run may have spelled the path differently.
        file = report.file if is_url(report.file) else str(Path(report.file).absolute())
        first = before.get(file, 0) + 1
        before[file] = before.get(file, 0) + report.read
        place = f"{file_name(report.file)} row "
        unreadable += [f"{place}{first + number:,}" for number in report.unreadable]
        long_records += [f"{place}{first + number:,} spans {lines:,} lines" for number, lines in report.long_records]
    return unreadable[:FEW], long_records[:FEW]

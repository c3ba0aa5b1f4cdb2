"""prepare: raw tweets to pre-tokenized Arrow shards, each dropped row counted with its reason."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from . import files, options
from .config import PrepareConfig
from .data.manifest import FILE as MANIFEST_FILE
from .data.manifest import FUNNEL_FILE, Manifest
from .errors import UserError, run_entry
from .terminal import counting

if TYPE_CHECKING:
    from .text.rows import Columns

RECORD_FILE = "prepare.json"


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
    from .data.preparation import WORK, WORK_VERSION, recipe_identity, settings_of, write_shards
    from .text import sources
    from .text.recipe import FORMAT_VERSION

    paths = sources.expand(config.input)
    record = {"settings": settings_of(config), "input": sources.identity(paths), "recipe": recipe_identity(config)}
    if files.already_made(config.output, RECORD_FILE, record, "prepare"):
        with contextlib.suppress(OSError):
            # Killed in its last moment, a run leaves it.
            (Path(config.output) / files.MARKER).unlink()
        print(f"{config.output}: is complete, made from the same input and settings; nothing to do")
        return Manifest.read(config.output)
    columns = sources.find_columns(paths, _asked(config), config.group_columns)
    for role, name in asdict(columns).items():
        if role != "groups":
            print(f"{role + ':':12}{f'column {name!r}' if name is not None else 'no column'}")
    if columns.groups:
        print(f"{'kept:':12}columns {', '.join(map(repr, columns.groups))}")
    _require_columns(config, columns)
    # A secret salt decides the bytes too, and must not be written down.
    salt = hashlib.sha256(b"salt " + config.author_salt.encode()).hexdigest() if config.author_salt else ""
    with files.side_folder(
        config.output, {**record, "salt": salt, "format": FORMAT_VERSION, "work": WORK_VERSION}
    ) as folder:
        if not (folder / MANIFEST_FILE).is_file():
            with counting("preparing") as advance:
                manifest, funnel = write_shards(config, paths, columns, folder, advance)
            files.write_bytes(folder / RECORD_FILE, files.to_json(record))
            files.write_bytes(folder / FUNNEL_FILE, files.to_json(funnel.to_json()))
            files.write_atomic(folder / MANIFEST_FILE, files.to_json(manifest.to_json()))
        shutil.rmtree(folder / WORK, ignore_errors=True)
    _tell(config)
    return Manifest.read(config.output)


def _asked(config: PrepareConfig) -> dict[str, str]:
    return {
        "text": config.text_column,
        "id": config.id_column,
        "time": config.time_column,
        "author": config.author_column,
        "language": config.language_column,
    }


def _require_columns(config: PrepareConfig, columns: Columns) -> None:
    """Raises UserError for a filter whose column is not there."""
    limits = config.filter
    needed = (
        (bool(limits.languages) and not limits.detect_language, columns.language, "filter.languages", "language"),
        (bool(limits.max_tweets_per_author), columns.author, "filter.max_tweets_per_author", "author"),
        (bool(limits.max_tweets_per_day), columns.time, "filter.max_tweets_per_day", "time"),
    )
    for asked, column, setting, role in needed:
        if asked and column is None:
            instead = ", or filter.detect_language=true" if role == "language" else ""
            raise UserError(f"{setting}: no column of the {role} was found; name it with {role}_column=NAME{instead}")


def _tell(config: PrepareConfig) -> None:
    from rich.console import Console

    from .data.funnel import Funnel

    funnel = Funnel.from_file(Path(config.output) / FUNNEL_FILE)
    funnel.show(Console(highlight=False))
    if config.validation_fraction and not funnel.splits["validation"]["tweets"]:
        _warn("no tweet was held out for validation; raise validation_fraction if you want to validate or evaluate")
    malformed = funnel.dropped["malformed row"] + funnel.dropped["not UTF-8"]
    if malformed > funnel.read // 100:
        _warn(f"{malformed:,} of {funnel.read:,} rows could not be read; was the file saved as CSV in UTF-8?")
    if funnel.notes["time not understood"]:
        _warn("times that were not understood are left out; write them like 2018-10-10T20:19:24Z")
    print(f"{config.output}: complete")


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""prepare: raw tweets to pre-tokenized Arrow shards, each dropped row counted with its reason."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from . import files, options
from .config import PrepareConfig
from .data.manifest import FILE as MANIFEST_FILE
from .data.manifest import FUNNEL_FILE, TOKENIZER_FOLDER, Manifest
from .errors import run_entry
from .terminal import counting

if TYPE_CHECKING:
    from .data.funnel import Funnel

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
    from .data.preparation import recipe_identity, settings_of, tokenizer_of, write_shards
    from .text import sources

    paths = sources.expand(config.input)
    record = {"settings": settings_of(config), "input": sources.identity(paths), "recipe": recipe_identity(config)}
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
        tokenizer = tokenizer_of(config, paths, columns)
        with counting("preparing") as advance:
            manifest, funnel = write_shards(config, paths, columns, tokenizer, folder, advance)
        tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
        files.write_bytes(folder / RECORD_FILE, files.to_json(record))
        files.write_bytes(folder / FUNNEL_FILE, files.to_json(funnel.to_json()))
        files.write_bytes(folder / MANIFEST_FILE, files.to_json(manifest.to_json()))
    _tell(config, funnel)
    return manifest


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


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()

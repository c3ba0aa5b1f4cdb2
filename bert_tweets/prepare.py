"""prepare: raw tweets to pre-tokenized Arrow shards, each dropped row counted with its reason."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import files, options
from .config import PrepareConfig
from .data.manifest import FILE as MANIFEST_FILE
from .data.manifest import FUNNEL_FILE, RECORD_FILE, TOKENIZER_FOLDER, Manifest, mend
from .errors import UserError, require_utf8, run_entry, without_secrets
from .terminal import counting

if TYPE_CHECKING:
    from .text.rows import Columns

_SALT_CHECK = "author_salt_scrypt"


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
    from .data.preparation import WORK, WORK_VERSION, write_shards
    from .text import sources
    from .text.byte_stream import file_name
    from .text.recipe import FORMAT_VERSION

    paths = sources.expand(config.input, _warn)
    _require_distinct(paths)
    record = _record(config, paths)
    if files.already_made(config.output, RECORD_FILE, record, "prepare", _difference):
        manifest = _whole(Path(config.output))
        with contextlib.suppress(OSError):
            # Killed in its last moment, a run leaves it.
            (Path(config.output) / files.MARKER).unlink()
        print(f"{config.output}: is complete, made from the same input and settings; nothing to do")
        return manifest
    names = [*map(file_name, paths[:3]), *(["..."] if len(paths) > 3 else [])]
    print(f"{'input:':12}{len(paths):,} file{'s' if len(paths) > 1 else ''} ({', '.join(names)})")
    columns = sources.find_columns(paths, _asked(config), config.group_columns)
    for role, name in asdict(columns).items():
        if role != "groups":
            print(f"{role + ':':12}{f'column {name!r}' if name is not None else 'no column'}")
    if columns.groups:
        print(f"{'kept:':12}columns {', '.join(map(repr, columns.groups))}")
    _require_columns(config, columns)
    with files.side_folder(config.output, {**record, "format": FORMAT_VERSION, "work": WORK_VERSION}) as folder:
        if not (folder / MANIFEST_FILE).is_file():
            with counting("preparing") as advance:
                manifest, funnel = write_shards(config, paths, columns, folder, advance)
            files.write_bytes(folder / RECORD_FILE, files.to_json(record))
            files.write_bytes(folder / FUNNEL_FILE, files.to_json(funnel.to_json()))
            files.write_atomic(folder / MANIFEST_FILE, files.to_json(manifest.to_json()))
        shutil.rmtree(folder / WORK, ignore_errors=True)
    _tell(config, paths)
    return Manifest.read(config.output)


def _require_distinct(paths: list[str]) -> None:
    """Raises UserError for a file that is read twice, or whose name no record can hold."""
    from .text.byte_stream import is_url

    seen: set[str] = set()
    for path in paths:
        require_utf8(path)
        place = path if is_url(path) else os.path.realpath(path)
        if place in seen:
            raise UserError(f"{path}: is named twice in input, and its tweets would count twice; name it once")
        seen.add(place)


def _record(config: PrepareConfig, paths: list[str]) -> dict[str, Any]:
    """All that decides what the shards hold, as far as it may be written down."""
    from .data.preparation import recipe_identity, settings_of
    from .text import sources

    inputs: dict[str, Any] = {}
    for path, traces in sources.identity(paths).items():
        name = without_secrets(path)
        inputs[name if name not in inputs else f"{name} {len(inputs)}"] = traces
    record = {"settings": settings_of(config), "input": inputs, "recipe": recipe_identity(config)}
    return {**record, _SALT_CHECK: _salt_check(config.author_salt)} if config.author_salt else record


def _salt_check(salt: str) -> str:
    """Tells the same salt again: slow, that it is not found by trying, and equal for equal salts, as all output is."""
    return hashlib.scrypt(salt.encode(), salt=b"bert_tweets author_salt", n=2**14, r=8, p=1, dklen=16).hex()


def _difference(key: str, there: Any, now: Any) -> str:
    """What differs from the output that is there, for people."""
    if key.endswith(".mtime_ns") and there and now:
        name = key.removeprefix("input.").removesuffix(".mtime_ns")
        time = f"{there // 10**9}.{there % 10**9:09}"
        return f"{name} (written or touched since; if its content is the same: touch -d @{time} {shlex.quote(name)})"
    if key == _SALT_CHECK:
        return "author_salt (not the same as there)"
    return files.difference(key, there, now)


def _whole(folder: Path) -> Manifest:
    """The manifest of shards that are there already.

    Raises:
        UserError: a part of them is missing or cut off. verify reads every byte, this does not.
    """
    manifest = Manifest.read(folder)
    sizes = {entry.file: entry.bytes for split in manifest.splits.values() for entry in split}
    for name in (*sizes, FUNNEL_FILE, TOKENIZER_FOLDER):
        path = folder / name
        if not path.exists() or path.stat().st_size != sizes.get(name, path.stat().st_size):
            raise UserError(f"{path}: is missing, or has another size than it had; {mend(folder)}")
    return manifest


def _asked(config: PrepareConfig) -> dict[str, str]:
    return {
        "text": config.text_column,
        "id": config.id_column,
        "time": config.time_column,
        "author": config.author_column,
        "language": config.language_column,
        "retweet_of": config.retweet_column,
    }


def _require_columns(config: PrepareConfig, columns: Columns) -> None:
    """Raises UserError for a filter whose column is not there, or whose languages nothing tells."""
    from .text import language

    limits = config.filter
    if limits.detect_language:
        language.require_known(limits.languages)
    needed = (
        (bool(limits.languages) and not limits.detect_language, columns.language, "filter.languages", "language"),
        (bool(limits.max_tweets_per_author), columns.author, "filter.max_tweets_per_author", "author"),
        (bool(limits.max_tweets_per_day), columns.time, "filter.max_tweets_per_day", "time"),
    )
    for asked, column, setting, role in needed:
        if asked and column is None:
            instead = ", or filter.detect_language=true" if role == "language" else ""
            raise UserError(f"{setting}: no column of the {role} was found; name it with {role}_column=NAME{instead}")


def _tell(config: PrepareConfig, paths: list[str]) -> None:
    from rich.console import Console

    from .data.funnel import Funnel
    from .text.sources import reading_advice

    funnel = Funnel.from_file(Path(config.output) / FUNNEL_FILE)
    funnel.show(Console(highlight=False))
    if config.validation_fraction and not funnel.splits["validation"]["tweets"]:
        _warn("no tweet was held out for validation; raise validation_fraction if you want to validate or evaluate")
    if funnel.unreadable:
        malformed = funnel.dropped["malformed row"] + funnel.dropped["not UTF-8"]
        advice = f"; {reading_advice(paths)}" if malformed > funnel.read // 100 else ""
        places = ", ".join(funnel.unreadable)
        _warn(f"{malformed:,} of {funnel.read:,} rows could not be read, the first ones at {places}{advice}")
    if config.filter.max_tweets_per_author and funnel.notes["no author"]:
        _warn(f"filter.max_tweets_per_author: {funnel.notes['no author']:,} tweets have no author and stay")
    if funnel.notes["time not understood"]:
        advice = ", or set time_format=mdy or dmy if they are like 2/11/2018" if config.time_format == "auto" else ""
        _warn(f"times that were not understood are left out; write them like 2018-10-10T20:19:24Z{advice}")
    if funnel.notes["no time"]:
        _warn(f"{funnel.notes['no time']:,} tweets have no time, though there is a column of it")
    print(f"{config.output}: complete")


def _warn(message: str) -> None:
    print(f"warning: {without_secrets(message)}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""prepare: raw tweets to pre-tokenized Arrow shards, each dropped row counted with its reason."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_tweets.common.errors import Interrupted, UserError, require_utf8, run_entry, without_secrets
from bert_tweets.common.terminal import ProgressBar, console
from bert_tweets.corpus.shards.manifest import FILE as MANIFEST_FILE
from bert_tweets.corpus.shards.manifest import (
    FUNNEL_FILE,
    RECORD_FILE,
    TOKENIZER_FOLDER,
    Manifest,
    how_to_recreate,
    read_errors,
    require_tokenizer,
)

from .common import output_folder
from .config import PrepareConfig, parser

if TYPE_CHECKING:
    from bert_tweets.corpus.sources.schema import Columns

_SALT_CHECK = "author_salt_scrypt"


def stage(argv: list[str]) -> None:
    """Reads the settings, then prepares."""
    prepare(parser.load(PrepareConfig, argv))


def main(argv: list[str] | None = None) -> None:
    """The command: settings from the arguments, one line and exit code 2 for a user's mistake."""
    run_entry(stage, argv)


def prepare(config: PrepareConfig) -> Manifest:
    """Makes a folder of shards, or finds that it is made already.

    Raises:
        UserError: see `text.sources`, `text.tokenizer` and `files`; nothing is left half-written.
    """
    from bert_tweets.corpus.pipeline.pipeline import WORK, WORK_VERSION, write_shards
    from bert_tweets.corpus.sources import discovery
    from bert_tweets.corpus.sources.byte_stream import file_name

    paths = discovery.expand(config.input, _warn)
    _require_distinct(paths)
    columns = discovery.find_columns(paths, _asked(config), config.group_columns)
    if config.filter.detect_language:
        columns = replace(columns, language=None)
    record = _record(config, paths, columns)
    if output_folder.is_up_to_date(config.output, RECORD_FILE, record, "prepare", _differences):
        manifest = _whole(Path(config.output))
        with contextlib.suppress(OSError):
            # Killed in its last moment, a run leaves it.
            (Path(config.output) / output_folder.MARKER).unlink()
        print(f"{config.output}: is complete, made from the same input and settings; nothing to do")
        return manifest
    names = [*map(file_name, paths[:3]), *(["..."] if len(paths) > 3 else [])]
    print(f"{'input:':12}{len(paths):,} file{'s' if len(paths) > 1 else ''} ({', '.join(names)})")
    for role, name in asdict(columns).items():
        if role == "language" and config.filter.detect_language:
            print(f"{role + ':':12}told from the text")
        elif role != "groups":
            print(f"{role + ':':12}{f'column {name!r}' if name is not None else 'no column'}")
    if columns.groups:
        print(f"{'kept:':12}columns {', '.join(map(repr, columns.groups))}")
    _require_columns(config, columns)
    with (
        _goes_on(),
        output_folder.atomic_output_folder(config.output, {**record, "work": WORK_VERSION}, _differences) as folder,
    ):
        if not (folder / MANIFEST_FILE).is_file():
            with ProgressBar("preparing") as advance:
                manifest, funnel = write_shards(config, paths, columns, folder, advance)
            _require_unchanged(paths, record["input"])
            output_folder.write_bytes(folder / RECORD_FILE, output_folder.to_json(record))
            output_folder.write_bytes(folder / FUNNEL_FILE, output_folder.to_json(funnel.to_json()))
            output_folder.write_atomic(folder / MANIFEST_FILE, output_folder.to_json(manifest.to_json()))
        shutil.rmtree(folder / WORK, ignore_errors=True)
    manifest = Manifest.read(config.output)
    _tell(config, paths, manifest)
    return manifest


@contextlib.contextmanager
def _goes_on() -> Iterator[None]:
    """Says of Ctrl-C, and of SIGTERM alike, what becomes of the work."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Python sets handlers on the main thread alone.
    if on_main_thread := threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on where it was") from None
    finally:
        if on_main_thread:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _require_distinct(paths: list[str]) -> None:
    """Raises UserError for a file that is read twice, or whose name no record can hold."""
    from bert_tweets.corpus.sources.byte_stream import is_url

    seen: set[str] = set()
    for path in paths:
        require_utf8(path)
        place = path if is_url(path) else os.path.realpath(path)
        if place in seen:
            raise UserError(f"{path}: is named twice in input, and its tweets would count twice; name it once")
        seen.add(place)


def _record(config: PrepareConfig, paths: list[str], columns: Columns) -> dict[str, Any]:
    """All that decides what the shards hold, as far as it may be written down."""
    from bert_tweets.corpus.pipeline.pipeline import deciding_settings, recipe_identity
    from bert_tweets.corpus.text.recipe import FORMAT_VERSION

    record = {
        "settings": deciding_settings(config),
        "input": _identities(paths),
        "columns": asdict(columns),
        "recipe": recipe_identity(config),
        "format": FORMAT_VERSION,
    }
    return {**record, _SALT_CHECK: _salt_check(config.author_salt)} if config.author_salt else record


def _identities(paths: list[str]) -> dict[str, Any]:
    """What tells of each file whether it is still the one that was read, by its name without secrets."""
    from bert_tweets.corpus.sources import discovery

    found: dict[str, Any] = {}
    for path, traces in discovery.file_identity(paths).items():
        name = without_secrets(path)
        found[name if name not in found else f"{name} {len(found)}"] = traces
    return found


def _require_unchanged(paths: list[str], before: dict[str, Any]) -> None:
    """Raises Interrupted where a local file is no longer the one that the shards are said to be made from."""
    from bert_tweets.corpus.sources.byte_stream import is_url

    # On the web the same file may be told otherwise by the next server.
    here = [path for path in paths if not is_url(path)]
    for path in here:
        if not Path(path).exists() or _identities([path])[path] != before[path]:
            raise Interrupted(f"{path}: changed while it was read; leave it alone, and give the same command again")


def _salt_check(salt: str) -> str:
    """Tells the same salt again: slow, that it is not found by trying, and equal for equal salts, as all output is."""
    return hashlib.scrypt(salt.encode(), salt=b"bert_tweets author_salt", n=2**14, r=8, p=1, dklen=16).hex()


def _differences(there: dict[str, Any], now: dict[str, Any]) -> list[output_folder.Difference]:
    """In what the output that is there was made otherwise, for people."""
    if there.get("format") != now.get("format"):
        return [output_folder.Difference("another version of this program made it")]
    before, after = _comparable(there), _comparable(now)
    found = [
        output_folder.Difference("author_salt (not the same as there)") if one.key == _SALT_CHECK else one
        for one in output_folder.differences({**before, "input": {}}, {**after, "input": {}})
    ]
    for name in sorted(before["input"].keys() | after["input"].keys()):
        if before["input"].get(name) != after["input"].get(name):
            found.append(_difference_of_file(name, before["input"].get(name), after["input"].get(name)))
    return found


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """A record in which what means the same is the same: paths are whole, columns are those that were found."""
    from bert_tweets.corpus.sources.byte_stream import is_url

    def whole(name: str) -> str:
        return name if is_url(name) else str(Path(name).expanduser().absolute())

    settings = {key: value for key, value in record["settings"].items() if not key.endswith(("_column", "_columns"))}
    settings["input"] = [whole(name) for name in settings["input"]]
    return {**record, "settings": settings, "input": {whole(name): file for name, file in record["input"].items()}}


def _difference_of_file(
    name: str, there: dict[str, Any] | None, now: dict[str, Any] | None
) -> output_folder.Difference:
    if there is None or now is None:
        return output_folder.Difference(f"{name} (read {'now' if there is None else 'there'} alone)")
    if there["bytes"] != now["bytes"] and None not in (there["bytes"], now["bytes"]):
        return output_folder.Difference(f"{name} ({there['bytes']:,} bytes there, {now['bytes']:,} now)")
    if "mtime_ns" not in there or "mtime_ns" not in now:
        return output_folder.Difference(f"{name} (changed since)")
    time = f"{there['mtime_ns'] // 10**9}.{there['mtime_ns'] % 10**9:09}"
    touch = f"touch -d @{time} {shlex.quote(name)}"
    return output_folder.Difference(
        f"{name} (written or touched since; if its content is the same: {touch})", name, True
    )


def _whole(folder: Path) -> Manifest:
    """The manifest of shards that are there already.

    Raises:
        UserError: a part of them is missing or cut off. verify reads every byte, this does not.
    """
    manifest = Manifest.read(folder)
    sizes = {entry.file: entry.bytes for split in manifest.splits.values() for entry in split}
    for name in (*sizes, FUNNEL_FILE, TOKENIZER_FOLDER):
        path = folder / name
        with read_errors(path):
            if not path.exists() or path.stat().st_size != sizes.get(name, path.stat().st_size):
                raise UserError(f"{path}: is missing, or has another size than it had; {how_to_recreate(folder)}")
    with read_errors(folder):
        require_tokenizer(folder, manifest)
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
    from bert_tweets.corpus.text import language

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


def _tell(config: PrepareConfig, paths: list[str], manifest: Manifest) -> None:
    from bert_tweets.corpus.pipeline.input_warnings import warnings
    from bert_tweets.corpus.shards.funnel import Funnel

    funnel = Funnel.from_file(Path(config.output) / FUNNEL_FILE)
    funnel.show(console())
    if added := manifest.recipe.added:
        shown = " ".join([*(token.token for token in added[:5]), *(["..."] if len(added) > 5 else [])])
        print(f"emoji=tokens: {len(added):,} new token{'s' if len(added) > 1 else ''} ({shown})")
    for warning in warnings(config, paths, manifest, funnel):
        _warn(warning)
    print(f"{config.output}: complete")


def _warn(message: str) -> None:
    print(f"warning: {without_secrets(message)}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""prepare: convert raw tweets to tokenized Arrow shards; every dropped row is counted with its reason."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bert_tweets.common.errors import UserError, run_entry, without_secrets
from bert_tweets.common.terminal import ProgressBar, console
from bert_tweets.corpus.shards.manifest import (
    FUNNEL_FILE,
    MANIFEST_FILE,
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
    from bert_tweets.corpus.pipeline.preparation import Preparation


def stage(argv: list[str]) -> None:
    """Read the settings, then prepare."""
    prepare(parser.load(PrepareConfig, argv))


def main(argv: list[str] | None = None) -> None:
    """Run the command; a user's mistake prints one line and ends with exit code 2."""
    run_entry(stage, argv)


def prepare(config: PrepareConfig) -> Manifest:
    """Make a folder of shards, or report that it is already made.

    Raises:
        UserError: the input, the tokenizer or the output cannot be used; nothing incomplete is left as output.
    """
    from bert_tweets.corpus.pipeline.pipeline import WORK, WORK_VERSION, write_shards
    from bert_tweets.corpus.pipeline.preparation import Preparation
    from bert_tweets.corpus.pipeline.prepare_record import prepare_record, record_differences, require_unchanged

    preparation = Preparation.of(config, _warn)
    record = prepare_record(preparation)
    if output_folder.is_up_to_date(config.output, RECORD_FILE, {**record}, "prepare", record_differences):
        manifest = _require_complete(Path(config.output))
        with contextlib.suppress(OSError):
            # A run that was killed at its very end leaves it.
            (Path(config.output) / output_folder.MARKER).unlink()
        print(f"{config.output}: is complete, made from the same input and settings; nothing to do")
        return manifest
    _show_input(preparation)
    preparation.require_filter_columns()
    made_from = {**record, "work": WORK_VERSION}
    with _interruptible(), output_folder.atomic_output_folder(config.output, made_from, record_differences) as folder:
        if not (folder / MANIFEST_FILE).is_file():
            with ProgressBar("preparing") as advance:
                manifest, funnel = write_shards(preparation, folder, advance)
            require_unchanged(preparation.paths, record)
            output_folder.write_bytes(folder / RECORD_FILE, output_folder.to_json(record))
            output_folder.write_bytes(folder / FUNNEL_FILE, output_folder.to_json(funnel.to_json()))
            output_folder.write_atomic(folder / MANIFEST_FILE, output_folder.to_json(manifest.to_json()))
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return _show_result(preparation)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """On Ctrl-C and SIGTERM, print how to resume."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Python allows signal handlers in the main thread only.
    if on_main_thread := threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("run the same command again to resume") from None
    finally:
        if on_main_thread:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _require_complete(folder: Path) -> Manifest:
    """The manifest of existing shards.

    Raises:
        UserError: a file is missing or truncated. This looks at sizes only; verify reads every byte.
    """
    manifest = Manifest.read(folder)
    sizes = {entry.file: entry.bytes for split in manifest.splits.values() for entry in split}
    for name in (*sizes, FUNNEL_FILE, TOKENIZER_FOLDER):
        path = folder / name
        with read_errors(path):
            if not path.exists() or path.stat().st_size != sizes.get(name, path.stat().st_size):
                raise UserError(f"{path}: is missing, or its size has changed; {how_to_recreate(folder)}")
    with read_errors(folder):
        require_tokenizer(folder, manifest)
    return manifest


def _show_input(preparation: Preparation) -> None:
    from bert_tweets.corpus.sources.byte_stream import file_name

    paths, columns = preparation.paths, preparation.columns
    names = [*map(file_name, paths[:3]), *(["..."] if len(paths) > 3 else [])]
    print(f"{'input:':12}{len(paths):,} file{'s' if len(paths) > 1 else ''} ({', '.join(names)})")
    for role, name in asdict(columns).items():
        if role == "language" and preparation.config.filter.detect_language:
            print(f"{role + ':':12}detected from the text")
        elif role != "groups":
            print(f"{role + ':':12}{f'column {name!r}' if name is not None else 'no column'}")
    if columns.groups:
        print(f"{'kept:':12}columns {', '.join(map(repr, columns.groups))}")


def _show_result(preparation: Preparation) -> Manifest:
    from bert_tweets.corpus.pipeline.input_warnings import warnings
    from bert_tweets.corpus.shards.funnel import Funnel

    config = preparation.config
    manifest = Manifest.read(config.output)
    funnel = Funnel.from_file(Path(config.output) / FUNNEL_FILE)
    funnel.show(console())
    if added := manifest.recipe.added:
        shown = " ".join([*(token.token for token in added[:5]), *(["..."] if len(added) > 5 else [])])
        print(f"emoji=tokens: {len(added):,} new token{'s' if len(added) > 1 else ''} ({shown})")
    for warning in warnings(config, preparation.paths, manifest, funnel):
        _warn(warning)
    print(f"{config.output}: complete")
    return manifest


def _warn(message: str) -> None:
    print(f"warning: {without_secrets(message)}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""The folder of a run: what may be written into it, and what it says when the run is over."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import UserError
from bert_tweets.common.output_folder import (
    MARKER,
    from_json,
    lock_folder,
    output_errors,
    write_atomic,
    write_json_atomic,
)
from bert_tweets.config import TrainConfig, parser

from . import checkpoint
from .resume import settings_that_stay

logger = logging.getLogger(__name__)

CONFIG, METRICS, VALIDATION, SKIPPED, SUMMARY, MODEL = (
    "config.yaml",
    "metrics.jsonl",
    "validation.jsonl",
    "skipped.jsonl",
    "run.json",
    "model",
)


def state(config: TrainConfig) -> str:
    """`new`, `unfinished` (this very run, begun and not ended) or `finished`. Changes nothing.

    Raises:
        UserError: the folder holds something else.
    """
    folder = Path(config.output)
    if not folder.exists():
        return "new"
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder with output=")
    if not any(folder.iterdir()):
        return "new"
    saved = folder / CONFIG
    if (folder / MARKER).is_file() and not saved.is_file():
        return "unfinished"
    if not saved.is_file():
        raise UserError(f"{folder}: holds other files; name a new folder with output=")
    # Batch by batch the same tweets, masks and steps come out of it: only then is it the same run.
    before = settings_that_stay(parser.load(TrainConfig, ["--config", str(saved)]))
    now = settings_that_stay(config)
    if changed := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
        raise UserError(
            f"{folder}: holds a run with other settings ({', '.join(changed)}); name a new folder with output="
        )
    return "finished" if (folder / SUMMARY).is_file() else "unfinished"


def require_made_from(config: TrainConfig, identity: dict[str, str]) -> None:
    """Refuses a finished run whose tweets or first weights were others, under the same names.

    Args:
        identity: what tells them, as `finish` wrote it.

    Raises:
        UserError: says which.
    """
    path = Path(config.output) / SUMMARY
    try:
        summary = from_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); name a new folder with output=") from None
    changed = [part for part, value in identity.items() if summary.get(part) != value]
    if changed:
        raise UserError(
            f"{config.output}: is finished, but over other {' and '.join(changed)} than are there now; "
            "name a new folder with output="
        )


@contextmanager
def begun(config: TrainConfig, step: int) -> Iterator[None]:
    """Makes the folder, or takes one that holds this run, unfinished, for as long as the block lasts; rank 0 calls it.

    Args:
        step: the run goes on behind it; what there is of later ones is removed.

    Raises:
        UserError: it cannot be written, or another run is writing there.
    """
    folder = Path(config.output)
    with ExitStack() as held:
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock_folder(folder))
            removed = checkpoint.forget_after(folder / checkpoint.FOLDER, step if step else -1)
            if removed:
                logger.info(f"removed, as the run continues without: {', '.join(removed)}")
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            write_atomic(folder / CONFIG, parser.dump(config).encode())
        yield


def finish(folder: Path, summary: dict[str, Any]) -> None:
    """Writes the summary, by which a run counts as finished."""
    write_json_atomic(folder / SUMMARY, summary)

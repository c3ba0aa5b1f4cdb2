"""The folder of a run: the names of its files, what state it is in, and the lock on it. Does not import torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from bert_tweets.common.errors import UserError
from bert_tweets.common.output_folder import MARKER, lock_folder, output_errors, write_atomic
from bert_tweets.config import TrainConfig, parser

from .fingerprint import settings_that_stay

CONFIG, SUMMARY, LOG = "config.yaml", "run.json", "train.log"
METRICS, VALIDATION, SKIPPED = "metrics.jsonl", "validation.jsonl", "skipped.jsonl"
MODEL, CHECKPOINTS, STACKS, PROFILE = "model", "checkpoints", "stacks", "profile"


def run_state(config: TrainConfig) -> Literal["new", "unfinished", "finished"]:
    """The state of the run in `output`: `unfinished` if this very run was started there and did not finish.

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
    if not saved.is_file():
        if (folder / MARKER).is_file():
            return "unfinished"
        raise UserError(f"{folder}: holds other files; name a new folder with output=")
    before = settings_that_stay(parser.load(TrainConfig, ["--config", str(saved)]))
    now = settings_that_stay(config)
    if changed := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
        raise UserError(
            f"{folder}: holds a run with other settings ({', '.join(changed)}); name a new folder with output="
        )
    return "finished" if (folder / SUMMARY).is_file() else "unfinished"


@contextmanager
def open_run_folder(config: TrainConfig) -> Iterator[None]:
    """Make the folder of a run and lock it during the block; an exported model in it is deleted. Rank 0 calls it.

    Raises:
        UserError: it cannot be written, or another run is writing there.
    """
    folder = Path(config.output)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        with output_errors(folder):
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            write_atomic(folder / CONFIG, parser.dump(config).encode())
        yield

"""The folder of a run: what may be written into it, and what it says when the run is over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .. import options
from ..config import TrainConfig
from ..errors import UserError
from ..files import MARKER, hold, write_atomic, write_json_atomic

CONFIG, METRICS, VALIDATION, SUMMARY, MODEL = (
    "config.yaml",
    "metrics.jsonl",
    "validation.jsonl",
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
    if saved.read_text(encoding="utf-8") != options.dump(config):
        changed = _changed(options.load(TrainConfig, ["--config", str(saved)]), config)
        raise UserError(f"{folder}: holds a run with other settings ({changed}); name a new folder with output=")
    return "finished" if (folder / SUMMARY).is_file() else "unfinished"


def require_made_from(config: TrainConfig, identity: dict[str, str]) -> None:
    """Refuses a finished run whose tweets or first weights were others, under the same names.

    Args:
        identity: what tells them, as `finish` wrote it.

    Raises:
        UserError: says which.
    """
    summary = json.loads((Path(config.output) / SUMMARY).read_text(encoding="utf-8"))
    changed = [part for part, value in identity.items() if summary.get(part) != value]
    if changed:
        raise UserError(
            f"{config.output}: is finished, but over other {' and '.join(changed)} than are there now; "
            "name a new folder with output="
        )


def begin(config: TrainConfig) -> Path:
    """Makes the folder, or empties an unfinished run of ours; rank 0 calls it."""
    folder = Path(config.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hold(folder)
        for name in (METRICS, VALIDATION):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        write_atomic(folder / CONFIG, options.dump(config).encode())
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}", found_by_one_rank=True) from None
    return folder


def finish(folder: Path, summary: dict[str, Any]) -> None:
    """Writes the summary, by which a run counts as finished."""
    write_json_atomic(folder / SUMMARY, summary)


def _changed(saved: TrainConfig, asked: TrainConfig) -> str:
    before, after = set(options.overrides(saved)), set(options.overrides(asked))
    keys = sorted({word.split("=")[0] for word in before ^ after})
    return ", ".join(keys) or CONFIG

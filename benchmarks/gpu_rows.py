"""Paths and sizes of a GPU run, and the rows of results that its parts write."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import append_jsonl, environment
from benchmarks.gpu_inputs import save_model

_SCHEMA = (
    *("who", "device", "ranks", "model", "precision", "engine", "attention", "optimizer_included"),
    *("tokens_per_second", "mfu", "padding_fraction", "peak_memory_bytes"),
)


@dataclass(frozen=True)
class GpuRun:
    """Paths and sizes of a GPU run.

    Attributes:
        call: "1" or "2".
        out: folder for results.
        work: folder with `shards`; it keeps models and compiled kernels for the next call.
        small: use tiny sizes, to test that everything runs.
    """

    call: str
    out: Path
    work: Path
    small: bool

    @classmethod
    def from_environment(cls) -> GpuRun:
        """Read the environment variables that benchmarks/gpu.sh sets."""
        names = ("GPU_CALL", "OUT", "WORK")
        call, out, work = (os.environ[name] for name in names)
        return cls(call, Path(out), Path(work), bool(os.environ.get("SMALL")))

    @property
    def shards(self) -> str:
        return str(self.work / "shards")

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def model(self, layers: int = 12) -> str:
        """Folder of a BERT with random weights and BERT-base's sizes; created if missing."""
        layers = min(layers, 2) if self.small else layers
        folder = self.work / f"bert-{layers}-layers"
        if not folder.exists():
            sizes = (64, layers, 2, 128) if self.small else (768, layers, 12, 3072)
            unfinished = folder.with_name(f"{folder.name}-{os.getpid()}")
            save_model(self.shards, str(unfinished), *map(str, sizes))
            try:
                unfinished.rename(folder)
            except OSError:  # the next part, which gets ready at the same time, was faster
                shutil.rmtree(unfinished)
        return str(folder)


class Rows:
    """Rows of results; each is printed and appended to a JSON Lines file immediately.

    Args:
        run: paths and sizes of the run.
    """

    def __init__(self, run: GpuRun):
        self.run, self.file = run, run.out / f"gpu-rows-{run.call}.jsonl"

    @cached_property
    def _common(self) -> dict[str, Any]:
        device = {"device": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
        return {**dict.fromkeys(_SCHEMA), **environment(), **device, "ranks": 1, "optimizer_included": False}

    def add(self, who: str, **columns: Any) -> dict[str, Any]:
        """Add a row.

        Args:
            who: name of the measurement.
            columns: further columns; `failed` is the reason if there is no result.
        """
        row = {**self._common, "who": who, **columns, "command": f"benchmarks/gpu.sh {self.run.call}"}
        append_jsonl(self.file, row)
        print(f"{who}: {', '.join(f'{name} {_format(value)}' for name, value in columns.items())}", flush=True)
        return row

    @contextmanager
    def record_errors(self, who: str, columns: dict[str, Any]) -> Iterator[None]:
        """Record an exception of the block as a row, and continue after the block."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.add(who, **columns, failed=f"{type(error).__name__}: {error}"[:300])


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]} ..."

"""What keeps steps alike: the same bits where asked, garbage collected between steps, and a look at where time goes."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

PROFILE = "profile"
# M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h: no mapping of its own for a tensor; the heap's end is given
# back from 2 GiB on, and grows by 64 MiB.
_KEEP = ((-4, 0), (-1, 2**31 - 1), (-2, 2**26))
# The first steps compile and allocate: they are left out of a trace.
_WAIT, _WARM_UP, _TRACED = 4, 1, 3


def make_deterministic() -> None:
    """Has every kernel give the same bits each time; before the device is first used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def keep_memory() -> None:
    """Has glibc keep what a step frees for the next one, for as long as the process lives; elsewhere does nothing.

    Large tensors are given back to the kernel otherwise, and each page that is touched again has to be filled with
    zeros first: a sixth of a step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter, value in _KEEP:
            mallopt(parameter, value)


@contextmanager
def garbage_by_hand() -> Iterator[None]:
    """No garbage collection in the middle of a step, where other ranks would wait for it: `collect` does it."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def collect() -> None:
    """Collects what has become garbage since `garbage_by_hand`."""
    gc.collect(1)


def profiler(output: Path, device: torch.device, active: bool) -> Any:
    """A context whose `step()` is called behind each step; leaves a trace of a few and a table in `output/profile`.

    Args:
        active: whether this rank traces; else nothing happens.
    """
    if not active:
        return nullcontext(_Nothing())
    from torch.profiler import ProfilerActivity, profile, schedule

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    folder = output / PROFILE

    def write(traced: Any) -> None:
        folder.mkdir(exist_ok=True)
        traced.export_chrome_trace(str(folder / "trace.json.gz"))
        by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        table = traced.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=60)
        (folder / "table.txt").write_text(f"{_TRACED} steps\n{table}", encoding="utf-8")

    return profile(
        activities=kinds,
        schedule=schedule(wait=_WAIT, warmup=_WARM_UP, active=_TRACED, repeat=1),
        on_trace_ready=write,
        acc_events=True,
    )


class _Nothing:
    def step(self) -> None:
        """Nothing is traced."""

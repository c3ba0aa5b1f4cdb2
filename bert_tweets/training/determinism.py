"""Steps that are alike: deterministic kernels, garbage collection between steps, and a profiler."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from .run_folder import PROFILE

# M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h: no mapping of its own for a tensor; the end of the heap is
# returned from 2 GiB on, and grows by 64 MiB.
_MALLOC_OPTIONS = ((-4, 0), (-1, 2**31 - 1), (-2, 2**26))
# The first steps compile and allocate: they are left out of a trace.
_WAIT, _WARM_UP, _TRACED = 4, 1, 3


def make_deterministic() -> None:
    """Make every kernel return the same bits each time; call it before the device is first used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def keep_heap() -> None:
    """Make glibc keep the memory that a step frees, for as long as the process lives; elsewhere do nothing.

    Otherwise large tensors are returned to the kernel, which fills each page with zeros when it is used again: a sixth
    of a step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter, value in _MALLOC_OPTIONS:
            mallopt(parameter, value)


@contextmanager
def manual_gc() -> Iterator[None]:
    """Disable garbage collection, so that no rank waits for it in the middle of a step; call `gc_step` instead."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def gc_step() -> None:
    """Collect the garbage of the steps since `manual_gc` started, or since the last call."""
    gc.collect(1)


def profiler(output: Path, device: torch.device, active: bool) -> Any:
    """A context whose `step()` is called after each step; if active, writes a trace of a few steps to `profile/`."""
    if not active:
        return nullcontext(SimpleNamespace(step=lambda: None))
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

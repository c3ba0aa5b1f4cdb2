"""Timing of work on a device: wall clock on a CPU, CUDA events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def timestamp(device: torch.device) -> Any:
    """A timestamp in the device's queue of work; it does not wait for the device."""
    if device.type == "cpu":
        return time.perf_counter()
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(start: Any, end: Any) -> float:
    """Seconds between two timestamps; the device must have passed both."""
    return float(end - start if isinstance(start, float) else start.elapsed_time(end) / 1000)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that the device takes for a run."""
    synchronize(device)
    start = timestamp(device)
    run()
    end = timestamp(device)
    synchronize(device)
    return seconds_between(start, end)

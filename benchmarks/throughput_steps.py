"""What the timed processes of `benchmarks.throughput` share: commands in, steps timed one by one, peak memory.

A process reads commands, a line of JSON each, and answers each with one: `build` makes what is to be timed, `turn`
runs some steps of it and tells of each its seconds, tokens, tweets and positions. Between turns it waits.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Command = dict[str, Any]


class Channel:
    """Commands from stdin, answers to what stdout was; whatever else prints goes to stderr."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def next(self) -> Command | None:
        line = sys.stdin.readline()
        return json.loads(line) if line.strip() else None

    def answer(self, **what: Any) -> None:
        self._answers.write(json.dumps(what) + "\n")


class Steps:
    """The steps of a turn. Nothing waits for the device until the turn's end: on a GPU, events tell the seconds.

    Counts of a step may be tensors on the device; they are read at the end too.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._marks: list[Any] = []
        self._counts: list[tuple[int | Tensor, int | Tensor, int]] = []

    def begin(self) -> None:
        synchronize(self.device)
        self._marks, self._counts = [moment(self.device)], []

    def count(self, tokens: int | Tensor, tweets: int | Tensor, positions: int) -> None:
        """What the step about to run holds: real tokens, tweets, and positions with padding."""
        self._counts.append((tokens, tweets, positions))

    def end_step(self) -> None:
        self._marks.append(moment(self.device))

    def end(self, warm: int) -> dict[str, Any]:
        """The steps of the turn, the first `warm` left out, and the peak of memory since the last `fresh_memory`.

        On a CPU, the peak is how far the process has grown since it began to serve.
        """
        synchronize(self.device)
        seconds = [between(one, other) for one, other in zip(self._marks, self._marks[1:], strict=False)]
        tokens, tweets, positions = ([int(count) for count in counts] for counts in zip(*self._counts, strict=True))
        found: dict[str, list[Any]] = {"seconds": seconds, "tokens": tokens, "tweets": tweets, "positions": positions}
        kept = {name: values[warm : len(seconds)] for name, values in found.items()}
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.empty_cache()  # others have their turn now
        else:
            peak = _status("VmHWM") - _resident_before
        return {**kept, "peak_memory_bytes": peak}


def moment(device: torch.device) -> Any:
    """This moment of the device's work."""
    if device.type == "cpu":
        return time.perf_counter()
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def between(one: Any, other: Any) -> float:
    """Seconds between two moments; the device is done with both."""
    return float(other - one if isinstance(one, float) else one.elapsed_time(other) / 1000)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# Bytes, when the process began to serve.
_resident_before = 0


def fresh_memory(device: torch.device) -> None:
    """Forgets what was built before; peaks are counted from here on."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident memory begins anew


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def hello(device: torch.device) -> dict[str, Any]:
    """The device by name, its kind and the memory it has."""
    if device.type == "cpu":
        return {"kind": "cpu", "threads": torch.get_num_threads()}
    memory = torch.cuda.get_device_properties(device).total_memory
    return {"kind": "gpu", "device": torch.cuda.get_device_name(device), "memory_bytes": memory}


def serve(channel: Channel, device: torch.device, build: Callable[[Command], Command | None]) -> None:
    """Answers commands to the end of stdin.

    Args:
        build: builds and answers; then answers turns and the like, until it is given a command that is not its own,
            which it returns.
    """
    from transformers import BertForMaskedLM  # noqa: F401 - code that all load counts for none of them

    global _resident_before
    _resident_before = _status("VmRSS")
    channel.answer(**hello(device))
    command = channel.next()
    while command is not None:
        problem = ""
        try:
            fresh_memory(device)
            command = build(command)
            continue
        except torch.OutOfMemoryError:
            problem = "out of memory"
        except Exception as error:
            import traceback

            traceback.print_exc()
            problem = (f"{type(error).__name__}: {error}".splitlines() or [""])[0][:300]
        # Outside of the handler, so that the traceback no longer holds what was built.
        channel.answer(error=problem)
        command = channel.next()

"""The worker side of timed training: commands in, answers out, steps timed one by one, peak memory.

A worker reads commands, one line of JSON each, and answers each with one line: `build` makes a training run, and `turn`
runs some of its steps and returns each one's seconds, tokens, tweets and positions. Between turns it waits.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.device_timing import seconds_between, synchronize, timestamp
from bert_tweets.common.errors import UserError

Command = dict[str, Any]


class Channel:
    """Commands from stdin and answers to the original stdout; other output is redirected to stderr."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def next(self) -> Command | None:
        line = sys.stdin.readline()
        return json.loads(line) if line.strip() else None

    def answer(self, **values: Any) -> None:
        self._answers.write(json.dumps(values) + "\n")


class StepTimer:
    """Times the steps of a turn, without waiting for the device until the turn ends.

    A step's counts may be tensors on the device; they are read at the end too.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._timestamps: list[Any] = []
        self._counts: list[tuple[int | Tensor, int | Tensor, int]] = []

    def begin(self) -> None:
        synchronize(self.device)
        self._timestamps, self._counts = [timestamp(self.device)], []

    def count(self, tokens: int | Tensor, tweets: int | Tensor, positions: int) -> None:
        """Count the next step's real tokens, tweets, and positions including padding."""
        self._counts.append((tokens, tweets, positions))

    def end_step(self) -> None:
        self._timestamps.append(timestamp(self.device))

    def end(self, warmup: int) -> dict[str, Any]:
        """End the turn.

        Returns:
            `seconds`, `tokens`, `tweets` and `positions` of each step except the first `warmup`, and
            `peak_memory_bytes` since the last `reset_memory`; on a CPU, how far the process has grown since `serve`.
        """
        synchronize(self.device)
        seconds = [seconds_between(start, end) for start, end in pairwise(self._timestamps)]
        tokens, tweets, positions = ([int(count) for count in counts] for counts in zip(*self._counts, strict=True))
        columns: dict[str, list[Any]] = {"seconds": seconds, "tokens": tokens, "tweets": tweets, "positions": positions}
        counted = {name: values[warmup : len(seconds)] for name, values in columns.items()}
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.empty_cache()  # for the other groups' turns
        else:
            peak = _status("VmHWM") - _resident_before
        return {**counted, "peak_memory_bytes": peak}


# Resident memory in bytes when the process began to serve.
_resident_before = 0


def reset_memory(device: torch.device) -> None:
    """Free what was built before, and measure peak memory from here on."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak of resident memory


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def hello(device: torch.device) -> dict[str, Any]:
    """The first answer of a worker: kind, name and memory of its device."""
    if device.type == "cpu":
        return {"kind": "cpu", "threads": torch.get_num_threads()}
    memory = torch.cuda.get_device_properties(device).total_memory
    return {"kind": "gpu", "device": torch.cuda.get_device_name(device), "memory_bytes": memory}


def serve(channel: Channel, device: torch.device, build: Callable[[Command], Command | None]) -> None:
    """Answer commands until stdin ends.

    Args:
        channel: commands and answers.
        device: device of the steps.
        build: carries out and answers a command and those that follow, up to a command it cannot handle, which it
            returns. It may raise `UserError` if the command is not supported here.
    """
    from transformers import BertForMaskedLM  # noqa: F401 - load it before memory is measured, as all workers need it

    global _resident_before
    _resident_before = _status("VmRSS")
    channel.answer(**hello(device))
    command = channel.next()
    while command is not None:
        answer = {}
        try:
            reset_memory(device)
            command = build(command)
            continue
        except torch.OutOfMemoryError:
            answer = {"error": "out of memory"}
        except UserError as error:
            answer = {"skipped": str(error)}
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {"error": (f"{type(error).__name__}: {error}".splitlines() or [""])[0][:300]}
        # Outside the handler, so that the traceback no longer keeps the built run alive.
        channel.answer(**answer)
        command = channel.next()

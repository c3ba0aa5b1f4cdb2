"""How long a rank computes by itself in each step, before it first waits for others."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Seconds between `start` and `stop`, step by step; on a GPU measured there, and read without waiting for each.

    From one to the other a rank waits for no other one (under ZeRO 3 it does: weights are gathered on the way).
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._seconds: list[float] = []
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._begun = 0.0

    def start(self) -> None:
        if self.device.type == "cuda":
            both = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            self._events.append((both[0], both[1]))
            self._events[-1][0].record()
        self._begun = time.perf_counter()

    def stop(self) -> None:
        if self.device.type == "cuda":
            self._events[-1][1].record()
        else:
            self._seconds.append(time.perf_counter() - self._begun)

    def read(self) -> list[float]:
        """The seconds of each step since the last reading; to be called when the device is waited for anyway."""
        seconds = self._seconds + [begun.elapsed_time(ended) / 1000 for begun, ended in self._events]
        self._seconds, self._events = [], []
        return seconds

"""The time that a rank computes alone in each step, before it first waits for others."""

from __future__ import annotations

import time

import torch


class StepTimer:
    """Seconds from `start` to `stop` of each step; on a GPU measured by events, without waiting for it.

    In between a rank waits for no other (except under ZeRO 3, which gathers weights in the forward pass).
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._seconds: list[float] = []
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._started = 0.0

    def start(self) -> None:
        if self.device.type == "cuda":
            both = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            self._events.append((both[0], both[1]))
            self._events[-1][0].record()
        self._started = time.perf_counter()

    def stop(self) -> None:
        if self.device.type == "cuda":
            self._events[-1][1].record()
        else:
            self._seconds.append(time.perf_counter() - self._started)

    def read(self) -> list[float]:
        """The seconds of each step since the last call; call it when the device is waited for anyway."""
        seconds = self._seconds + [start.elapsed_time(end) / 1000 for start, end in self._events]
        self._seconds, self._events = [], []
        return seconds

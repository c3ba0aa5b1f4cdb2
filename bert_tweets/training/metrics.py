"""Metrics: what a run did, a line of JSON a logged step, and a progress bar where somebody watches."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..data.batches import Step
from ..engine.world import World


class IntervalMeter:
    """Sums what happened since the last logged line. Reads the device only when a line is due.

    Args:
        world: the ranks.
        flops_per_token: of the model.
        peak: matrix peak of one device in FLOP/s.
    """

    def __init__(self, world: World, flops_per_token: float, peak: float):
        self.world, self.flops_per_token, self.peak = world, flops_per_token, peak
        self._restart()

    def _restart(self) -> None:
        self.started = time.perf_counter()
        self.waited = 0.0
        self.steps = self.masked = self.tokens = self.tweets = self.positions = 0
        self.loss_sum: Tensor | None = None
        self.last: Tensor | None = None

    def add(self, step: Step, loss_share: Tensor, waited: float) -> None:
        """Counts a step: its loss as this rank's share, the seconds that it waited for data."""
        self.steps += 1
        self.waited += waited
        self.masked += step.masked_tokens
        self.tokens += step.tokens
        self.tweets += step.tweets
        self.positions += step.positions
        weighted = loss_share * step.masked_tokens
        self.loss_sum = weighted if self.loss_sum is None else self.loss_sum + weighted
        self.last = loss_share

    def line(self, grad_norm: Tensor) -> dict[str, float]:
        """The metrics of the interval, the same on every rank; starts the next. Waits for the device."""
        assert self.loss_sum is not None and self.last is not None
        losses = self.world.sum(torch.stack([self.last, self.loss_sum]).float()).tolist()
        seconds = time.perf_counter() - self.started
        rate = self.tokens / seconds
        line = {
            "loss": losses[0],
            "loss_mean": losses[1] / max(1, self.masked),
            "grad_norm": float(grad_norm),
            "tokens_per_second": rate,
            "tweets_per_second": self.tweets / seconds,
            "mfu": rate * self.flops_per_token / (self.peak * self.world.world_size),
            "padding_fraction": 1 - self.tokens / max(1, self.positions),
            "data_wait_fraction": self.waited / seconds,
            "step_seconds": seconds / self.steps,
        }
        self._restart()
        return line

    def exclude(self, seconds: float) -> None:
        """Takes time that was not training (a validation) out of the interval."""
        self.started += seconds


class JsonLines:
    """A file of one JSON object a line; on other ranks than 0 nothing."""

    def __init__(self, path: Path, active: bool):
        self.file = path.open("w", encoding="utf-8") if active else None

    def write(self, record: dict[str, Any]) -> None:
        if self.file:
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()


class Progress:
    """A progress bar on a terminal, a plain line now and then elsewhere, nothing on other ranks than 0."""

    def __init__(self, total: int, active: bool):
        self.active, self.total = active, total
        self.bar: Any = None
        if active and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self.bar = RichProgress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, done: int, line: dict[str, float] | None) -> None:
        """`done` steps are done; `line` where one was logged."""
        text = f"loss {line['loss_mean']:.3f}  {line['tokens_per_second']:,.0f} tokens/s" if line else None
        if self.bar:
            self.bar.update(self.task, completed=done, **({"description": text} if text else {}))
        elif text and self.active and (done % max(1, self.total // 10) == 0 or done == self.total):
            self.say(f"step {done}/{self.total}  {text}")

    def say(self, text: str) -> None:
        """A line for the user, by rank 0."""
        if self.bar:
            self.bar.console.print(text, markup=False, highlight=False)
        elif self.active:
            print(text, flush=True)

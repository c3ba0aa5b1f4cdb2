"""Metrics of a run: one line of JSON for each logged step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert_tweets.common.output_folder import from_json, output_errors, write_atomic
from bert_tweets.data.batches import Step
from bert_tweets.distributed.world import World
from bert_tweets.engine.step_timer import Stopwatch

_COUNTED = ("waits", "steps", "tokens", "tweets", "positions")


class IntervalMeter:
    """Sums what happened since the last logged line. Reads the device only when a line is due.

    Args:
        world: the ranks.
        stopwatch: of the engine.
        flops_per_token: of the model.
        peak: matrix peak of one device in FLOP/s.
    """

    def __init__(self, world: World, stopwatch: Stopwatch, flops_per_token: float, peak: float):
        self.world, self.stopwatch, self.flops_per_token, self.peak = world, stopwatch, flops_per_token, peak
        self._restart()

    def _restart(self) -> None:
        self.started = time.perf_counter()
        self.waits: list[float] = []
        self.steps = self.tokens = self.tweets = self.positions = 0
        # The sum of this rank's losses and the count of masked tokens, of the steps that were not skipped.
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        self.last: Tensor | None = None

    def add(self, step: Step, loss_share: Tensor, grad_norm: Tensor, waited: float) -> None:
        """Counts a step: its loss as this rank's share, its gradient's norm, the seconds that it waited for data."""
        self.steps += 1
        self.waits.append(waited)
        self.tokens += step.tokens
        self.tweets += step.tweets
        self.positions += step.positions
        # As shares of one: what is multiplied by the count gives the sum of the losses, and the count.
        shares = torch.stack([loss_share.double(), torch.ones_like(self.sums[0])])
        taken = torch.isfinite(grad_norm).to(shares.device)
        self.sums += torch.where(taken, shares * step.masked_tokens, 0.0)
        self.last = loss_share

    def state(self) -> dict[str, Any]:
        """Where the interval stands, the same on every rank; they all call it. Waits for the device."""
        sums = self.world.all_gather_concat(self.sums.cpu().numpy()[None])
        counted = {name: getattr(self, name) for name in _COUNTED}
        return {**counted, "seconds": time.perf_counter() - self.started, "sums_by_rank": sums.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on in the interval of a state; among another number of ranks, rank 0 takes what all of them had."""
        for name in _COUNTED:
            setattr(self, name, state[name])
        self.started = time.perf_counter() - state["seconds"]
        by_rank = torch.tensor(state["sums_by_rank"], dtype=torch.float64)
        if len(by_rank) == self.world.world_size:
            mine = by_rank[self.world.rank]
        else:
            # All ranks count all masked tokens.
            mine = torch.stack([by_rank[:, 0].sum() * self.world.is_main, by_rank[0, 1]])
        self.sums = mine.to(self.world.device)

    def line(self, grad_norm: Tensor) -> dict[str, Any]:
        """The metrics of the interval, the same on every rank; starts the next. Waits for the device.

        What is not a finite number is None. `slowest_rank` is the one whose median of
        computing and waiting for data is the longest.
        """
        assert self.last is not None
        # The losses are of parts of each step, the masked tokens are of all of it.
        loss, loss_sum = self.world.sum(torch.stack([self.last.double(), self.sums[0]])).tolist()
        seconds = time.perf_counter() - self.started
        rate = self.tokens / seconds
        line = {
            "loss": loss,
            "loss_mean": loss_sum / masked if (masked := float(self.sums[1])) else math.nan,
            "grad_norm": float(grad_norm),
            "tokens_per_second": rate,
            "tweets_per_second": self.tweets / seconds,
            "mfu": rate * self.flops_per_token / (self.peak * self.world.world_size),
            "padding_fraction": 1 - self.tokens / max(1, self.positions),
            "data_wait_fraction": sum(self.waits) / seconds,
            "step_seconds": seconds / self.steps,
        }
        by_rank = self._by_rank()
        self._restart()
        return {name: finite(value) for name, value in line.items()} | by_rank

    def _by_rank(self) -> dict[str, Any]:
        """What each rank took by itself in a step, and waited for data: median and 95th percentile, in seconds."""
        computed = self.stopwatch.read() or [0.0]
        mine = [np.percentile(values, (50, 95)) for values in (computed, self.waits or [0.0])]
        every = self.world.all_gather_concat(np.stack(mine)[None])
        slowest = int(every[:, :, 0].sum(axis=1).argmax())
        return {
            "rank_compute_seconds": every[:, 0].round(6).tolist(),
            "rank_data_wait_seconds": every[:, 1].round(6).tolist(),
            "slowest_rank": slowest,
        }

    def exclude(self, seconds: float) -> None:
        """Takes time that was not training (a validation) out of the interval."""
        self.started += seconds


def finite(value: float | None) -> float | None:
    """The number; None where it is none that is finite, for which JSON has no word."""
    return value if value is not None and math.isfinite(value) else None


class JsonLines:
    """A file of one JSON object a line; on other ranks than 0 nothing.

    Args:
        path: of the file.
        active: whether this rank writes.
        done: lines of later steps are cut, as a run that goes on writes them again; by default all of them.
    """

    def __init__(self, path: Path, active: bool, done: int = -1):
        self.path, self.active = path, active
        if active and path.exists():
            write_atomic(path, b"".join(_lines_until(path, done)))

    def write(self, record: dict[str, Any]) -> None:
        if self.active:
            with output_errors(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


class Totals:
    """What a run has done, over all its launches."""

    def __init__(self) -> None:
        self.tokens = self.tweets = 0
        self.seconds = 0.0
        self._started = time.perf_counter()

    def add(self, step: Step) -> None:
        self.tokens += step.tokens
        self.tweets += step.tweets

    def state(self) -> dict[str, Any]:
        seconds = self.seconds + time.perf_counter() - self._started
        return {"tokens": self.tokens, "tweets": self.tweets, "seconds": seconds}

    def restore(self, state: dict[str, Any]) -> None:
        self.tokens, self.tweets, self.seconds = state["tokens"], state["tweets"], state["seconds"]


def utc_now() -> str:
    """The current time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def progress_note(line: dict[str, Any]) -> str:
    """What the progress bar shows of a line of metrics."""
    loss = "not finite" if line["loss_mean"] is None else f"{line['loss_mean']:.3f}"
    return f"loss {loss}, {line['tokens_per_second']:,.0f} tokens/s"


def _lines_until(path: Path, done: int) -> Iterator[bytes]:
    """The lines of a file whose steps are done; one that was not written to its end is left out."""
    if done < 0 or not path.is_file():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        with suppress(ValueError, KeyError, TypeError):
            if line.endswith(b"\n") and from_json(line)["step"] <= done:
                yield line

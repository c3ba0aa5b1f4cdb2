"""Metrics of a run: sums between two logged steps, and the files of JSON lines."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
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
from bert_tweets.engine.step_timer import StepTimer

from .checkpoint import MeterState, TotalsState
from .records import MetricsLine

_COUNTED = ("waits", "steps", "tokens", "tweets", "positions")


class IntervalMeter:
    """Sums over the steps since the last logged line. Reads the device only when a line is due.

    `flops_per_token` are the model's per real token, `peak` is that of one device's matrix products in FLOP/s.
    """

    def __init__(self, world: World, timer: StepTimer, flops_per_token: float, peak: float):
        self.world, self.timer, self.flops_per_token, self.peak = world, timer, flops_per_token, peak
        self._restart()

    def _restart(self) -> None:
        self.started = time.perf_counter()
        self.waits: list[float] = []
        self.steps = self.tokens = self.tweets = self.positions = 0
        # Sum of this rank's losses, and count of masked tokens, of the steps that were not skipped.
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        self.last: Tensor | None = None

    def add(self, step: Step, loss_share: Tensor, grad_norm: Tensor, waited: float) -> None:
        """Add a step: this rank's share of its loss, the norm of its gradient, the seconds it waited for data."""
        self.steps += 1
        self.waits.append(waited)
        self.tokens += step.tokens
        self.tweets += step.tweets
        self.positions += step.positions
        # [share, 1] times the masked count gives [sum of the losses, masked count].
        shares = torch.stack([loss_share.double(), torch.ones_like(self.sums[0])])
        taken = torch.isfinite(grad_norm).to(shares.device)
        self.sums += torch.where(taken, shares * step.masked_tokens, 0.0)
        self.last = loss_share

    def state(self) -> MeterState:
        """The state of the interval, the same on every rank; all ranks call it. Waits for the device."""
        sums = self.world.all_gather_concat(self.sums.cpu().numpy()[None])
        counted = {name: getattr(self, name) for name in _COUNTED}
        return MeterState(**counted, seconds=time.perf_counter() - self.started, sums_by_rank=sums.tolist())

    def restore(self, state: MeterState) -> None:
        """Resume the interval of a state; at another number of ranks, rank 0 takes the sums of all of them."""
        for name in _COUNTED:
            setattr(self, name, getattr(state, name))
        self.started = time.perf_counter() - state.seconds
        by_rank = torch.tensor(state.sums_by_rank, dtype=torch.float64)
        if len(by_rank) == self.world.world_size:
            mine = by_rank[self.world.rank]
        else:
            # Every rank counts all masked tokens.
            mine = torch.stack([by_rank[:, 0].sum() * self.world.is_main, by_rank[0, 1]])
        self.sums = mine.to(self.world.device)

    def line(self, step: int, epoch: float, learning_rate: float, grad_norm: Tensor) -> MetricsLine:
        """The metrics of the interval, the same on every rank; starts the next interval. Waits for the device.

        `slowest_rank` is the rank with the longest median of computing plus waiting for data.
        """
        assert self.last is not None
        # Losses are shares of each step, masked tokens are of the whole step.
        loss, loss_sum = self.world.sum(torch.stack([self.last.double(), self.sums[0]])).tolist()
        seconds = time.perf_counter() - self.started
        rate = self.tokens / seconds
        by_rank = self._seconds_by_rank()
        line: MetricsLine = {
            "time": utc_now(),
            "step": step,
            "epoch": epoch,
            "learning_rate": learning_rate,
            "loss": finite(loss),
            "loss_mean": finite(loss_sum / masked) if (masked := float(self.sums[1])) else None,
            "grad_norm": finite(float(grad_norm)),
            "tokens_per_second": finite(rate),
            "tweets_per_second": finite(self.tweets / seconds),
            "mfu": finite(rate * self.flops_per_token / (self.peak * self.world.world_size)),
            "padding_fraction": finite(1 - self.tokens / max(1, self.positions)),
            "data_wait_fraction": finite(sum(self.waits) / seconds),
            "step_seconds": finite(seconds / self.steps),
            "rank_compute_seconds": by_rank[:, 0].round(6).tolist(),
            "rank_data_wait_seconds": by_rank[:, 1].round(6).tolist(),
            "slowest_rank": int(by_rank[:, :, 0].sum(axis=1).argmax()),
        }
        self._restart()
        return line

    def _seconds_by_rank(self) -> np.ndarray[Any, Any]:
        """Seconds per step that each rank computed alone, and waited for data: [ranks, 2, (median, 95 %)]."""
        computed = self.timer.read() or [0.0]
        mine = [np.percentile(values, (50, 95)) for values in (computed, self.waits or [0.0])]
        return self.world.all_gather_concat(np.stack(mine)[None])

    def exclude(self, seconds: float) -> None:
        """Leave time that was not training (a validation) out of the interval."""
        self.started += seconds


def finite(value: float | None) -> float | None:
    """The number, or None if it is not finite, which JSON cannot represent."""
    return value if value is not None and math.isfinite(value) else None


class JsonLines:
    """A file of one JSON object per line; nothing is written unless `active`.

    Lines of steps after `done` are removed, because a resumed run writes them again; -1: all lines.
    """

    def __init__(self, path: Path, active: bool, done: int = -1):
        self.path, self.active = path, active
        if active and path.exists():
            write_atomic(path, b"".join(_lines_until(path, done)))

    def write(self, record: Mapping[str, Any]) -> None:
        if self.active:
            with output_errors(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


class Totals:
    """Real tokens, tweets and seconds of a run, over all its launches."""

    def __init__(self) -> None:
        self.tokens = self.tweets = 0
        self.seconds = 0.0
        self._started = time.perf_counter()

    def add(self, step: Step) -> None:
        self.tokens += step.tokens
        self.tweets += step.tweets

    def state(self) -> TotalsState:
        return TotalsState(self.tokens, self.tweets, self.seconds + time.perf_counter() - self._started)

    def restore(self, state: TotalsState) -> None:
        self.tokens, self.tweets, self.seconds = state.tokens, state.tweets, state.seconds


def utc_now() -> str:
    """The current time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines_until(path: Path, done: int) -> Iterator[bytes]:
    """The lines of a file up to step `done`; a line that was cut off is left out."""
    for line in path.read_bytes().splitlines(keepends=True) if done >= 0 else []:
        with suppress(ValueError, KeyError, TypeError):
            if line.endswith(b"\n") and from_json(line)["step"] <= done:
                yield line

"""The learning rate of each step: linear warm-up, then linear or cosine decay to zero, or none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import ScheduleConfig


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule.

    Attributes:
        name: linear, cosine or constant.
        peak: rate at the end of the warm-up.
        warmup_steps, total_steps: in optimizer steps.
    """

    name: str
    peak: float
    warmup_steps: int
    total_steps: int

    def learning_rate(self, step: int) -> float:
        """The rate of step `step`, counted from 0; never 0 before the end."""
        if step < self.warmup_steps:
            return self.peak * ((step + 1) / self.warmup_steps)
        if self.name == "constant":
            return self.peak
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        if self.name == "cosine":
            return self.peak * 0.5 * (1 + math.cos(math.pi * done))
        return self.peak * (1 - done)


def schedule_of(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """The schedule of a run; warm-up is 6 % of the steps (Liu et al. 2019, RoBERTa) where none is given."""
    warmup = config.warmup_steps if config.warmup_steps is not None else round(0.06 * total_steps)
    return Schedule(config.name, peak, min(warmup, total_steps), total_steps)

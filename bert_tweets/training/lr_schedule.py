"""The learning rate of each step: linear warm-up, then a decay (linear, cosine, only at the end) or none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bert_tweets.config import ScheduleConfig


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule.

    `wsd` is warm-up, stable, decay (Hu et al. 2024, MiniCPM, section 4.2): the rate stays at its peak until the last
    `decay_steps`, so that a longer run is the same up to there. The decay is 1 - sqrt, the best of those compared by
    Hägele et al. 2024 (Scaling laws and compute-optimal training beyond fixed training durations, section 3).

    `name` is linear, cosine, constant or wsd; steps are optimizer steps; only wsd reads `decay_steps`.
    """

    name: str
    peak: float
    warmup_steps: int
    total_steps: int
    decay_steps: int = 0

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0; never 0 before the end."""
        if step < self.warmup_steps:
            return self.peak * ((step + 1) / self.warmup_steps)
        if self.name == "constant":
            return self.peak
        if self.name == "wsd":
            decayed = max(0, step - (self.total_steps - self.decay_steps)) / max(1, self.decay_steps)
            return self.peak * (1 - math.sqrt(decayed))
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        if self.name == "cosine":
            return self.peak * 0.5 * (1 + math.cos(math.pi * done))
        return self.peak * (1 - done)


def schedule_of(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """The schedule of a run; by default the warm-up is 6 % of the steps (Liu et al. 2019, RoBERTa).

    By default the decay of wsd is 10 %, which is enough (Hu et al. 2024); it never overlaps the warm-up.
    """
    warmup = config.warmup_steps if config.warmup_steps is not None else round(0.06 * total_steps)
    warmup = min(warmup, total_steps)
    decay = config.decay_steps if config.decay_steps is not None else round(0.1 * total_steps)
    return Schedule(config.name, peak, warmup, total_steps, min(decay, total_steps - warmup))

"""Steps that were skipped, as their loss or gradient was not finite: counted, written down, and at last too many."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.order import Stream
from ..data.shards import Split
from ..errors import UserError
from .metrics import JsonLines

# Steps in which the budget may be used up.
_WINDOW = 1000
_NAMED = 3


class SkippedSteps:
    """Keeps the norms of gradients until a line of metrics is due: no step waits for the device.

    The norm is the same on all ranks, so they all know the same.

    Args:
        stream: tells which tweets a step had.
        split: tells their ids.
        budget: so many may be skipped among the last thousand steps.
        file: takes a line for each skipped step.
    """

    def __init__(self, stream: Stream, split: Split, budget: int, file: JsonLines):
        self.stream, self.split, self.budget, self.file = stream, split, budget, file
        self.steps: list[int] = []
        self._unread: list[tuple[int, Tensor]] = []

    def add(self, step: int, grad_norm: Tensor) -> None:
        """Takes note of a step (from 0) and of the norm of its gradient, unread."""
        self._unread.append((step, grad_norm.detach()))

    def read(self) -> list[int]:
        """Waits for the device; writes down the steps that were skipped since, from 1 on as people count.

        Raises:
            UserError: they are too many; all ranks raise it.
        """
        if not self._unread:
            return []
        finite = torch.isfinite(torch.stack([norm for _, norm in self._unread])).tolist()
        skipped = [step for (step, _), fine in zip(self._unread, finite, strict=True) if not fine]
        last = self._unread[-1][0]
        self._unread.clear()
        for step in skipped:
            _, tweets = self.stream.slice(step, 0, 1)
            self.file.write({"step": step + 1, "ids": self.split.column("id", tweets), "tweets": tweets.tolist()})
        self.steps = [step for step in [*self.steps, *skipped] if step > last - _WINDOW]
        if len(self.steps) > self.budget:
            more = ["..."] if len(self.steps) > _NAMED else []
            named = ", ".join([*(str(step + 1) for step in self.steps[:_NAMED]), *more])
            raise UserError(
                f"{len(self.steps)} of the last {min(last + 1, _WINDOW):,} steps had a loss or a gradient that is not "
                f"finite (steps {named}; their tweets are in {self.file.path}), more than "
                f"max_skipped_steps={self.budget}; lower optimizer.learning_rate, or use precision=bf16 or fp32"
            )
        return [step + 1 for step in skipped]

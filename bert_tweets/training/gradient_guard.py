"""Checks of the gradient norms of a run: steps that are not finite, or that train nothing, are reported and limited."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards.reader import Split
from bert_tweets.data.batches import Step
from bert_tweets.data.permutation import Stream

from . import messages
from .checkpoint import GuardState
from .metrics import JsonLines
from .records import SkippedLine

# Steps that the budget applies to.
_WINDOW = 1000


@dataclass(frozen=True)
class GradientProblem:
    """A step (from 0) that was skipped because its loss or gradient is not finite, or whose gradient is zero."""

    step: int
    is_skipped: bool


class GradientGuard:
    """Keeps gradient norms until a line of metrics is due, so that no step waits for the device.

    A norm is the same on all ranks, so all ranks report the same problems and raise the same errors.

    Args:
        budget: most steps with a non-finite loss or gradient among the last thousand.
        file: file that gets a line for each such step.
        remedy: what to do about gradients that are exactly zero, for the error message.
    """

    def __init__(self, stream: Stream, split: Split, budget: int, file: JsonLines, remedy: str):
        self.stream, self.split, self.budget, self.file, self.remedy = stream, split, budget, file, remedy
        self.skipped: list[int] = []
        self._last_was_zero = False
        self._unread: list[tuple[int, bool, Tensor]] = []

    def add(self, step: Step, grad_norm: Tensor) -> None:
        """Add a step and the norm of its gradient, without reading it."""
        self._unread.append((step.index, step.masked_tokens > 0, grad_norm.detach()))

    def read(self) -> Iterator[GradientProblem]:
        """Yield the problems of the steps since the last call. Waits for the device.

        Raises:
            UserError: too many steps were skipped, or two in a row trained nothing; all ranks raise it.
        """
        if not self._unread:
            return
        norms: list[float] = torch.stack([norm.float() for *_, norm in self._unread]).tolist()
        unread, self._unread = self._unread, []
        for (step, masked, _), norm in zip(unread, norms, strict=True):
            if not math.isfinite(norm):
                self._record_skipped(step)
                yield GradientProblem(step, is_skipped=True)
            elif norm == 0 and masked:
                yield GradientProblem(step, is_skipped=False)
                if self._last_was_zero:
                    raise UserError(
                        f"the gradients of step {step + 1} and of the step before it are exactly zero: the model is "
                        f"not being trained; {self.remedy}"
                    )
            # A step without masked tokens has no gradient, and does not count.
            self._last_was_zero = norm == 0 if masked else self._last_was_zero
        self._require_within_budget(unread[-1][0])

    def state(self) -> GuardState:
        return GuardState(self.skipped, self._last_was_zero)

    def restore(self, state: GuardState) -> None:
        self.skipped, self._last_was_zero = list(state.skipped), state.last_was_zero

    def _record_skipped(self, step: int) -> None:
        _, tweets = self.stream.slice(step, 0, 1)
        line: SkippedLine = {"step": step + 1, "ids": self.split.column("id", tweets), "tweets": tweets.tolist()}
        self.file.write(line)
        self.skipped.append(step)

    def _require_within_budget(self, last: int) -> None:
        self.skipped = [step for step in self.skipped if step > last - _WINDOW]
        if len(self.skipped) > self.budget:
            window = min(last + 1, _WINDOW)
            raise UserError(messages.too_many_skipped(self.skipped, window, self.budget, self.file.path))

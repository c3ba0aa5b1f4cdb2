"""Watches the gradient norms of a run: steps that are not finite, or that train nothing, are reported and limited."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards.reader import Split
from bert_tweets.data.batches import Step
from bert_tweets.data.permutation import Stream

from .metrics import JsonLines

# Steps in which the budget may be used up.
_WINDOW = 1000
_NAMED = 3


class GradientGuard:
    """Keeps gradient norms until a line of metrics is due, so that no step waits for the device.

    A norm is the same on all ranks, so all ranks come to the same warnings and errors.

    Args:
        stream: tells which tweets a step had.
        split: tells their ids.
        budget: most steps with a non-finite loss or gradient among the last thousand.
        file: takes a line for each such step.
        remedy: what to do about gradients that are exactly zero, for the error message.
    """

    def __init__(self, stream: Stream, split: Split, budget: int, file: JsonLines, remedy: str):
        self.stream, self.split, self.budget, self.file, self.remedy = stream, split, budget, file, remedy
        self.skipped: list[int] = []
        self._last_was_zero = False
        self._unread: list[tuple[int, bool, Tensor]] = []

    def add(self, step: Step, grad_norm: Tensor) -> None:
        """Notes a step and the norm of its gradient, unread."""
        self._unread.append((step.index, step.masked_tokens > 0, grad_norm.detach()))

    def read(self) -> Iterator[str]:
        """Waits for the device, and yields a warning for each step since the last call that needs one.

        Raises:
            UserError: too many steps were skipped, or two in a row trained nothing; all ranks raise it.
        """
        if not self._unread:
            return
        norms: list[float] = torch.stack([norm.float() for *_, norm in self._unread]).tolist()
        steps = [(step, masked, norm) for (step, masked, _), norm in zip(self._unread, norms, strict=True)]
        self._unread.clear()
        for step, masked, norm in steps:
            if not math.isfinite(norm):
                self._note_skipped(step)
                yield f"step {step + 1} was skipped: its loss or gradient was not finite"
            elif norm == 0 and masked:
                yield f"step {step + 1} trained nothing: its gradient is exactly zero"
                self._require_another_gradient(step)
            # A step without masked tokens has no gradient, and says nothing of the next.
            self._last_was_zero = norm == 0 if masked else self._last_was_zero
        self._require_few_skipped(steps[-1][0])

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know, as JSON can write it."""
        return {"skipped": self.skipped, "last_was_zero": self._last_was_zero}

    def restore(self, state: dict[str, Any]) -> None:
        """Resumes from what `state` returned."""
        self.skipped, self._last_was_zero = state["skipped"], state["last_was_zero"]

    def _note_skipped(self, step: int) -> None:
        _, tweets = self.stream.slice(step, 0, 1)
        self.file.write({"step": step + 1, "ids": self.split.column("id", tweets), "tweets": tweets.tolist()})
        self.skipped.append(step)

    def _require_another_gradient(self, step: int) -> None:
        if self._last_was_zero:
            raise UserError(
                f"the gradient of step {step + 1} and of the step before it is exactly zero: the model is not being "
                f"trained; {self.remedy}"
            )

    def _require_few_skipped(self, last: int) -> None:
        self.skipped = [step for step in self.skipped if step > last - _WINDOW]
        if len(self.skipped) > self.budget:
            more = ["..."] if len(self.skipped) > _NAMED else []
            named = ", ".join([*(str(step + 1) for step in self.skipped[:_NAMED]), *more])
            raise UserError(
                f"{len(self.skipped)} of the last {min(last + 1, _WINDOW):,} steps had a loss or a gradient that is "
                f"not finite (steps {named}; their tweets are in {self.file.path}), more than "
                f"max_nonfinite_steps={self.budget}; lower optimizer.learning_rate, or use precision=bf16 or fp32"
            )


def remedy_for_zero_gradients(compiled: bool, precision: str) -> str:
    """What to try where gradients are exactly zero.

    Args:
        compiled: whether torch.compile makes the step's kernels.
        precision: as in the settings.
    """
    if compiled:
        return "the fault may be in what torch.compile made: use model.compile=false"
    if precision == "fp16":
        return "fp16 may round all of it to zero: use precision=bf16 or fp32"
    return "the weights of model.name may be damaged: start from another model"

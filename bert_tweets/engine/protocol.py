"""What training asks of an engine: micro-batches in, one optimizer step out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from bert_tweets.data.batches import MicroBatch, Step
from bert_tweets.data.masking import Masking

from .step_timer import Stopwatch


@dataclass(frozen=True)
class EngineState:
    """What an engine goes on from: whole, whatever parts it lay in, so that any engine goes on from it at any size.

    Attributes:
        weights: float32, under the stock model's names, each once (tied weights have one name); on the CPU.
        moments: float32, AdamW's, as `exp_avg.NAME` and `exp_avg_sq.NAME` for each trained weight; on the CPU; none
            before the first step, nor of a weight that no step uses.
        numbers: `optimizer_steps` that were taken, and in fp16 the engine's own scale of the loss.
    """

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    numbers: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """One way of running the module over all ranks; they call its methods in one order, and as often.

    Attributes:
        name: for people: what it is, and what it parts among the ranks.
        stopwatch: what each step took up to the backward pass of its last micro-batch.
    """

    name: str
    stopwatch: Stopwatch

    def train_step(self, step: Step, masking: Masking, learning_rate: float) -> tuple[Tensor, Tensor]:
        """Takes one optimizer step on the mean loss over the step's masked tokens on all ranks.

        Returns:
            This rank's share of that mean (the shares of all ranks add up to it) and the norm of the gradient
            before clipping, the same on all ranks; on the device, unread. Where the norm is not finite, all ranks
            have skipped the step.
        """
        ...

    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        """The sum of the losses of a micro-batch, without a gradient; on the device, unread."""
        ...

    def weights(self, keep: bool = True) -> dict[str, Tensor] | None:
        """The model's weights as in `EngineState`, copied to the CPU of the ranks that keep them.

        Every rank calls it, for weights may lie in parts on all of them.
        """
        ...

    def state(self, keep: bool = True) -> EngineState | None:
        """What training goes on from, copied to the CPU of the ranks that keep it; every rank calls it."""
        ...

    def load(self, state: EngineState | None) -> None:
        """Goes on from moments and numbers; the module had the weights already when the engine was made.

        Args:
            state: of rank 0; on the others None. Every rank calls it.
        """
        ...

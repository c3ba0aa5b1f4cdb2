"""What training asks of an engine: micro-batches in, one optimizer step out."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from ..data.batches import MicroBatch, Step
from ..data.masking import Masking


class Engine(Protocol):
    """One way of running the module over all ranks; they call its methods in one order, and as often.

    Attributes:
        name: for people: what it is, and what it parts among the ranks.
    """

    name: str

    def train_step(self, step: Step, masking: Masking, learning_rate: float) -> tuple[Tensor, Tensor]:
        """Takes one optimizer step on the mean loss over the step's masked tokens on all ranks.

        Returns:
            This rank's share of that mean (the shares of all ranks add up to it) and the norm of the gradient
            before clipping; on the device, unread.
        """
        ...

    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        """The sum of the losses of a micro-batch, without a gradient; on the device, unread."""
        ...

    def state_dict(self, keep: bool = True) -> dict[str, Any] | None:
        """The model's weights, under the stock model's names, copied to the CPU of the ranks that keep them.

        Every rank calls it, for weights may lie in parts on all of them.
        """
        ...

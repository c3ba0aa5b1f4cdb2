"""The interface between trainer and engine, and the training step that all engines share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from bert_tweets.data.batches import MicroBatch, Step
from bert_tweets.data.masking import Masking
from bert_tweets.distributed.world import World
from bert_tweets.model.masked_lm import PackedMaskedLM

from .scalars import Scalars
from .step_timer import StepTimer


@dataclass(frozen=True)
class EngineState:
    """The state that an engine resumes from: unsharded, so that any engine can resume from it at any number of ranks.

    Attributes:
        weights: float32 on the CPU, under the stock model's names; tied weights have one name.
        moments: float32 on the CPU, AdamW's, as `exp_avg.NAME` and `exp_avg_sq.NAME` of each trained weight; none
            before the first step, nor of a weight that no step uses.
    """

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    scalars: Scalars


class Engine(ABC):
    """One way of running the module over all ranks; every rank calls the same methods in the same order.

    Attributes:
        module: the module, on the device of the world.
        name: name for people, with its ZeRO stage.
        timer: time of each step up to the backward pass of its last micro-batch.
    """

    name: str

    def __init__(self, module: PackedMaskedLM, world: World):
        self.module, self.world = module, world
        self.timer = StepTimer(world.device)

    def train_step(self, step: Step, masking: Masking, learning_rate: float) -> tuple[Tensor, Tensor]:
        """Take one optimizer step on the mean loss over the step's masked tokens of all ranks.

        Returns:
            This rank's share of that mean (the shares of all ranks add up to it), and the norm of the gradient before
            clipping, the same on all ranks; both on the device. If the norm is not finite, all ranks have skipped the
            step.
        """
        for group in self._param_groups():
            group["lr"] = learning_rate
        self._start_step(step.micro_batches[0], masking)
        share = torch.zeros((), device=self.world.device)
        # DDP and DeepSpeed divide the sum over ranks by their number; the masked count is already that of all ranks.
        scale = self.world.world_size / max(1, step.masked_tokens)
        last = len(step.micro_batches) - 1
        self.timer.start()
        for number, batch in enumerate(step.micro_batches):
            with self._accumulate(number == last):
                with record_function("forward"):
                    loss_sum = self._forward(batch, masking)
                if number == last:
                    self.timer.stop()
                with record_function("backward"):
                    self._backward(loss_sum * scale)
            share += loss_sum.detach() / max(1, step.masked_tokens)
        with record_function("optimizer"):
            return share, self._update()

    @abstractmethod
    def _param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""

    @abstractmethod
    def _start_step(self, batch: MicroBatch, masking: Masking) -> None:
        """Set training mode; called before a step with its first micro-batch."""

    @abstractmethod
    def _accumulate(self, is_last: bool) -> AbstractContextManager[None]:
        """The context of a micro-batch: gradients are communicated at the last one, if the engine can defer it."""

    @abstractmethod
    def _forward(self, batch: MicroBatch, masking: Masking) -> Tensor:
        """The sum of the losses of a micro-batch, in training."""

    @abstractmethod
    def _backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""

    @abstractmethod
    def _update(self) -> Tensor:
        """Take the optimizer step and clear the gradients; returns the gradient's norm before clipping."""

    @abstractmethod
    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        """The sum of the losses of a micro-batch, without a gradient; on the device."""

    @abstractmethod
    def weights(self, keep: bool = True) -> dict[str, Tensor] | None:
        """Copy the model's weights, as in `EngineState`, to the CPU of the ranks with `keep`; None on the others.

        Every rank calls it, because weights may be sharded.
        """

    @abstractmethod
    def state(self, keep: bool = True) -> EngineState | None:
        """Copy what training resumes from to the CPU of the ranks with `keep`; every rank calls it."""

    @abstractmethod
    def load(self, state: EngineState | None) -> None:
        """Resume from the moments and scalars of rank 0's state; every rank calls it, the others with None.

        The module had the weights already when the engine was made.
        """

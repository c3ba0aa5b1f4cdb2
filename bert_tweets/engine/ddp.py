"""The DDP engine: a replica a rank, gradients averaged in buckets while the backward pass runs."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..data.batches import MicroBatch, Step
from ..data.masking import Masking
from ..model.masked_lm import PackedMaskedLM
from .world import World


class DDPEngine:
    """Data-parallel training; with one rank, the bare module.

    Args:
        module: on the device of the world.
        optimizer: over the module's parameters.
        world: the ranks.
        precision: fp32, or bf16 (autocast; weights, gradients and their sums stay fp32).
        max_grad_norm: gradients are clipped to this norm; 0 never.
    """

    def __init__(
        self,
        module: PackedMaskedLM,
        optimizer: torch.optim.Optimizer,
        world: World,
        precision: str,
        max_grad_norm: float,
    ):
        self.module, self.optimizer, self.world = module, optimizer, world
        self.precision, self.max_grad_norm = precision, max_grad_norm
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.replica = _replicate(module) if world.world_size > 1 else module

    def train_step(self, step: Step, masking: Masking, learning_rate: float) -> tuple[Tensor, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.module.train()
        share = torch.zeros((), device=self.world.device)
        # DDP divides the sum over ranks by their number; the masked count is of all ranks already.
        scale = self.world.world_size / max(1, step.masked_tokens)
        last = len(step.micro_batches) - 1
        for number, batch in enumerate(step.micro_batches):
            with self._no_all_reduce() if number < last else nullcontext():
                loss_sum = self._forward(batch, masking)
                torch.autograd.backward(loss_sum * scale)
            share += loss_sum.detach() / max(1, step.masked_tokens)
        limit = self.max_grad_norm or float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return share, grad_norm

    @torch.no_grad()
    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        self.module.eval()
        with autocast(self.world.device, self.precision):
            return self.module(batch.to(self.world.device), masking)  # type: ignore[no-any-return]

    def state_dict(self, keep: bool = True) -> dict[str, Any] | None:
        if not keep:
            return None
        # A copy, on the CPU too: training goes on in these very tensors.
        return {name: tensor.detach().cpu().clone() for name, tensor in self.module.model.state_dict().items()}

    def _forward(self, batch: MicroBatch, masking: Masking) -> Tensor:
        with autocast(self.world.device, self.precision):
            return self.replica(batch.to(self.world.device), masking)  # type: ignore[no-any-return]

    def _no_all_reduce(self) -> AbstractContextManager[None]:
        return self.replica.no_sync() if isinstance(self.replica, DistributedDataParallel) else nullcontext()


def _replicate(module: PackedMaskedLM) -> DistributedDataParallel:
    # The buffers are constants: no need to send them at each forward. torch 2.13 renamed the argument.
    new_name = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    no_buffers: dict[str, Any] = {"forward_sync_buffers" if new_name else "broadcast_buffers": False}
    return DistributedDataParallel(module, gradient_as_bucket_view=True, **no_buffers)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The arithmetic of `precision=fp32|bf16`."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

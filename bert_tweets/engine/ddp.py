"""The DDP engine: a replica per rank, gradients averaged in buckets during the backward pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from bert_tweets.data.batches import MicroBatch, take_rows
from bert_tweets.data.masking import Masking
from bert_tweets.distributed.world import World
from bert_tweets.model.masked_lm import PackedMaskedLM

from . import optimizer_state
from .base import Engine, EngineState
from .precision import MasterWeights, autocast
from .scalars import Scalars


class DDPEngine(Engine):
    """Data-parallel training; with one rank, the bare module.

    Args:
        optimizer: the optimizer of the module's parameters, or of their master weights.
        precision: as in the settings; with fp16 the loss is scaled.
        max_grad_norm: norm to which gradients are clipped; 0: never.
        masters: master weights of the module's weights, if these are bf16.
        compress: communicate gradients in bf16.
    """

    name = "ddp"

    def __init__(
        self,
        module: PackedMaskedLM,
        optimizer: torch.optim.Optimizer,
        world: World,
        precision: str,
        max_grad_norm: float,
        masters: MasterWeights | None = None,
        compress: bool = False,
    ):
        super().__init__(module, world)
        self.optimizer, self.precision, self.max_grad_norm, self.masters = optimizer, precision, max_grad_norm, masters
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
        self.replica = _replicate(module, compress) if world.world_size > 1 else module
        self._is_warm = False

    def _param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def _start_step(self, batch: MicroBatch, masking: Masking) -> None:
        self._warm_up_reducer(batch, masking)
        self.module.train()

    def _warm_up_reducer(self, batch: MicroBatch, masking: Masking) -> None:
        """Run zero-loss backward passes, so that DDP's one-time set-up happens before the first step.

        DDP learns the static graph in one pass, and orders its buckets by the arrival of gradients in the next. Without
        these passes a resumed run would add gradients in another order than an uninterrupted one, and with three or
        more ranks the low-order bits would differ. Also, a compiled module is split at DDP's buckets only if it is
        compiled inside DDP: a validation before the first step would leave one graph, whose gradients cannot be reduced
        during the backward pass.
        """
        was_warm, self._is_warm = self._is_warm, True
        if was_warm or not isinstance(self.replica, DistributedDataParallel):
            return
        self.module.train()
        devices = [self.world.device] if self.world.device.type == "cuda" else []
        # A compiled module needs the shapes of the run; otherwise one row is enough.
        few = batch if self.module.compiled else take_rows(batch, 0, 1, 1, 0, 1)
        with torch.random.fork_rng(devices=devices):
            for _ in range(2 if self.replica.static_graph else 1):
                torch.autograd.backward(self._forward(few, masking) * 0.0)
        self.module.zero_grad(set_to_none=True)

    def _accumulate(self, is_last: bool) -> AbstractContextManager[None]:
        deferred = not is_last and isinstance(self.replica, DistributedDataParallel)
        return self.replica.no_sync() if deferred else nullcontext()  # type: ignore[operator]

    def _forward(self, batch: MicroBatch, masking: Masking) -> Tensor:
        with autocast(self.world.device, self.precision):
            return self.replica(batch.to(self.world.device), masking)  # type: ignore[no-any-return]

    def _backward(self, loss: Tensor) -> None:
        torch.autograd.backward(self.scaler.scale(loss))

    def _update(self) -> Tensor:
        if self.masters:
            self.masters.take_gradients()
        self.scaler.unscale_(self.optimizer)
        limit = self.max_grad_norm or float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        if not self.scaler.is_enabled():
            # The fused step checks on the device, not on the host, whether to skip (as with GradScaler).
            self.optimizer.found_inf = (~torch.isfinite(grad_norm)).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.masters:
            self.masters.round_to_weights()
        return grad_norm

    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        if self.module.compiled:
            self._warm_up_reducer(batch, masking)
        with self.module.evaluating(), autocast(self.world.device, self.precision):
            return self.module(batch.to(self.world.device), masking).detach()  # type: ignore[no-any-return]

    def weights(self, keep: bool = True) -> dict[str, Tensor] | None:
        if not keep:
            return None
        # Clone on the CPU too: training keeps updating these tensors in place.
        return {name: tensor.detach().cpu().clone() for name, tensor in self._fp32_weights()}

    def state(self, keep: bool = True) -> EngineState | None:
        weights = self.weights(keep)
        if weights is None:
            return None
        scalars = Scalars(optimizer_state.step_count(self.optimizer), *optimizer_state.scale_of(self.scaler))
        return EngineState(weights, optimizer_state.moments_of(self.optimizer, self._trained()), scalars)

    def load(self, state: EngineState | None) -> None:
        optimizer_state.load_moments(self.optimizer, self._trained(), state, self.world)
        optimizer_state.load_scale(self.scaler, state, self.world)

    def _fp32_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Each weight by its name, or its fp32 master weight if it has one."""
        for name, weight in self.module.model.named_parameters():
            yield name, self.masters.of(weight) if self.masters else weight

    def _trained(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self._fp32_weights() if tensor.requires_grad}


def _replicate(module: PackedMaskedLM, compress: bool) -> DistributedDataParallel:
    # The buffers are constants: they need not be broadcast in each forward pass. torch 2.13 renamed the argument.
    new_name = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    no_buffers: dict[str, Any] = {"forward_sync_buffers" if new_name else "broadcast_buffers": False}
    # Every micro-batch uses every parameter, whatever it holds. Under torch.compile, DDP's splitting of graphs at
    # buckets does not support it (pytorch #109261).
    static = not module.compiled
    replica = DistributedDataParallel(module, gradient_as_bucket_view=True, static_graph=static, **no_buffers)
    if compress:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

        # Wrapped: DDP recognises that hook, and rejects it without NCCL, although it works with gloo.
        replica.register_comm_hook(None, lambda group, bucket: bf16_compress_hook(group, bucket))
    return replica

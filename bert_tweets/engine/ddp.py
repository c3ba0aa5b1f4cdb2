"""The DDP engine: a replica a rank, gradients averaged in buckets while the backward pass runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from bert_tweets.data.batches import MicroBatch, Step, take_rows
from bert_tweets.data.masking import Masking
from bert_tweets.distributed.world import World
from bert_tweets.model.masked_lm import PackedMaskedLM

from . import optimizer_state
from .precision import MasterWeights, autocast
from .protocol import EngineState
from .step_timer import Stopwatch


class DDPEngine:
    """Data-parallel training; with one rank, the bare module.

    Args:
        module: on the device of the world.
        optimizer: over the module's parameters, or over their masters.
        world: the ranks.
        precision: see `precision`; with fp16 losses are scaled by what their gradients bear.
        max_grad_norm: gradients are clipped to this norm; 0 never.
        masters: of the module's weights, where these are bf16.
        compress: ranks exchange gradients in bf16.
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
        self.module, self.optimizer, self.world = module, optimizer, world
        self.precision, self.max_grad_norm, self.masters = precision, max_grad_norm, masters
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
        self.replica = _replicate(module, compress) if world.world_size > 1 else module
        self.settled = False
        self.stopwatch = Stopwatch(world.device)

    def train_step(self, step: Step, masking: Masking, learning_rate: float) -> tuple[Tensor, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._settle(step.micro_batches[0], masking)
        self.module.train()
        share = torch.zeros((), device=self.world.device)
        # DDP divides the sum over ranks by their number; the masked count is of all ranks already.
        scale = self.world.world_size / max(1, step.masked_tokens)
        last = len(step.micro_batches) - 1
        self.stopwatch.start()
        for number, batch in enumerate(step.micro_batches):
            with self._no_all_reduce() if number < last else nullcontext():
                with record_function("forward"):
                    loss_sum = self._forward(batch, masking)
                if number == last:
                    self.stopwatch.stop()
                with record_function("backward"):
                    torch.autograd.backward(self.scaler.scale(loss_sum * scale))
            share += loss_sum.detach() / max(1, step.masked_tokens)
        with record_function("optimizer"):
            return share, self._update()

    def _settle(self, batch: MicroBatch, masking: Masking) -> None:
        """Backward passes of zeros ahead of the first step, for what DDP does in its first ones and then never again.

        It learns the static graph in one, and puts its buckets into the order in which gradients come in the next:
        without these passes a run that was started again would add up in another order than the one that went on, and
        from three ranks on the last bits would differ. A compiled module, moreover, is split at DDP's buckets only if
        it is compiled inside of DDP: a validation that came first would leave one graph, whose gradients cannot be
        reduced while the backward pass runs.
        """
        if self.settled:
            return
        self.settled = True
        if not isinstance(self.replica, DistributedDataParallel):
            return
        self.module.train()
        devices = [self.world.device] if self.world.device.type == "cuda" else []
        # A compiled module keeps the shapes that it will see; else a row will do.
        few = batch if self.module.compiled else take_rows(batch, 0, 1, 1, 0, 1)
        with torch.random.fork_rng(devices=devices):
            for _ in range(2 if self.replica.static_graph else 1):
                torch.autograd.backward(self._forward(few, masking) * 0.0)
        self.module.zero_grad(set_to_none=True)

    def _update(self) -> Tensor:
        """One optimizer step; the norm of the gradient before clipping."""
        if self.masters:
            self.masters.take_gradients()
        self.scaler.unscale_(self.optimizer)
        limit = self.max_grad_norm or float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        if not self.scaler.is_enabled():
            # The fused step asks the device, not the host, whether it is to be skipped (as GradScaler has it do).
            self.optimizer.found_inf = (~torch.isfinite(grad_norm)).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.masters:
            self.masters.give_back()
        return grad_norm

    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        if self.module.compiled:
            self._settle(batch, masking)
        with self.module.evaluating(), autocast(self.world.device, self.precision):
            return self.module(batch.to(self.world.device), masking).detach()  # type: ignore[no-any-return]

    def weights(self, keep: bool = True) -> dict[str, Tensor] | None:
        if not keep:
            return None
        # A copy, on the CPU too: training goes on in these very tensors.
        return {name: tensor.detach().cpu().clone() for name, tensor in self._exact()}

    def state(self, keep: bool = True) -> EngineState | None:
        weights = self.weights(keep)
        if weights is None:
            return None
        numbers = {"optimizer_steps": optimizer_state.steps_of(self.optimizer), **optimizer_state.scale_of(self.scaler)}
        return EngineState(weights, optimizer_state.moments_of(self.optimizer, self._trained()), numbers)

    def load(self, state: EngineState | None) -> None:
        optimizer_state.put_moments(self.optimizer, self._trained(), state, self.world)
        optimizer_state.put_scale(self.scaler, state, self.world)

    def _exact(self) -> Iterator[tuple[str, Tensor]]:
        """Each weight by its name, in fp32 where another is behind it."""
        for name, weight in self.module.model.named_parameters():
            yield name, self.masters.of(weight) if self.masters else weight

    def _trained(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self._exact() if tensor.requires_grad}

    def _forward(self, batch: MicroBatch, masking: Masking) -> Tensor:
        with autocast(self.world.device, self.precision):
            return self.replica(batch.to(self.world.device), masking)  # type: ignore[no-any-return]

    def _no_all_reduce(self) -> AbstractContextManager[None]:
        return self.replica.no_sync() if isinstance(self.replica, DistributedDataParallel) else nullcontext()


def _replicate(module: PackedMaskedLM, compress: bool) -> DistributedDataParallel:
    # The buffers are constants: no need to send them at each forward. torch 2.13 renamed the argument.
    new_name = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    no_buffers: dict[str, Any] = {"forward_sync_buffers" if new_name else "broadcast_buffers": False}
    # Every micro-batch runs every parameter, whatever it holds. Under torch.compile, DDP's splitting of graphs at
    # buckets does not bear it (pytorch #109261).
    static = not module.compiled
    replica = DistributedDataParallel(module, gradient_as_bucket_view=True, static_graph=static, **no_buffers)
    if compress:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

        # Under a name of ours: DDP knows that hook's, and refuses it where there is no NCCL, which gloo does not need.
        replica.register_comm_hook(None, lambda group, bucket: bf16_compress_hook(group, bucket))
    return replica

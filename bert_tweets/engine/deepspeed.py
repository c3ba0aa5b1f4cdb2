"""The DeepSpeed engine: optimizer state, gradients and weights sharded across ranks by ZeRO stage."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from bert_tweets.data.batches import MicroBatch
from bert_tweets.data.masking import Masking
from bert_tweets.distributed.world import World
from bert_tweets.model.masked_lm import PackedMaskedLM

from . import optimizer_state, zero_partition
from .base import Engine, EngineState
from .deepspeed_config import Settings, import_deepspeed
from .scalars import Scalars

# Size of a bucket in elements; DeepSpeed allocates it in advance, and its default would be 2 GB.
BUCKET = 25_000_000


class DeepSpeedEngine(Engine):
    """Data-parallel training by DeepSpeed; needs a process group, even with one rank.

    Under ZeRO 3 weights are sharded, and gathered while their own module is called: run only the wrapped module, by
    this engine's methods, and call these the same number of times on every rank. `settings` are those that
    `deepspeed_config.deepspeed_settings` makes.
    """

    def __init__(self, module: PackedMaskedLM, optimizer: torch.optim.Optimizer, world: World, settings: Settings):
        super().__init__(module, world)
        deepspeed = import_deepspeed(world.device)
        os.environ.setdefault("LOCAL_RANK", str(world.local_rank))  # required, even without a launcher
        self.stage = int(settings["zero_optimization"]["stage"])
        self.name = f"deepspeed, ZeRO {self.stage}"
        low_precision = any(settings.get(section, {}).get("enabled") for section in ("bf16", "fp16"))
        # DeepSpeed rounds the weights first, and its master weights start as the rounded ones.
        exact = {weight: weight.detach().cpu().clone() for weight in module.parameters()} if low_precision else {}
        self.engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=_with_buckets(settings, module), dist_init_required=False
        )
        self.masters = {weight for weight in exact if weight.requires_grad}
        self.frozen: dict[Tensor, Tensor] = {
            weight: value for weight, value in exact.items() if weight not in self.masters
        }
        for weight, value in exact.items():
            if weight in self.masters:
                zero_partition.scatter(weight, value, world)

    def _param_groups(self) -> list[dict[str, Any]]:
        return self.engine.optimizer.param_groups  # type: ignore[no-any-return]

    def _start_step(self, batch: MicroBatch, masking: Masking) -> None:
        self.engine.train()

    def _accumulate(self, is_last: bool) -> AbstractContextManager[None]:
        # Instead of `no_sync`, which ZeRO 2 and 3 reject: ZeRO 0 and 1 communicate gradients at the last one only.
        self.engine.set_gradient_accumulation_boundary(is_last)
        return nullcontext()

    def _forward(self, batch: MicroBatch, masking: Masking) -> Tensor:
        return self.engine(batch.to(self.world.device), masking)  # type: ignore[no-any-return]

    def _backward(self, loss: Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)

    def _update(self) -> Tensor:
        if self.stage:
            self.engine.step()
            # DeepSpeed skips a step whose gradient is not finite, and reports no norm for it.
            skipped = self.engine.optimizer.overflow
            norm = float("nan") if skipped else self.engine.get_global_grad_norm()
            return torch.as_tensor(norm, device=self.world.device)
        norm = self._norm()
        if not self.engine.torch_autocast_z0_gradscaler:
            self._adam().found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        self.engine.step()
        return norm

    def _norm(self) -> Tensor:
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        scaler = self.engine.torch_autocast_z0_gradscaler
        # In fp16 the host reads the scale: it waits for the device, as it does in the check for overflow.
        return norm / scaler.get_scale() if scaler else norm

    @torch.no_grad()
    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        self.engine.eval()
        return self._forward(batch, masking)

    def weights(self, keep: bool = True) -> dict[str, Tensor] | None:
        whole = {name: self._gathered(weight, keep) for name, weight in self.module.model.named_parameters()}
        return {name: weight for name, weight in whole.items() if weight is not None} if keep else None

    def state(self, keep: bool = True) -> EngineState | None:
        weights, trained = self.weights(keep), self._trained()
        scalars = Scalars(optimizer_state.step_count(self._adam()), *self._scale())
        if not self.stage:
            moments = optimizer_state.moments_of(self._adam(), trained) if keep else {}
        else:
            zero = self.engine.optimizer
            moments = zero_partition.gather_moments(zero, trained, keep) if scalars.optimizer_steps else {}
        return EngineState(weights, moments, scalars) if weights is not None else None

    def load(self, state: EngineState | None) -> None:
        if not self.stage:
            optimizer_state.load_moments(self._adam(), self._trained(), state, self.world)
            if scaler := self.engine.torch_autocast_z0_gradscaler:
                optimizer_state.load_scale(scaler, state, self.world)
            return
        if scaler := self._zero_scaler():
            saved = state.scalars.loss_scale if state else None
            scale = torch.tensor(float(scaler.cur_scale if saved is None else saved), dtype=torch.float64)
            scaler.cur_scale = float(self.world.broadcast(scale))
        steps = optimizer_state.broadcast_step_count(state, self.world)
        if not steps:
            return
        zero_partition.allocate_moments(self.engine.optimizer, steps)
        for name, weight in self._trained().items():
            shape = getattr(weight, "ds_shape", weight.shape)
            for moment, value in optimizer_state.broadcast_moments(name, shape, state, self.world):
                zero_partition.scatter(weight, value, self.world, moment)

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.module.model.named_parameters() if weight.requires_grad}

    def _adam(self) -> torch.optim.Optimizer:
        """The optimizer that was passed in; ZeRO wraps it."""
        return getattr(self.engine.optimizer, "optimizer", self.engine.optimizer)  # type: ignore[no-any-return]

    def _zero_scaler(self) -> Any:
        """ZeRO's own loss scaler in fp16; None otherwise."""
        scaler = getattr(self.engine.optimizer, "loss_scaler", None)
        return scaler if getattr(scaler, "dynamic", False) else None

    def _scale(self) -> tuple[float | None, int | None]:
        if scaler := self.engine.torch_autocast_z0_gradscaler:
            return optimizer_state.scale_of(scaler)
        return (float(scaler.cur_scale), None) if (scaler := self._zero_scaler()) else (None, None)

    @torch.no_grad()
    def _gathered(self, weight: Tensor, keep: bool) -> Tensor | None:
        """An unsharded copy of a weight on the CPU; None on ranks without `keep`. All ranks call it."""
        import deepspeed

        if weight in self.frozen:
            return self.frozen[weight] if keep else None
        if weight in self.masters:
            exact = deepspeed.utils.safe_get_full_fp32_param(weight)
            return exact.detach().cpu().clone() if keep else None
        with deepspeed.zero.GatheredParameters([weight], enabled=self.stage == 3):
            return weight.detach().cpu().clone() if keep else None


def _with_buckets(settings: Settings, module: nn.Module) -> Settings:
    """Settings with buckets no larger than the model, unless the user's JSON sets them."""
    # Even, as ZeRO 1 and 2 require.
    size = min(BUCKET, -(-sum(weight.numel() for weight in module.parameters()) // 2) * 2)
    buckets = {"reduce_bucket_size": size, "allgather_bucket_size": size}
    return {**settings, "zero_optimization": {**buckets, **settings["zero_optimization"]}}

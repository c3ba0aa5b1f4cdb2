"""The DeepSpeed engine: optimizer state, gradients and weights parted among the ranks as its ZeRO stage says."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ..data.batches import MicroBatch, Step
from ..data.masking import Masking
from ..model.masked_lm import PackedMaskedLM
from .deepspeed_settings import Settings, import_deepspeed
from .world import World

# DeepSpeed fills its buckets up to so many elements, and sets memory aside for all of them: 2 GB by its own default.
BUCKET = 25_000_000


class DeepSpeedEngine:
    """Data-parallel training by DeepSpeed; the process group has started, also where there is one rank.

    Under ZeRO 3 the weights lie in parts, and are whole while their own module is called: nothing but the wrapped
    module may be run, by this engine's methods, and every rank must call these as often as the others.

    Args:
        module: on the device of the world.
        optimizer: over the module's parameters.
        world: the ranks.
        settings: as `deepspeed_settings.settings_of` makes them.
    """

    def __init__(self, module: PackedMaskedLM, optimizer: torch.optim.Optimizer, world: World, settings: Settings):
        deepspeed = import_deepspeed(world.device)
        os.environ.setdefault("LOCAL_RANK", str(world.local_rank))  # it insists, without a launcher too
        self.module, self.world = module, world
        self.stage = int(settings["zero_optimization"]["stage"])
        self.name = f"deepspeed, ZeRO {self.stage}"
        lowered = any(settings.get(section, {}).get("enabled") for section in ("bf16", "fp16"))
        # DeepSpeed rounds the weights first, and begins its masters from what is left.
        exact = {weight: weight.detach().cpu().clone() for weight in module.parameters()} if lowered else {}
        self.engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=_with_buckets(settings, module), dist_init_required=False
        )
        for weight, value in exact.items():
            if weight.requires_grad:
                deepspeed.utils.safe_set_full_fp32_param(weight, value.to(world.device))
        self.masters = {weight for weight in exact if weight.requires_grad}
        self.frozen: dict[Tensor, Tensor] = {
            weight: value for weight, value in exact.items() if not weight.requires_grad
        }

    def train_step(self, step: Step, masking: Masking, learning_rate: float) -> tuple[Tensor, Tensor]:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.train()
        share = torch.zeros((), device=self.world.device)
        # DeepSpeed divides the sum over ranks by their number; the masked count is of all ranks already.
        scale = self.world.world_size / max(1, step.masked_tokens)
        last = len(step.micro_batches) - 1
        for number, batch in enumerate(step.micro_batches):
            # In place of `no_sync`, which ZeRO 2 and 3 do not know: at 0 and 1 gradients travel at the last alone.
            self.engine.set_gradient_accumulation_boundary(number == last)
            with record_function("forward"):
                loss_sum = self.engine(batch.to(self.world.device), masking)
            with record_function("backward"):
                self.engine.backward(loss_sum * scale, scale_wrt_gas=False)
            share += loss_sum.detach() / max(1, step.masked_tokens)
        with record_function("optimizer"):
            return share, self._update()

    def _update(self) -> Tensor:
        """One optimizer step; the norm of the gradient before clipping."""
        # At stage 0 DeepSpeed tells none.
        norm = None if self.stage else self._norm()
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm() if norm is None else norm)

    def _norm(self) -> Tensor:
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        scaler = self.engine.torch_autocast_z0_gradscaler
        # In fp16 the host reads the scale: it waits for the device, as it does when it looks for an overflow.
        return norm / scaler.get_scale() if scaler else norm

    @torch.no_grad()
    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        self.engine.eval()
        return self.engine(batch.to(self.world.device), masking)  # type: ignore[no-any-return]

    def state_dict(self, keep: bool = True) -> dict[str, Any] | None:
        weights = self.module.model.state_dict(keep_vars=True)
        # Tied weights have two names and are gathered once.
        whole = {weight: self._whole(weight, keep) for weight in weights.values()}
        return {name: whole[weight] for name, weight in weights.items()} if keep else None

    @torch.no_grad()
    def _whole(self, weight: Tensor, keep: bool) -> Tensor | None:
        """A weight with all its parts, a copy on the CPU; all ranks call it, those that do not keep it get None."""
        import deepspeed

        if weight in self.frozen:
            return self.frozen[weight] if keep else None
        if weight in self.masters:
            exact = deepspeed.utils.safe_get_full_fp32_param(weight)
            return exact.detach().cpu().clone() if keep else None
        if self.stage < 3:
            return weight.detach().cpu().clone() if keep else None
        with deepspeed.zero.GatheredParameters([weight]):
            return weight.detach().cpu().clone() if keep else None


def _with_buckets(settings: Settings, module: nn.Module) -> Settings:
    """Settings whose buckets are no larger than the model, where the user's own do not say."""
    size = min(BUCKET, sum(weight.numel() for weight in module.parameters()))
    buckets = {"reduce_bucket_size": size, "allgather_bucket_size": size}
    return {**settings, "zero_optimization": {**buckets, **settings["zero_optimization"]}}

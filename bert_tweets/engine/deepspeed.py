"""The DeepSpeed engine: optimizer state, gradients and weights parted among the ranks as its ZeRO stage says."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from bert_tweets.data.batches import MicroBatch, Step
from bert_tweets.data.masking import Masking
from bert_tweets.distributed.world import World
from bert_tweets.model.masked_lm import PackedMaskedLM

from . import optimizer_state
from . import zero_partition as parts
from .deepspeed_config import Settings, import_deepspeed
from .protocol import EngineState
from .step_timer import Stopwatch

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
        self.stopwatch = Stopwatch(world.device)
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
                parts.put(weight, value, world)
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
        self.stopwatch.start()
        for number, batch in enumerate(step.micro_batches):
            # In place of `no_sync`, which ZeRO 2 and 3 do not know: at 0 and 1 gradients travel at the last alone.
            self.engine.set_gradient_accumulation_boundary(number == last)
            with record_function("forward"):
                loss_sum = self.engine(batch.to(self.world.device), masking)
            if number == last:
                self.stopwatch.stop()
            with record_function("backward"):
                self.engine.backward(loss_sum * scale, scale_wrt_gas=False)
            share += loss_sum.detach() / max(1, step.masked_tokens)
        with record_function("optimizer"):
            return share, self._update()

    def _update(self) -> Tensor:
        """One optimizer step; the norm of the gradient before clipping."""
        if self.stage:
            self.engine.step()
            # DeepSpeed itself has skipped a step whose gradient is not finite, and tells no norm of it.
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
        # In fp16 the host reads the scale: it waits for the device, as it does when it looks for an overflow.
        return norm / scaler.get_scale() if scaler else norm

    @torch.no_grad()
    def loss_sum(self, batch: MicroBatch, masking: Masking) -> Tensor:
        self.engine.eval()
        return self.engine(batch.to(self.world.device), masking)  # type: ignore[no-any-return]

    def weights(self, keep: bool = True) -> dict[str, Tensor] | None:
        whole = {name: self._whole(weight, keep) for name, weight in self.module.model.named_parameters()}
        return {name: weight for name, weight in whole.items() if weight is not None} if keep else None

    def state(self, keep: bool = True) -> EngineState | None:
        weights, trained = self.weights(keep), self._trained()
        numbers = {"optimizer_steps": optimizer_state.steps_of(self._adam()), **self._scale()}
        if not self.stage:
            moments = optimizer_state.moments_of(self._adam(), trained) if keep else {}
        else:
            moments = parts.moments(self.engine.optimizer, trained, keep) if numbers["optimizer_steps"] else {}
        return EngineState(weights, moments, numbers) if weights is not None else None

    def load(self, state: EngineState | None) -> None:
        if not self.stage:
            optimizer_state.put_moments(self._adam(), self._trained(), state, self.world)
            if scaler := self.engine.torch_autocast_z0_gradscaler:
                optimizer_state.put_scale(scaler, state, self.world)
            return
        if scaler := self._scaler():
            scale = (state.numbers if state else {}).get("loss_scale", scaler.cur_scale)
            scaler.cur_scale = float(self.world.broadcast(torch.tensor(float(scale), dtype=torch.float64)))
        steps = optimizer_state.steps_from_main(state, self.world)
        if not steps:
            return
        parts.prepare_moments(self.engine.optimizer, steps)
        for name, weight in self._trained().items():
            shape = getattr(weight, "ds_shape", weight.shape)
            for moment, value in optimizer_state.moments_from_main(name, shape, state, self.world):
                parts.put(weight, value, self.world, moment)

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.module.model.named_parameters() if weight.requires_grad}

    def _adam(self) -> torch.optim.Optimizer:
        """The optimizer that was handed over; ZeRO puts another around it."""
        return getattr(self.engine.optimizer, "optimizer", self.engine.optimizer)  # type: ignore[no-any-return]

    def _scaler(self) -> Any:
        """ZeRO's own scaler of the loss, in fp16; None otherwise."""
        scaler = getattr(self.engine.optimizer, "loss_scaler", None)
        return scaler if getattr(scaler, "dynamic", False) else None

    def _scale(self) -> dict[str, Any]:
        if scaler := self.engine.torch_autocast_z0_gradscaler:
            return optimizer_state.scale_of(scaler)
        return {"loss_scale": float(scaler.cur_scale)} if (scaler := self._scaler()) else {}

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
    # Even, as ZeRO 1 and 2 insist.
    size = min(BUCKET, -(-sum(weight.numel() for weight in module.parameters()) // 2) * 2)
    buckets = {"reduce_bucket_size": size, "allgather_bucket_size": size}
    return {**settings, "zero_optimization": {**buckets, **settings["zero_optimization"]}}

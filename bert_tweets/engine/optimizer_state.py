"""AdamW's state by the names of the weights, and the scale of the loss in fp16: read and restored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bert_tweets.distributed.world import World

from .base import EngineState

MOMENTS = ("exp_avg", "exp_avg_sq")


def moments_of(optimizer: torch.optim.Optimizer, trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy the moments of an optimizer of unsharded weights to the CPU; {} before its first step.

    `trained` are the tensors that the optimizer updates, by the names of the weights.
    """
    states = {name: optimizer.state[tensor] for name, tensor in trained.items() if optimizer.state.get(tensor)}
    each = ((name, state, moment) for name, state in states.items() for moment in MOMENTS)
    return {f"{moment}.{name}": state[moment].detach().cpu().clone() for name, state, moment in each}


def step_count(optimizer: torch.optim.Optimizer) -> int:
    """Steps that the optimizer took, without skipped ones. Waits for the device."""
    # A weight that no step uses has no count, or an old one.
    return max((int(state["step"]) for state in optimizer.state.values() if state), default=0)


def load_moments(
    optimizer: torch.optim.Optimizer, trained: dict[str, Tensor], state: EngineState | None, world: World
) -> None:
    """Give an optimizer of unsharded weights the moments and the step count of rank 0's state."""
    steps = broadcast_step_count(state, world)
    if not steps:
        return
    for name, tensor in trained.items():
        optimizer.state[tensor] = zero_state(tensor, steps)
        for moment, value in broadcast_moments(name, tensor.shape, state, world):
            optimizer.state[tensor][moment].copy_(value)


def zero_state(tensor: Tensor, steps: int) -> dict[str, Any]:
    """The optimizer state of a tensor after so many steps, with moments of zeros."""
    moments = {moment: torch.zeros_like(tensor, memory_format=torch.preserve_format) for moment in MOMENTS}
    return {"step": torch.tensor(float(steps), device=tensor.device), **moments}


def broadcast_step_count(state: EngineState | None, world: World) -> int:
    """Rank 0's step count, on every rank."""
    return int(world.broadcast(torch.tensor(state.scalars.optimizer_steps if state else 0)))


def broadcast_moments(
    name: str, shape: torch.Size, state: EngineState | None, world: World
) -> Iterator[tuple[str, Tensor]]:
    """Rank 0's moments of a weight of this shape, on every rank; zeros if no step used the weight."""
    for moment in MOMENTS:
        saved = state.moments.get(f"{moment}.{name}") if state else None
        yield moment, world.broadcast(torch.zeros(shape) if saved is None else saved)


def scale_of(scaler: torch.amp.GradScaler) -> tuple[float | None, int | None]:
    """The loss scale and the steps since it last changed; (None, None) if the scaler is off."""
    state = scaler.state_dict()
    return (state["scale"], state["_growth_tracker"]) if state else (None, None)


def load_scale(scaler: torch.amp.GradScaler, state: EngineState | None, world: World) -> None:
    """Give a scaler that is on the loss scale of rank 0's state; its initial scale if the state has none."""
    own = scaler.state_dict()
    if not own:
        return
    scale, unscaled = (state.scalars.loss_scale, state.scalars.unscaled_steps) if state else (None, None)
    numbers = torch.tensor([own["scale"] if scale is None else scale, unscaled or 0], dtype=torch.float64)
    scale, unscaled_steps = world.broadcast(numbers).tolist()
    scaler.load_state_dict({**own, "scale": scale, "_growth_tracker": int(unscaled_steps)})

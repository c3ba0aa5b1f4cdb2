"""AdamW's state, read and put back by the names of the weights; and in fp16 the scale of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bert_tweets.distributed.world import World

from .protocol import EngineState

MOMENTS = ("exp_avg", "exp_avg_sq")


def moments_of(optimizer: torch.optim.Optimizer, trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """The moments of an optimizer that holds whole weights, copied to the CPU; none before its first step.

    Args:
        trained: what the optimizer steps, by the names of the weights.
    """
    held = {name: optimizer.state.get(tensor) for name, tensor in trained.items()}
    return {
        f"{moment}.{name}": state[moment].detach().cpu().clone()
        for name, state in held.items()
        if state
        for moment in MOMENTS
    }


def steps_of(optimizer: torch.optim.Optimizer) -> int:
    """Steps that it took, of which it counts none that it skipped. Waits for the device."""
    # Of a weight that no step uses the count stands still, or there is none.
    return max((int(state["step"]) for state in optimizer.state.values() if state), default=0)


def put_moments(
    optimizer: torch.optim.Optimizer, trained: dict[str, Tensor], state: EngineState | None, world: World
) -> None:
    """Gives an optimizer that holds whole weights the moments and the count of steps of a state."""
    steps = steps_from_main(state, world)
    if not steps:
        return
    for name, tensor in trained.items():
        optimizer.state[tensor] = fresh_state(tensor, steps)
        for moment, value in moments_from_main(name, tensor.shape, state, world):
            optimizer.state[tensor][moment].copy_(value)


def fresh_state(tensor: Tensor, steps: int) -> dict[str, Any]:
    """The state of a tensor after so many steps, its moments zero."""
    moments = {moment: torch.zeros_like(tensor, memory_format=torch.preserve_format) for moment in MOMENTS}
    return {"step": torch.tensor(float(steps), device=tensor.device), **moments}


def steps_from_main(state: EngineState | None, world: World) -> int:
    """Rank 0's count of steps, on every rank."""
    return int(world.broadcast(torch.tensor(state.numbers["optimizer_steps"] if state else 0)))


def moments_from_main(
    name: str, shape: torch.Size, state: EngineState | None, world: World
) -> Iterator[tuple[str, Tensor]]:
    """Rank 0's moments of a weight of this shape, on every rank; zeros of one that no step uses."""
    for moment in MOMENTS:
        saved = state.moments.get(f"{moment}.{name}") if state else None
        yield moment, world.broadcast(torch.zeros(shape) if saved is None else saved)


def scale_of(scaler: torch.amp.GradScaler) -> dict[str, Any]:
    """The numbers of a scaler; none where it is off."""
    held = scaler.state_dict()
    return {"loss_scale": held["scale"], "unscaled_steps": held["_growth_tracker"]} if held else {}


def put_scale(scaler: torch.amp.GradScaler, state: EngineState | None, world: World) -> None:
    """Gives a scaler that is on the numbers of a state; where that has none, it begins as it would."""
    held = scaler.state_dict()
    if not held:
        return
    saved = state.numbers if state else {}
    numbers = torch.tensor(
        [saved.get("loss_scale", held["scale"]), saved.get("unscaled_steps", 0)], dtype=torch.float64
    )
    scale, unscaled = world.broadcast(numbers).tolist()
    scaler.load_state_dict({**held, "scale": scale, "_growth_tracker": int(unscaled)})

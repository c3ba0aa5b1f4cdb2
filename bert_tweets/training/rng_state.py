"""The generators that dropout draws from: each rank has its own, and a run that goes on goes on with it."""

from __future__ import annotations

import torch
from torch import Tensor

from bert_tweets.distributed.world import World


def generators_of(world: World) -> dict[str, Tensor]:
    """The states of all ranks, uint8 [ranks, bytes] by kind of device; every rank calls it."""
    return {
        kind: torch.from_numpy(world.all_gather_concat(state.numpy()[None])) for kind, state in _here(world).items()
    }


def put_generators(saved: dict[str, Tensor], world: World) -> bool:
    """Gives each rank its own state again; every rank calls it.

    Args:
        saved: what `generators_of` gave, on rank 0.

    Returns:
        Whether there were as many ranks, on the same kind of device; else nothing is changed.
    """
    here = _here(world)
    shapes = world.broadcast_object({kind: list(states.shape) for kind, states in saved.items()})
    if shapes != {kind: [world.world_size, len(state)] for kind, state in here.items()}:
        return False
    for kind, shape in shapes.items():
        mine = world.broadcast(saved[kind] if world.is_main else torch.empty(shape, dtype=torch.uint8))[world.rank]
        if kind == "cuda":
            torch.cuda.set_rng_state(mine.clone(), world.device)
        else:
            torch.set_rng_state(mine.clone())
    return True


def _here(world: World) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(world.device)
    return states

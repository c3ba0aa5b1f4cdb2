"""The random states that dropout draws from, one per rank, saved and restored."""

from __future__ import annotations

import torch
from torch import Tensor

from bert_tweets.distributed.world import World


def gather_rng_states(world: World) -> dict[str, Tensor]:
    """The random states of all ranks, uint8 [ranks, bytes] by device type; every rank calls it."""
    return {kind: torch.from_numpy(world.all_gather_concat(state.numpy()[None])) for kind, state in _own(world).items()}


def restore_rng_states(saved: dict[str, Tensor], world: World) -> bool:
    """Restore the random state of each rank from rank 0's result of `gather_rng_states`; every rank calls it.

    Returns False, and changes nothing, if the number of ranks or the device type differ.
    """
    own = _own(world)
    shapes = world.broadcast_object({kind: list(states.shape) for kind, states in saved.items()})
    if shapes != {kind: [world.world_size, len(state)] for kind, state in own.items()}:
        return False
    for kind, shape in shapes.items():
        mine = world.broadcast(saved[kind] if world.is_main else torch.empty(shape, dtype=torch.uint8))[world.rank]
        if kind == "cuda":
            torch.cuda.set_rng_state(mine.clone(), world.device)
        else:
            torch.set_rng_state(mine.clone())
    return True


def _own(world: World) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(world.device)
    return states

"""Shards of ZeRO 1, 2 and 3: fp32 weights and moments, gathered and scattered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bert_tweets.distributed.world import World

from . import optimizer_state


def gather_moments(zero: Any, trained: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Gather the moments of all shards on the CPU of the ranks with `keep`; every rank calls it.

    `zero` is DeepSpeed's optimizer, after its first step.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    _link(zero)
    found = {}
    for name, weight in trained.items():
        for moment in optimizer_state.MOMENTS:
            whole = safe_get_full_optimizer_state(weight, moment)
            if keep:
                found[f"{moment}.{name}"] = whole.detach().cpu().clone()
    return found


def allocate_moments(zero: Any, steps: int) -> None:
    """Give this rank's shards moments of zeros and a step count; DeepSpeed otherwise does so in its first step."""
    is_third = hasattr(zero, "fp32_partitioned_groups_flat")
    for shard in zero.fp32_partitioned_groups_flat if is_third else zero.single_partition_of_fp32_groups:
        zero.optimizer.state[shard] = optimizer_state.zero_state(shard, steps)
    _link(zero)


def scatter(weight: Tensor, value: Tensor, world: World, moment: str | None = None) -> None:
    """Set this rank's shard of a fp32 weight, or of a moment of it, from the unsharded float32 values."""
    from deepspeed import utils

    value = value.to(world.device)
    if not hasattr(weight, "ds_tensor"):
        if moment:
            utils.safe_set_full_optimizer_state(weight, value, moment)
        else:
            utils.safe_set_full_fp32_param(weight, value)
        return
    # Not by ZeRO 3's functions for whole weights: they fail if the elements do not divide evenly among the ranks.
    size = weight.ds_tensor.numel()
    padded = torch.zeros(size * world.world_size, device=value.device)
    padded[: value.numel()] = value.flatten()
    mine = padded[size * world.rank : size * (world.rank + 1)]
    if moment:
        utils.safe_set_local_optimizer_state(weight, mine, moment)
    else:
        utils.safe_set_local_fp32_param(weight, mine)


def _link(zero: Any) -> None:
    """Link each weight of ZeRO 1 and 2 to its moments in the flat shards.

    DeepSpeed does so once, after the first step of the first parameter group, when the second has no moments yet.
    """
    if hasattr(zero, "single_partition_of_fp32_groups"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()

"""What ZeRO 1, 2 and 3 part among the ranks, put together and taken apart: fp32 weights and moments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bert_tweets.distributed.world import World

from . import optimizer_state


def moments(zero: Any, trained: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """The moments of all parts, copied to the CPU of the ranks that keep them; every rank calls it.

    Args:
        zero: DeepSpeed's optimizer, behind its first step.
        trained: weights by their names.
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


def prepare_moments(zero: Any, steps: int) -> None:
    """Has this rank's parts hold moments, of zeros, which DeepSpeed makes in a step of its own only.

    Args:
        zero: DeepSpeed's optimizer, before its first step.
        steps: that were taken.
    """
    is_third = hasattr(zero, "fp32_partitioned_groups_flat")
    for part in zero.fp32_partitioned_groups_flat if is_third else zero.single_partition_of_fp32_groups:
        zero.optimizer.state[part] = optimizer_state.fresh_state(part, steps)
    _link(zero)


def put(weight: Tensor, value: Tensor, world: World, moment: str | None = None) -> None:
    """Gives this rank's part of a weight in fp32, or of a moment of it, the values of the whole.

    Args:
        value: float32, in the shape of the whole, on any device.
    """
    from deepspeed import utils

    value = value.to(world.device)
    if not hasattr(weight, "ds_tensor"):
        if moment:
            utils.safe_set_full_optimizer_state(weight, value, moment)
        else:
            utils.safe_set_full_fp32_param(weight, value)
        return
    # Not by ZeRO 3's functions of the same kind: they fail where the elements do not go evenly into the parts.
    size = weight.ds_tensor.numel()
    padded = torch.zeros(size * world.world_size, device=value.device)
    padded[: value.numel()] = value.flatten()
    mine = padded[size * world.rank : size * (world.rank + 1)]
    if moment:
        utils.safe_set_local_optimizer_state(weight, mine, moment)
    else:
        utils.safe_set_local_fp32_param(weight, mine)


def _link(zero: Any) -> None:
    """Has each weight of ZeRO 1 and 2 know where its moments lie in the flat parts.

    DeepSpeed does it behind the first step of the first group of weights, when the second has no moments yet, and never
    again.
    """
    if hasattr(zero, "single_partition_of_fp32_groups"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()

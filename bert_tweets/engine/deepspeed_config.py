"""DeepSpeed's configuration: made from our settings, with a user's JSON merged in unless it contradicts them."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from types import ModuleType
from typing import Any

import torch

from bert_tweets.common.errors import UserError
from bert_tweets.config import TrainConfig
from bert_tweets.distributed.world import set_deepspeed_accelerator

from . import deepspeed_user_config

Settings = dict[str, Any]


def import_deepspeed(device: torch.device) -> ModuleType:
    """Import DeepSpeed for this device, without its log messages and without anything compiled at run time.

    Raises:
        UserError: it is not installed.
    """
    set_deepspeed_accelerator(device)
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(f"engine.name=deepspeed: DeepSpeed cannot be imported ({error}); it needs Linux") from None
    # Each of DeepSpeed's collectives warns about a function that torch has renamed.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    # On a CPU it would compile its own collectives: a minute and a half, and a compiler. Gloo is enough.
    deepspeed.ops.__compatible_ops__ = defaultdict(bool)
    return deepspeed  # type: ignore[no-any-return]


def zero_stage(config: TrainConfig) -> int:
    """The ZeRO stage of a run with DeepSpeed.

    Raises:
        UserError: the user's JSON cannot be read.
    """
    if config.engine.zero_stage is not None:
        return config.engine.zero_stage
    zero = deepspeed_user_config.read_user_config(config.engine.deepspeed_config).get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    return stage if isinstance(stage, int) else 1


def deepspeed_settings(config: TrainConfig, device: torch.device) -> Settings:
    """The configuration for `deepspeed.initialize`. Starts nothing: call it before the process group starts, too.

    Raises:
        UserError: names everything that is unknown, contradictory, or not possible on this device.
    """
    import_deepspeed(device)
    stage, file = zero_stage(config), config.engine.deepspeed_config
    ours = _our_settings(config, stage)
    wrong = _problems(config, stage, device)
    theirs = deepspeed_user_config.read_user_config(file)
    wrong += [f"{file}: {problem}" for problem in deepspeed_user_config.problems(theirs, config, ours)]
    if wrong:
        raise UserError("\n       ".join(wrong))
    merged = deepspeed_user_config.merge(ours, theirs)
    if file:
        _require_accepted(merged, file)
    return merged


def _our_settings(config: TrainConfig, stage: int) -> Settings:
    zero: Settings = {"stage": stage}
    if config.engine.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.engine.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    settings = {
        # A step has as many micro-batches as it needs: the engine says which one is the last.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Without it, DeepSpeed clips to 1.
        "gradient_clipping": config.optimizer.max_grad_norm,
        # torch's fused AdamW, on the CPU too: DeepSpeed's own would have to be compiled.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # This timer waits for the device in every step.
        "timers": {"throughput": {"enabled": False}},
        "zero_optimization": zero,
        **_precision_settings(config, stage),
    }
    if config.engine.compress_gradients:
        settings["communication_data_type"] = "bf16"
    return settings


def _precision_settings(config: TrainConfig, stage: int) -> Settings:
    """Settings for `precision`: autocast over fp32 weights, as with DDP, wherever DeepSpeed does it correctly."""
    if config.precision == "bf16_weights":
        return {"bf16": {"enabled": True}}
    if config.precision == "fp16" and stage > 0:
        # Its scaler for fp16 autocast ignores sharding: norms are not unscaled, and ranks use different scales.
        # A smaller initial scale than its 2^16: gradients are in fp16 here, and each overflow costs a step.
        return {"fp16": {"enabled": True, "initial_scale_power": 12}}
    if config.precision in ("bf16", "fp16"):
        autocast: Settings = {"enabled": True, "dtype": config.precision}
        if not config.engine.compress_gradients:
            # Modules whose gradients would be communicated in the lower precision: none.
            autocast["lower_precision_safe_modules"] = []
        return {"torch_autocast": autocast}
    return {}


def _problems(config: TrainConfig, stage: int, device: torch.device) -> list[str]:
    from deepspeed.accelerator import get_accelerator

    found = []
    if config.engine.offload_optimizer and stage == 0:
        found.append("engine.offload_optimizer: needs engine.zero_stage=1, 2 or 3")
    if config.engine.offload_parameters and stage != 3:
        found.append("engine.offload_parameters: needs engine.zero_stage=3")
    if config.model.compile == "true" and stage == 3:
        found.append("model.compile=true: not with engine.zero_stage=3, which gathers weights; leave it at auto")
    if config.precision == "bf16_weights" and stage == 0:
        # Its optimizer for bf16 takes an Adam step when it is constructed.
        found.append(
            "precision=bf16_weights: DeepSpeed computes it wrongly at engine.zero_stage=0; use 1, or engine.name=ddp"
        )
    if config.precision == "fp16" and stage > 0 and not get_accelerator().is_fp16_supported():
        found.append(f"precision=fp16: not on this {device.type} with engine.zero_stage={stage}; use bf16")
    return found


def _require_accepted(settings: Settings, file: str) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    try:
        DeepSpeedConfig(copy.deepcopy(settings))
    except Exception as error:  # pydantic's, DeepSpeed's own, and bare asserts
        raise UserError(f"{file}: DeepSpeed rejects it: {' '.join(str(error).split())}") from None

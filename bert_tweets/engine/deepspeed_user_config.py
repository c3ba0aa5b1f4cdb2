"""A user's JSON of DeepSpeed's settings: what is unknown in it, what says something else than our settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import UserError, did_you_mean
from bert_tweets.config import TrainConfig

Settings = dict[str, Any]

# DeepSpeed keeps no list of its keys and passes over what it does not know. A section is checked against the model that
# DeepSpeed has of it, where there is one (`_models`), else against these names.
_SECTIONS = {
    "aio": "block_size queue_depth intra_op_parallelism single_submit overlap_events use_gds",
    "flops_profiler": "enabled recompute_fwd_factor profile_step module_depth top_modules detailed output_file",
    "torch_autocast": "enabled dtype lower_precision_safe_modules",
}
_VALUES = (
    "communication_data_type",
    "disable_allgather",
    "dump_state",
    "gradient_clipping",
    "gradient_predivide_factor",
    "log_level",
    "memory_breakdown",
    "prescale_gradients",
    "steps_per_print",
    "train_batch_size",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
)
# What DeepSpeed knows, or knew, and this engine does without.
_OURS_ALONE = {
    "optimizer": "the optimizer is set by optimizer.*",
    "scheduler": "the learning rate is set by schedule.*",
    "train_micro_batch_size_per_gpu": "micro-batches follow from batch_size and tokens_per_device",
    "gradient_accumulation_steps": "micro-batches follow from batch_size and tokens_per_device",
    "managed_gradient_accumulation": "micro-batches follow from batch_size and tokens_per_device",
    "activation_checkpointing": "that is set by model.checkpoint_activations",
    "data_types": "arithmetic is set by precision",
    "bfloat16": "write bf16",
    "timers": "metrics.jsonl has the rates",
    "compile": "that is set by model.compile",
    "disable_python_gc": "garbage is collected between steps already",
}
_FOREIGN = (
    "amp",
    "autotuning",
    "checkpoint",
    "compression_training",
    "curriculum_learning",
    "data_efficiency",
    "data_parallel_size",
    "dataloader_drop_last",
    "datastates_ckpt",
    "eigenvalue",
    "elasticity",
    "expert_parallel",
    "gradient_allreduce_op",
    "graph_harvesting",
    "hybrid_engine",
    "nebula",
    "pipeline",
    "progressive_layer_drop",
    "quantize_training",
    "seq_parallel_communication_data_type",
    "sequence_parallel_size",
    "sparse_attention",
    "sparse_gradients",
    "tensor_parallel",
    "use_data_before_expert_parallelism",
    "vocabulary_size",
    "weight_quantization",
)


def read_user_config(path: str) -> Settings:
    """The file's settings, without those that are "auto": left to us. Of an empty path, none.

    Raises:
        UserError: there is no such file, or it is no JSON object of distinct keys.
    """
    if not path:
        return {}
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_distinct)
    except OSError as error:
        raise UserError(f"engine.deepspeed_config={path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"engine.deepspeed_config={path}: is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f'engine.deepspeed_config={path}: is no JSON object; write {{"key": value}}')
    return settings


def problems(theirs: Settings, config: TrainConfig, ours: Settings) -> list[str]:
    """All that is wrong with a user's settings, one line each; needs DeepSpeed imported.

    Args:
        theirs: as `read_user_config` gave them.
        config: ours.
        ours: DeepSpeed's settings as `config` alone makes them.
    """
    return [*_unknown(theirs), *_contradictory(theirs, config, ours)]


def merge(ours: Settings, theirs: Settings) -> Settings:
    """Theirs into ours, section by section."""
    merged = dict(ours)
    for key, value in theirs.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif key != "train_batch_size":  # of tweets, where DeepSpeed counts micro-batches
            merged[key] = value
    return merged


def _distinct(pairs: Iterable[tuple[str, Any]]) -> Settings:
    found: Settings = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"'{key}' stands in it twice")
        found[key] = value
    return {key: value for key, value in found.items() if value != "auto"}


def _models() -> dict[str, Any]:
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.monitor.config import CometConfig, CSVConfig, TensorBoardConfig, WandbConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    return {
        "bf16": DeepSpeedBF16Config,
        "comet": CometConfig,
        "comms_logger": CommsLoggerConfig,
        "csv_monitor": CSVConfig,
        "fp16": DeepSpeedFP16Config,
        "tensorboard": TensorBoardConfig,
        "wandb": WandbConfig,
        "zero_optimization": DeepSpeedZeroConfig,
    }


def _unknown(theirs: Settings) -> Iterator[str]:
    models = _models()
    known = [*models, *_SECTIONS, *_VALUES, *_OURS_ALONE, *_FOREIGN]
    for key, value in theirs.items():
        if key in _OURS_ALONE:
            yield f"{key}: leave it out; {_OURS_ALONE[key]}"
        elif key in _FOREIGN:
            yield f"{key}: leave it out; this engine does without it"
        elif key not in known:
            yield f"{key}: no such key{did_you_mean(key, known)}"
        elif key not in _VALUES and not isinstance(value, dict):
            yield f'{key}: is a section; write {{"key": value}}'
        elif key in models:
            yield from _refused(key, value, models[key])
        elif key in _SECTIONS:
            names = _SECTIONS[key].split()
            yield from (f"{key}.{name}: no such key{did_you_mean(name, names)}" for name in value if name not in names)


def _refused(section: str, value: Settings, model: Any) -> Iterator[str]:
    """What DeepSpeed's own model of a section says of it."""
    from pydantic import ValidationError

    try:
        model(**value)
    except ValidationError as error:
        for wrong in error.errors():
            *path, name = (section, *map(str, wrong["loc"]))
            where = ".".join([*path, name])
            if wrong["type"] == "extra_forbidden":
                yield f"{where}: no such key{did_you_mean(name, _names(model, path[1:]))}"
            else:
                yield f"{where}: {wrong['msg'].removeprefix('Value error, ')}"
    except (AssertionError, ValueError) as error:
        yield f"{section}: {error}"


def _names(model: Any, path: list[str]) -> list[str]:
    """The keys of a model of pydantic, or of one inside it."""
    from typing import get_args

    for name in path:
        kinds = (model.model_fields[name].annotation, *get_args(model.model_fields[name].annotation))
        model = next(kind for kind in kinds if hasattr(kind, "model_fields"))
    return [field.alias or name for name, field in model.model_fields.items()]


def _contradictory(theirs: Settings, config: TrainConfig, ours: Settings) -> Iterator[str]:
    """Keys that our settings decide: they may be said again, not otherwise."""
    decided = {
        "train_batch_size": (config.batch_size, "batch_size"),
        "gradient_clipping": (ours["gradient_clipping"], "optimizer.max_grad_norm"),
        "zero_allow_untested_optimizer": (True, "the optimizer (torch's AdamW)"),
        "zero_force_ds_cpu_optimizer": (False, "the optimizer (torch's AdamW)"),
        "zero_optimization.stage": (ours["zero_optimization"]["stage"], "engine.zero_stage"),
    }
    for section in ("bf16", "fp16", "torch_autocast"):
        for name, value in {"enabled": False, **ours.get(section, {})}.items():
            if name in ("enabled", "dtype", "lower_precision_safe_modules"):
                hint = " (precision=bf16_weights is what DeepSpeed calls bf16)" if section == "bf16" else ""
                decided[f"{section}.{name}"] = (value, f"precision={config.precision}{hint}")
    if config.engine.compress_gradients:
        decided["communication_data_type"] = ("bf16", "engine.compress_gradients")
    for section, key in (("offload_optimizer", "offload_optimizer"), ("offload_param", "offload_parameters")):
        if section in ours["zero_optimization"]:
            decided[f"zero_optimization.{section}.device"] = ("cpu", f"engine.{key}=true")
    for where, (value, by) in decided.items():
        said = _at(theirs, where.split("."))
        if said is not None and said != value:
            yield f"{where}={json.dumps(said)}: {by} makes it {json.dumps(value)}; leave it out, or say the same"


def _at(settings: Any, path: list[str]) -> Any:
    for name in path:
        settings = settings.get(name) if isinstance(settings, dict) else None
    return settings

"""A user's DeepSpeed JSON: unknown keys, values of the wrong type, and contradictions with our settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

from bert_tweets.common.errors import UserError, did_you_mean
from bert_tweets.config import TrainConfig

Settings = dict[str, Any]

# Sections that have no pydantic model in DeepSpeed: only their keys are checked, see `_keys_read`.
_PLAIN_SECTIONS = ("aio", "flops_profiler", "torch_autocast")
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
# Keys whose place is taken by a setting of ours. What else DeepSpeed reads is not supported by this engine.
_SET_ELSEWHERE = {
    "optimizer": "the optimizer is set by optimizer.*",
    "scheduler": "the learning rate is set by schedule.*",
    "train_micro_batch_size_per_gpu": "micro-batches follow from batch_size and tokens_per_device",
    "gradient_accumulation_steps": "micro-batches follow from batch_size and tokens_per_device",
    "managed_gradient_accumulation": "micro-batches follow from batch_size and tokens_per_device",
    "activation_checkpointing": "it is set by model.checkpoint_activations",
    "data_types": "it is set by precision",
    "bfloat16": "write bf16",
    "timers": "metrics.jsonl has the rates",
    "compile": "it is set by model.compile",
    "disable_python_gc": "garbage is collected between steps already",
}


def read_user_config(path: str) -> Settings:
    """Read the file, without the keys that are "auto" (left to us); {} if the path is empty.

    Raises:
        UserError: there is no such file, or it is not a JSON object of distinct keys.
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
        raise UserError(f'engine.deepspeed_config={path}: is not a JSON object; write {{"key": value}}')
    return settings


def problems(theirs: Settings, config: TrainConfig, ours: Settings) -> list[str]:
    """Everything that is wrong with a user's settings, one line each. DeepSpeed must have been imported.

    `theirs` is from `read_user_config`; `ours` is made from `config` alone.
    """
    return [*_unknown(theirs), *_contradictory(theirs, config, ours)]


def merge(ours: Settings, theirs: Settings) -> Settings:
    """Merge the user's settings into ours, section by section."""
    merged = dict(ours)
    for key, value in theirs.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif key != "train_batch_size":  # counts tweets, where DeepSpeed counts micro-batches
            merged[key] = value
    return merged


def _distinct(pairs: Iterable[tuple[str, Any]]) -> Settings:
    found: Settings = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key '{key}' twice")
        found[key] = value
    return {key: value for key, value in found.items() if value != "auto"}


def _models() -> dict[str, Any]:
    """DeepSpeed's pydantic models, by section."""
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


class _Recorder(dict[str, Any]):
    """A dict that records the keys that are looked up."""

    def __init__(self, **items: Any):
        super().__init__(items)
        self.keys_read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.keys_read.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.keys_read.add(str(key))
        return super().__contains__(key)


@cache
def _keys_read() -> dict[str, set[str]]:
    """The keys that DeepSpeed reads, by plain section, and under "" at the top level. It has no list of them."""
    from deepspeed.runtime.config import DeepSpeedConfig

    # torch_autocast is read only if it is enabled.
    sections = {name: _Recorder(enabled=name == "torch_autocast") for name in _PLAIN_SECTIONS}
    top = _Recorder(train_micro_batch_size_per_gpu=1, **sections)
    DeepSpeedConfig(top)
    return {"": top.keys_read} | {name: section.keys_read for name, section in sections.items()}


def _unknown(theirs: Settings) -> Iterator[str]:
    if not theirs:
        return
    models, read = _models(), _keys_read()
    supported = [*models, *_PLAIN_SECTIONS, *_VALUES]
    for key, value in theirs.items():
        if key in _SET_ELSEWHERE:
            yield f"{key}: leave it out; {_SET_ELSEWHERE[key]}"
        elif key not in supported and key in read[""]:
            yield f"{key}: leave it out; this engine does not support it"
        elif key not in supported:
            yield f"{key}: no such key{did_you_mean(key, [*supported, *_SET_ELSEWHERE, *read['']])}"
        elif key not in _VALUES and not isinstance(value, dict):
            yield f'{key}: is a section; write {{"key": value}}'
        elif key in models:
            yield from _rejected(key, value, models[key])
        elif key in _PLAIN_SECTIONS:
            known = read[key]
            yield from (f"{key}.{name}: no such key{did_you_mean(name, known)}" for name in value if name not in known)


def _rejected(section: str, value: Settings, model: Any) -> Iterator[str]:
    """Describe what DeepSpeed's own model of a section rejects."""
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
    """The keys of a pydantic model, or of a model nested in it."""
    for name in path:
        kinds = (model.model_fields[name].annotation, *get_args(model.model_fields[name].annotation))
        model = next(kind for kind in kinds if hasattr(kind, "model_fields"))
    return [field.alias or name for name, field in model.model_fields.items()]


def _contradictory(theirs: Settings, config: TrainConfig, ours: Settings) -> Iterator[str]:
    """Keys that our settings decide: the user's JSON may repeat them, but not change them."""
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
    for where, (value, source) in decided.items():
        given = _value_at(theirs, where.split("."))
        if given is not None and given != value:
            yield f"{where}={json.dumps(given)}: {source} makes it {json.dumps(value)}; leave it out, or use that value"


def _value_at(settings: Any, path: list[str]) -> Any:
    for name in path:
        settings = settings.get(name) if isinstance(settings, dict) else None
    return settings

"""What a run says of itself: its plan, and its summary when it is over."""

from __future__ import annotations

import platform
from typing import Any

import pyarrow as pa
import torch
import transformers

from bert_tweets import __version__
from bert_tweets.config import TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.permutation import Stream
from bert_tweets.distributed.world import World
from bert_tweets.model.loading import LoadedModel, weights_identity

from .build import Training
from .lr_schedule import Schedule
from .metrics import finite
from .validate import BestModel


def plan(
    config: TrainConfig, manifest: Manifest, stream: Stream, schedule: Schedule, world: World, parts: Training
) -> str:
    rate = config.optimizer.learning_rate
    falling = f"wsd (falls over the last {schedule.decay_steps})" if schedule.name == "wsd" else schedule.name
    lines = [
        f"training {config.model.name} on {stream.rows:,} tweets ({manifest.tokens('train'):,} tokens): "
        f"{stream.steps:,} steps of {stream.batch_size} tweets, {stream.length / stream.rows:.2f} epochs, "
        f"{world.world_size} rank(s) on {world.device.type} ({parts.engine.name}), {config.precision}, "
        f"attention '{parts.attention}'",
        f"learning rate {rate:g} after {schedule.warmup_steps} steps of warm-up, then {falling}; "
        f"attention dropout is off, hidden dropout {config.model.dropout:g}",
    ]
    if rate > 2e-4:
        lines.append(f"warning: a learning rate of {rate:g} is high for a pre-trained BERT; 5e-5 is usual")
    if config.model.dropout:
        lines.append("hidden dropout depends on layout: runs of other sizes agree in data and masks only")
    return "\n".join(lines)


def summary(
    config: TrainConfig, manifest: Manifest, loaded: LoadedModel, best: BestModel, world: World, engine_name: str
) -> dict[str, Any]:
    return {
        "model": config.model.name,
        "has_trained_head": loaded.has_trained_head,
        "best_step": best.step if best.any_chosen else None,
        "validation_loss": best.loss if best.any_chosen else None,
        "start_validation_loss": finite(best.start_loss),
        "stopped_early": best.should_stop,
        "ranks": world.world_size,
        "engine": engine_name,
        "device": device_name(world.device),
        "precision": config.precision,
        "recipe": manifest.recipe.hash,
        **input_identity(config, manifest),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    return {
        "bert_tweets": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "pyarrow": pa.__version__,
    }


def input_identity(config: TrainConfig, manifest: Manifest) -> dict[str, str]:
    return {"data": manifest.fingerprint, "weights": weights_identity(config.model.name, config.model.revision)}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads a rank"

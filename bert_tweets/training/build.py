"""The parts of a training run, made from its settings: loader, module, engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bert_tweets.common.errors import UserError
from bert_tweets.config import TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split, open_split
from bert_tweets.data.layout import Layout, fixed_shape, row_length_of
from bert_tweets.data.loader import StepLoader, no_stop_request
from bert_tweets.data.masking import Masking, masking_for
from bert_tweets.data.permutation import Stream, stream_of
from bert_tweets.distributed.world import World
from bert_tweets.engine.base import Engine
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.engine.deepspeed import DeepSpeedEngine
from bert_tweets.engine.deepspeed_config import deepspeed_settings, zero_stage
from bert_tweets.engine.precision import COMPUTE_DTYPES, MasterWeights, allow_tf32
from bert_tweets.model.attention import Shape, backend_for
from bert_tweets.model.loading import LoadedModel, load_model
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.model.vocab_padding import pad_vocabulary

from .determinism import keep_heap
from .flops import flops_per_token
from .optimizer import choose_trainable, make_optimizer
from .validate import MASKED_SHARE


@dataclass(frozen=True)
class Training:
    """The parts of a run; `masking` is on the device.

    Attributes:
        flops_per_token: FLOPs of the model per real token.
        vocabulary_size: vocabulary size of the model before padding, see `vocab_padding.pad_vocabulary`.
    """

    loader: StepLoader
    layout: Layout
    masking: Masking
    module: PackedMaskedLM
    engine: Engine
    attention: str
    flops_per_token: float
    vocabulary_size: int


def stream_for(config: TrainConfig, manifest: Manifest) -> Stream:
    """The order of the run's tweets, divided into steps.

    Raises:
        UserError: there are no tweets, or they do not fit into the rows.
    """
    rows = manifest.rows("train")
    if not rows:
        raise UserError(f"{config.data.path}: its training split is empty; prepare more tweets")
    row_length_of(config.data, manifest)  # finds a mistake before the process group starts
    epochs = config.epochs if config.epochs is not None else 3.0
    return stream_of(rows, config.seed, config.batch_size, config.max_steps, epochs, config.data)


def check_engine(config: TrainConfig, world: World) -> None:
    """Raise UserError with everything that is wrong in the engine's settings, before the process group starts."""
    if config.engine.name == "deepspeed":
        deepspeed_settings(config, world.device)


def build(
    config: TrainConfig,
    manifest: Manifest,
    world: World,
    loaded: LoadedModel | None = None,
    should_stop: Callable[[], bool] = no_stop_request,
) -> Training:
    """Make the parts of a run; its process group has started.

    `loaded` is the model, if it is loaded already; for `should_stop`, see `StepLoader`.

    Raises:
        UserError: the model cannot be loaded, or a setting cannot be used on this device.
    """
    if world.device.type == "cpu":
        keep_heap()
    loaded = loaded or load_model(config.model, manifest, config.seed)
    split = open_split(config.data.path, manifest, "train")
    layout = layout_for(config, manifest, world)
    masking = masking_for(manifest, config.seed, config.masking.probability, config.masking.whole_word)
    loader = StepLoader(
        split,
        stream_for(config, manifest),
        masking,
        layout,
        rank=world.rank,
        world_size=world.world_size,
        gather=world.gather,
        workers=config.data.num_workers,
        pin=world.device.type == "cuda",
        data=manifest.fingerprint,
        asked=should_stop,
    )
    if config.model.dropout:
        torch.manual_seed(config.seed * world.world_size + world.rank)
    choose_trainable(loaded.model, config.model.trainable)
    flops = flops_per_token(loaded.model.config, config.masking.probability, _attended_length(split))
    vocabulary = pad_vocabulary(loaded.model, 64 if world.device.type == "cuda" else 1)
    module = _module(config, loaded, layout, world)
    engine = _engine(config, module, world)
    return Training(loader, layout, masking.to(world.device), module, engine, module.backend.name, flops, vocabulary)


def layout_for(config: TrainConfig, manifest: Manifest, world: World) -> Layout:
    """The layout of micro-batches in training and validation.

    One shape on GPUs and with compiled kernels; on a CPU each empty row costs time.
    """
    length, tokens = row_length_of(config.data, manifest), config.tokens_per_device
    if world.device.type != "cuda" and not is_compiled(config, world):
        return Layout(length, tokens, manifest.pad_id)
    stream, split = stream_for(config, manifest), open_split(config.data.path, manifest, "train")
    probability = max(config.masking.probability, MASKED_SHARE)
    fixed = fixed_shape(length, tokens, stream, split, world.world_size, probability)
    return Layout(length, tokens, manifest.pad_id, fixed)


def is_compiled(config: TrainConfig, world: World) -> bool:
    """Whether torch.compile makes the step's kernels."""
    if config.model.compile == "auto":
        # A compiled graph would read sharded weights before they are gathered.
        return world.device.type == "cuda" and not _has_sharded_weights(config)
    return config.model.compile == "true"


def _has_sharded_weights(config: TrainConfig) -> bool:
    return config.engine.name == "deepspeed" and zero_stage(config) == 3


def _module(config: TrainConfig, loaded: LoadedModel, layout: Layout, world: World) -> PackedMaskedLM:
    dtype, compiled = COMPUTE_DTYPES[config.precision], is_compiled(config, world)
    shape = Shape.of(loaded.model.config, world.device.type, dtype, layout.row_length, compiled)
    backend = backend_for(config.model.attention, shape)
    recompute, sharded = config.model.checkpoint_activations, _has_sharded_weights(config)
    return PackedMaskedLM(loaded.model, backend, compiled, recompute, sharded).to(world.device)


def _engine(config: TrainConfig, module: PackedMaskedLM, world: World) -> Engine:
    allow_tf32(config.precision)
    if config.engine.name == "deepspeed":
        # With 16-bit weights, DeepSpeed makes the master weights.
        optimizer = make_optimizer(module.parameters(), config.optimizer)
        return DeepSpeedEngine(module, optimizer, world, deepspeed_settings(config, world.device))
    masters = MasterWeights(module) if config.precision == "bf16_weights" else None
    optimizer = make_optimizer(masters.trained if masters else module.parameters(), config.optimizer)
    limit, compress = config.optimizer.max_grad_norm, config.engine.compress_gradients
    return DDPEngine(module, optimizer, world, config.precision, limit, masters, compress)


def _attended_length(split: Split) -> float:
    """Mean over tokens of the length of their tweet, E[l²]/E[l], from the first shard."""
    lengths = split.lengths(0).astype(float)
    return float((lengths**2).sum() / lengths.sum())

"""The plan of a run: steps, memory, disk and time. Starts no process group, allocates and writes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.table import Column, Table

from bert_tweets.common import system
from bert_tweets.common.errors import UserError
from bert_tweets.common.terminal import console
from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.packing import best_fit
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.download import check_local
from bert_tweets.distributed.world import World
from bert_tweets.engine.deepspeed_config import zero_stage
from bert_tweets.engine.precision import COMPUTE_DTYPES
from bert_tweets.model.attention import Shape, backend_for
from bert_tweets.model.loading import empty_model

from . import run_folder
from .build import check_engine, is_compiled, layout_for, stream_for
from .memory_estimate import (
    ENGINE_VARIANTS,
    FP32,
    EngineVariant,
    Memory,
    MicroBatchShape,
    ParameterCounts,
    checkpoint_size,
    count_parameters,
    estimate_memory,
    padded_square,
)
from .optimizer import choose_trainable
from .resume import require_checkpoint

_GIB = 2**30
# The CPU's backends do not depend on it.
_HEAD_SIZE = 64
# Backend that is assumed on a GPU with `auto`: the fastest that most GPUs support; none is tried there.
_ON_GPU = "triton"


@dataclass(frozen=True)
class StepShape:
    """A step on one rank, from the lengths of the shards' tweets; `tokens` are the real tokens of a micro-batch."""

    tweets: int
    micro_batches: int
    tokens: int
    batch: MicroBatchShape


def dry_run(config: TrainConfig) -> None:
    """Print the plan of a run; rank 0 prints it.

    Raises:
        UserError: the run itself would be rejected, or there is no GPU here and no setting gives its memory.
    """
    world = planned_world(config)
    manifest = Manifest.read(config.data.path)
    stream_for(config, manifest)
    state = run_folder.run_state(config)
    require_checkpoint(config)
    check_local([config.model], manifest)
    check_engine(config, world)
    if not world.is_main:
        return
    out = console(width=150)
    out.print(f"[bold]settings[/bold] (the folder of the run is {state})")
    out.print(parser.dump(config), markup=False)
    model = empty_model(config.model, manifest, 64 if world.device.type == "cuda" else 1)
    choose_trainable(model, config.model.trainable)
    parameters = count_parameters(model)
    shape = step_shape(config, manifest, world)
    out.print(_facts(config, manifest, world, parameters, shape))
    out.print(memory_table(config, model.config, parameters, shape, world))
    out.print(
        "sizes in GiB; CUDA's context, NCCL's buffers and fragmentation come on top; "
        "formulas: bert_tweets/training/memory_estimate.py",
        style="dim",
    )


def planned_world(config: TrainConfig) -> World:
    """Rank 0 of the planned ranks, on the planned device."""
    elsewhere = config.device == "cuda" and not torch.cuda.is_available()
    if elsewhere and not config.dry_run_for.device_memory:
        raise UserError(
            "device=cuda: this machine has no GPU; give the memory of the planned ones: dry_run_for.device_memory=80"
        )
    here = ranks.world_from_environment("cpu" if elsewhere else config.device)
    device = torch.device("cuda", 0) if elsewhere else here.device
    return replace(here, device=device, world_size=config.dry_run_for.devices or here.world_size)


def step_shape(config: TrainConfig, manifest: Manifest, world: World) -> StepShape:
    """Pack one rank's tweets of a step, with lengths sampled from those of the shards."""
    layout = layout_for(config, manifest, world)
    tweets = -(-stream_for(config, manifest).largest_step // world.world_size)
    counts = np.array(manifest.lengths["train"], dtype=np.float64)
    lengths = np.random.default_rng(config.seed).choice(len(counts), tweets, p=counts / counts.sum())
    rows = best_fit(lengths, layout.row_length).rows
    micro_batches, rows = layout.split(rows)
    tokens = int(lengths.sum()) // micro_batches
    # [CLS] and [SEP] are never masked.
    maskable = int((lengths - 2).clip(0).sum()) / micro_batches
    masked = layout.places(math.ceil(config.masking.probability * maskable))
    squares = sum(padded_square(int(length)) for length in lengths) // micro_batches
    kind, attention = world.device.type, config.model.attention
    if kind == "cpu":
        dtype, compiled = COMPUTE_DTYPES[config.precision], is_compiled(config, world)
        shape = Shape(kind, dtype, _HEAD_SIZE, layout.row_length, compiled=compiled)
        attention = backend_for(attention, shape).name
    elif attention == "auto":
        attention = _ON_GPU
    checkpoint = config.model.checkpoint_activations
    batch = MicroBatchShape(kind, attention, rows, layout.row_length, masked, squares, checkpoint)
    return StepShape(tweets, micro_batches, tokens, batch)


def device_memory(config: TrainConfig, world: World) -> int:
    """Memory of a rank's device in bytes: as planned, a GPU's, or a share of this machine's; 0: unknown."""
    if config.dry_run_for.device_memory:
        return int(config.dry_run_for.device_memory * _GIB)
    if world.device.type == "cuda":
        return int(torch.cuda.get_device_properties(world.device).total_memory)
    return system.total_memory() // world.local_world_size


def engine_variant(config: TrainConfig) -> EngineVariant:
    """The engine that the settings choose."""
    if config.engine.name == "ddp":
        return EngineVariant()
    return EngineVariant(zero_stage(config), config.engine.offload_optimizer, config.engine.offload_parameters)


def memory_table(
    config: TrainConfig, model_config: object, parameters: ParameterCounts, shape: StepShape, world: World
) -> Table:
    """Memory by part, a row per engine; the engine that the settings choose is marked."""
    available = device_memory(config, world)
    parts = ("weights", "masters", "gradients", "optimizer", "activations", "workspace", "device", "host")
    table = Table(box=None, title_justify="left", title="\nmemory per rank")
    table.add_column("engine")
    for part in parts:
        table.add_column(part, justify="right")
    table.add_column(f"of {available / _GIB:.1f}" if available else "")
    own = engine_variant(config)
    for variant in ENGINE_VARIANTS if own in ENGINE_VARIANTS else (*ENGINE_VARIANTS, own):
        memory = estimate_memory(model_config, parameters, variant, config.precision, shape.batch, world.world_size)
        name = f"{variant.name} ←" if variant == own else variant.name
        if memory is None:
            table.add_row(name, *["" for _ in parts], f"not with precision={config.precision}")
            continue
        sizes = [f"{getattr(memory, part) / _GIB:.3f}" for part in parts]
        table.add_row(name, *sizes, _fit(memory, available), style="bold" if variant == own else "")
    return table


def _fit(memory: Memory, available: int) -> str:
    if not available:
        return ""
    return f"{memory.device / available:.1%}, {'fits' if memory.device <= available else 'does not fit'}"


def _facts(
    config: TrainConfig, manifest: Manifest, world: World, parameters: ParameterCounts, shape: StepShape
) -> Table:
    stream = stream_for(config, manifest)
    tokens = stream.length * manifest.tokens("train") / manifest.rows("train")
    batch = shape.batch
    facts = {
        "parameters": f"{parameters.total:,}: embeddings {parameters.embeddings:,}, layers {parameters.layers:,}, "
        f"head {parameters.head:,}; {parameters.trained:,} are trained",
        "ranks": f"{world.world_size:,} on {world.device.type}, {config.precision}, attention '{batch.attention}'",
        "steps": f"{stream.steps:,} of {stream.batch_size:,} tweets: {stream.epoch(stream.steps):.2f} epochs of "
        f"{stream.rows:,} tweets, {tokens:,.0f} tokens",
        "per rank": f"{shape.tweets:,} tweets per step in {shape.micro_batches} micro-batch(es) of {batch.rows} rows "
        f"of {batch.row_length}, about {shape.tokens:,} real tokens, room for {batch.masked:,} masked ones",
        "disk": _disk(config, parameters),
        "time": _time(config, tokens, world.world_size),
    }
    table = Table(Column(style="bold"), Column(), box=None, show_header=False)
    for name, fact in facts.items():
        table.add_row(name, fact)
    return table


def _disk(config: TrainConfig, parameters: ParameterCounts) -> str:
    model = FP32 * parameters.total
    checkpoint = checkpoint_size(parameters)
    # A new checkpoint is complete before the oldest is deleted.
    count = config.checkpoint.keep + 1
    needed, free = model + count * checkpoint, system.disk(config.output).free
    warning = "" if needed <= free else ": TOO LITTLE"
    return (
        f"model {_size(model)}, a checkpoint up to {_size(checkpoint)}, at most {count} of them: {_size(needed)} of "
        f"{_size(free)} free at {config.output}{warning}"
    )


def _time(config: TrainConfig, tokens: float, world_size: int) -> str:
    rate = config.dry_run_for.tokens_per_second
    if not rate:
        return "unknown; give dry_run_for.tokens_per_second=…, a device's rate in metrics.jsonl of a short run"
    seconds = tokens / (rate * world_size)
    units = {"hours": 3600, "minutes": 60, "seconds": 1}
    unit, length = next(pair for pair in units.items() if seconds >= 2 * pair[1] or pair[1] == 1)
    return f"{seconds / length:,.1f} {unit} at {rate:,.0f} tokens/s per device, without start and validation"


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"

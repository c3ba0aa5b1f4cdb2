"""One rank of test_equality.py: runs the given cases one after the other and writes their outcomes.

Usage: worker.py SHARDS FOLDER CASE...; writes FOLDER/RANKS-CASE.npz. The cases `restart` are a run and its restart.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from bert_tweets.config import TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.data.masking import masking_for
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.world import World
from bert_tweets.engine.deepspeed_config import import_deepspeed
from bert_tweets.model.loading import load_model, load_weights
from bert_tweets.training.build import Training, build
from bert_tweets.training.validate import Validation
from tests.engine.cases import BATCH_SIZE, CASES, RATE, RESTART_AT, SETTINGS_FILE, Case

Found = dict[str, Any]


def config_of(case: Case, shards: str, folder: Path) -> TrainConfig:
    config = TrainConfig(output="unused", max_steps=case.steps, batch_size=BATCH_SIZE, seed=1, device="cpu")
    config.data.path, config.data.num_workers, config.model.name = shards, 0, "scratch"
    config.precision, config.tokens_per_device = case.precision, case.tokens_per_device
    config.model.checkpoint_activations, config.optimizer.max_grad_norm = case.checkpoint, case.max_grad_norm
    config.model.trainable = case.trainable
    scratch, engine = config.model.scratch, config.engine
    scratch.hidden_size, scratch.num_attention_heads, scratch.intermediate_size = 32, 4, 64
    engine.compress_gradients = case.compress
    if case.stage is not None:
        engine.name, engine.zero_stage = "deepspeed", case.stage
        engine.offload_optimizer, engine.offload_parameters = case.offload, case.offload and case.stage == 3
        engine.deepspeed_config = str(folder / SETTINGS_FILE)
    if case.stage and case.precision == "fp16":
        # DeepSpeed checks whether the processor supports it; torch computes in it anyway.
        import_deepspeed(torch.device("cpu"))
        from deepspeed.accelerator import get_accelerator

        get_accelerator().is_fp16_supported = lambda: True
    assert not config.problems()
    return config


def run(config: TrainConfig, world: World) -> Found:
    """Take all steps, and two validations: with fewer tweets than ranks, and with more."""
    manifest = Manifest.read(config.data.path)
    parts = build(config, manifest, world)
    engine: Any = parts.engine
    initial, gradients, update = engine.weights(), {}, engine._update

    def keep_first() -> Any:
        gradients.update(gradients or gradients_of(parts, config))
        return update()

    losses, norms, masked, reduced, micro_batches = [], [], [], [], []
    with mock.patch.object(engine, "_update", keep_first):
        for step in parts.loader.steps():
            with reductions() as count:
                share, norm = engine.train_step(step, parts.masking, RATE)
            reduced.append(count())
            losses.append(float(world.sum(share)))
            norms.append(float(norm))
            micro_batches.append(len(step.micro_batches))
            masked.append(sum(int(parts.masking.select(batch).sum()) for batch in step.micro_batches))
    found: Found = {"losses": losses, "norms": norms, "reductions": reduced, "micro_batches": micro_batches}
    found["masked"] = world.gather(masked)()
    found["validations"] = [validation_of(parts, config, manifest, world, tweets).loss(engine) for tweets in (1, 20)]
    weights = engine.weights()
    found |= {f"initial {name}": tensor.numpy() for name, tensor in initial.items()}
    found |= {f"weight {name}": tensor.numpy() for name, tensor in weights.items()}
    return found | gradients


@contextmanager
def as_in_a_process_of_its_own() -> Iterator[None]:
    """Undo what DeepSpeed leaves behind: ZeRO 3 its own `linear`, autocast settings that later engines would read."""
    linear = F.linear
    yield
    F.linear = linear
    autocast: Any = sys.modules.get("deepspeed.runtime.torch_autocast")
    if autocast:
        autocast.TORCH_AUTOCAST_INITIALIZED, autocast.TORCH_AUTOCAST_DTYPE = False, None


def gradients_of(parts: Training, config: TrainConfig) -> dict[str, np.ndarray]:
    """The gradients that the optimizer is about to use, unsharded on every rank; all ranks call it."""
    found = {}
    for name, weight in parts.module.model.named_parameters():
        if not weight.requires_grad:
            continue
        if config.engine.zero_stage in (1, 2):
            # `safe_get_full_grad` would return the gradient of this rank only.
            gradient = weight.get_full_hp_grad()
        elif config.engine.zero_stage == 3:
            from deepspeed.utils import safe_get_full_grad

            gradient = safe_get_full_grad(weight)
        else:
            gradient = weight.grad
        if gradient is not None:
            found[f"gradient {name}"] = gradient.float().numpy().copy()
    return found


@contextmanager
def reductions() -> Iterator[Callable[[], int]]:
    """Count DeepSpeed's reductions of gradients over ranks."""
    module = sys.modules.get("deepspeed.comm")
    if module is None:
        yield lambda: 0
        return
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            return function(*arguments, **named)

        return call

    names = ("all_reduce", "reduce", "reduce_scatter_fn")
    with mock.patch.multiple(module, **{name: counted(getattr(module, name)) for name in names}):
        yield lambda: count


def validation_of(parts: Training, config: TrainConfig, manifest: Manifest, world: World, tweets: int) -> Validation:
    split = open_split(config.data.path, manifest, "validation")
    return Validation(split, masking_for(manifest, 0, 0.15, False), parts.layout, world, tweets)


def restart(config: TrainConfig, world: World) -> Found:
    """The end of an uninterrupted run, and of one that starts in its middle from its weights and optimizer state.

    The model is large enough for several buckets, because the order of gloo's sums depends on where they begin. The
    steps are large enough for every rank to have a share: a sum of two numbers has only one order.
    """
    config.batch_size = 4 * BATCH_SIZE
    config.model.scratch.hidden_size, config.model.scratch.intermediate_size = 128, 512
    manifest = Manifest.read(config.data.path)
    first = build(config, manifest, world)
    engine: Any = first.engine
    for step in first.loader.steps():
        if step.index == RESTART_AT:
            kept = engine.state()
        engine.train_step(step, first.masking, 10 * RATE)
    loaded = load_model(config.model, manifest, config.seed)
    load_weights(loaded.model, kept.weights)
    second = build(config, manifest, world, loaded)
    again: Any = second.engine
    again.load(kept)
    for step in second.loader.steps(RESTART_AT):
        again.train_step(step, second.masking, 10 * RATE)
    found = {}
    for kind, one in (("on", engine), ("again", again)):
        found |= {f"{kind} {name}": tensor.numpy() for name, tensor in one.weights().items()}
        # The last bit of a gradient shows in Adam's moments, seldom in the weights.
        for number, moments in one.optimizer.state_dict()["state"].items():
            found |= {f"{kind} {number} {name}": tensor.numpy() for name, tensor in moments.items()}
    return found


def main(shards: str, folder: Path, names: list[str]) -> None:
    torch.use_deterministic_algorithms(True)
    world = ranks.world_from_environment("cpu")
    ranks.start_process_group(world, timeout_seconds=60, always=True)
    for name in names:
        config = config_of(CASES[name], shards, folder)
        with as_in_a_process_of_its_own():
            found = restart(config, world) if name.startswith("restart") else run(config, world)
        if world.is_main:
            np.savez(folder / f"{world.world_size}-{name}.npz", **found)
    ranks.stop_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])

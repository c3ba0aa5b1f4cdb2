"""A worker with our training step, for `benchmarks.throughput`; see `timed_worker`.

python -m benchmarks.throughput_ours SHARDS DEVICE
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from benchmarks.device_timing import seconds_between, seconds_of, synchronize, timestamp
from benchmarks.timed_worker import Channel, Command, StepTimer, serve
from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.batches import Step
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.world import World
from bert_tweets.engine import ddp
from bert_tweets.engine.precision import COMPUTE_DTYPES
from bert_tweets.model.attention import backend_names
from bert_tweets.training.build import Training, build
from bert_tweets.training.flops import matrix_peak

LEARNING_RATE = 5e-5


class PhaseTimer:
    """Stand-in for the profiler labels that the engine puts around phases of a step; it times the phases.

    On a GPU it uses events, because autograd's threads launch the kernels of the backward pass and profiler labels do
    not reach them; those kernels still run on the stream of the forward pass.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.timestamps: dict[str, list[tuple[Any, Any]]] = {}

    def __call__(self, name: str) -> PhaseTimer._Label:
        return self._Label(self, name)

    class _Label:
        def __init__(self, timer: PhaseTimer, name: str):
            self.timer, self.name = timer, name

        def __enter__(self) -> None:
            self.start = timestamp(self.timer.device)

        def __exit__(self, *_: object) -> None:
            end = timestamp(self.timer.device)
            self.timer.timestamps.setdefault(self.name, []).append((self.start, end))

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds by phase, summed over micro-batches."""
        synchronize(self.device)
        return {name: 1000 * sum(seconds_between(*pair) for pair in pairs) for name, pairs in self.timestamps.items()}


class Ours:
    """A training run whose steps are timed.

    Args:
        config: settings of the training run.
        manifest: manifest of the shards.
        world: this process's rank and world size.
    """

    def __init__(self, config: TrainConfig, manifest: Manifest, world: World):
        self.world, self.timer = world, StepTimer(world.device)
        self.training: Training = build(config, manifest, world)
        self.steps: Iterator[Step] = self.training.loader.steps()

    def turn(self, steps: int, warmup: int) -> dict[str, Any]:
        """Run `warmup` steps, then `steps` timed steps; rank 0 returns the counts of all ranks.

        Returns:
            The result of `StepTimer.end`, with the `losses` and `gradient_norms` of the same steps.

        Raises:
            RuntimeError: the steps trained nothing, so their speed is meaningless.
        """
        outcomes: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.timer.begin()
        for _ in range(steps + warmup):
            step = next(self.steps)
            main = int(self.world.is_main)
            self.timer.count(main * step.tokens, main * step.tweets, main * step.positions)
            outcomes.append(self.training.engine.train_step(step, self.training.masking, LEARNING_RATE))
            self.timer.end_step()
        measured = self.timer.end(warmup)
        losses, norms = torch.stack([torch.stack(outcome) for outcome in outcomes[warmup:]]).T.tolist()
        require_training(norms)
        return {**measured, "losses": losses, "gradient_norms": norms}

    def phases(self, steps: int) -> dict[str, float]:
        """Median milliseconds per step by phase; `data` is the time spent waiting for the loader."""
        measured = []
        for _ in range(steps + 1):
            timer, start = PhaseTimer(self.world.device), time.perf_counter()
            step = next(self.steps)
            waiting = 1000 * (time.perf_counter() - start)
            with mock.patch.object(ddp, "record_function", timer):
                self.training.engine.train_step(step, self.training.masking, LEARNING_RATE)
            measured.append({"data": waiting, **timer.milliseconds()})
        return {name: statistics.median(phases[name] for phases in measured[1:]) for name in measured[0]}


def require_training(gradient_norms: list[float]) -> None:
    """Raise RuntimeError if a gradient norm is zero or not finite."""
    bad = [norm for norm in gradient_norms if not 0 < norm < math.inf]
    if bad:
        steps = f"{len(bad)} of {len(gradient_norms)} steps"
        raise RuntimeError(f"trained nothing: the gradient norm was {bad[0]} in {steps}")


def measured_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of the best of twelve square products of random matrices, of a size that fills the device."""
    dtype = COMPUTE_DTYPES[precision]
    size, best = (8192, 0.0) if device.type == "cuda" else (1024, 0.0)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(12):
        best = max(best, 2 * size**3 / seconds_of(lambda: left @ right, device))
    return best


def peaks(device: torch.device, precision: str) -> dict[str, float]:
    """Matrix peak of the device, which MFU refers to, and the rate that a plain product reaches; FLOP/s."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return {
        "matrix_peak": max(matrix_peak(device, precision) for _ in range(3)),
        "measured_peak": measured_peak(device, precision),
    }


def mean_length(manifest: Manifest) -> float:
    """Mean number of tokens per training tweet."""
    return manifest.tokens("train") / manifest.rows("train")


def tweets_that_fill(tokens: int, mean_length: float) -> int:
    """Number of tweets that nearly always fit into one micro-batch of this many tokens.

    Best-fit packing leaves 1 to 2 % of the positions empty. The standard deviation of lengths is half their mean, so
    that of the sum of n lengths is 1/(2√n) of the sum; a little more than two of these are left as a margin.
    """
    mean_tweets = tokens / mean_length
    return max(1, int(0.985 * mean_tweets * (1 - min(0.5, 1.2 / mean_tweets**0.5))))


def train_config(shards: str, device: str, settings: dict[str, Any], manifest: Manifest, ranks: int) -> TrainConfig:
    """Settings of a training run; by default a step is one micro-batch per rank, as full as packing makes it.

    Args:
        shards: folder of shards.
        device: "cpu" or "cuda".
        settings: `model`, `tokens_per_device`; optionally `precision`, `model.attention`, `model.compile`,
            `batch_tweets` (0: fill one micro-batch per rank), and further settings of train as `overrides`.
        manifest: manifest of the shards.
        ranks: world size.
    """
    tokens = settings["tokens_per_device"]
    values = {"model.name": settings["model"], "tokens_per_device": tokens}
    values |= {key: settings[key] for key in ("precision", "model.attention", "model.compile") if settings.get(key)}
    tweets = settings.get("batch_tweets") or tweets_that_fill(tokens, mean_length(manifest)) * ranks
    values |= {"data.path": shards, "batch_size": tweets, "device": device, "max_steps": 10**6, "output": "unused"}
    values |= settings.get("overrides", {})
    return parser.load(TrainConfig, [f"{key}={value}" for key, value in values.items()])


def main(shards: str, device: str) -> None:
    channel, world = Channel(), ranks.world_from_environment(device)
    ranks.start_process_group(world, 600)
    manifest = Manifest.read(shards)

    def run(command: Command) -> Command | None:
        if "peaks" in command:
            channel.answer(**peaks(world.device, command["peaks"]))
            return channel.next()
        config = train_config(shards, world.device.type, command["build"], manifest, world.world_size)
        ours = Ours(config, manifest, world)
        channel.answer(
            attention=ours.training.attention,
            flops_per_token=ours.training.flops_per_token,
            batch_tweets=config.batch_size,
            backends=backend_names(),
            mean_length=mean_length(manifest),
            row_length=manifest.max_length,
        )
        following = channel.next()
        while following is not None and "build" not in following:
            if "peaks" in following:
                channel.answer(**peaks(world.device, following["peaks"]))
            elif "phases" in following:
                channel.answer(**ours.phases(following["phases"]))
            else:
                channel.answer(**ours.turn(**following["turn"]))
            following = channel.next()
        return following

    serve(channel, world.device, run)
    ranks.stop_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

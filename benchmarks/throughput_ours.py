"""Our training step as `benchmarks.throughput` times it, in a process of its own; see `throughput_steps`.

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

from benchmarks.throughput_steps import Channel, Command, Steps, between, moment, serve, synchronize
from bert_tweets.common.errors import UserError
from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.batches import Step
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.world import World
from bert_tweets.engine import ddp
from bert_tweets.engine.precision import PRODUCTS
from bert_tweets.model.attention import backend_names
from bert_tweets.training.build import Training, build
from bert_tweets.training.flops import matrix_peak

LEARNING_RATE = 5e-5


class Parts:
    """Stands in for the labels that the engine puts around a step's parts, and times what they are put around.

    By events on a GPU, where autograd's threads start the kernels of the backward pass and no profiler's label
    reaches them; they run on the stream of the forward pass all the same.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.moments: dict[str, list[tuple[Any, Any]]] = {}

    def __call__(self, name: str) -> Parts._Label:
        return self._Label(self, name)

    class _Label:
        def __init__(self, parts: Parts, name: str):
            self.parts, self.name = parts, name

        def __enter__(self) -> None:
            self.begun = moment(self.parts.device)

        def __exit__(self, *_: object) -> None:
            ended = moment(self.parts.device)
            self.parts.moments.setdefault(self.name, []).append((self.begun, ended))

    def milliseconds(self) -> dict[str, float]:
        """By part, all micro-batches together."""
        synchronize(self.device)
        return {name: 1000 * sum(between(*pair) for pair in pairs) for name, pairs in self.moments.items()}


class Ours:
    """A training run, and its next steps.

    Args:
        config: of the run.
        manifest: of the shards.
        world: the ranks.
    """

    def __init__(self, config: TrainConfig, manifest: Manifest, world: World):
        self.world, self.steps = world, Steps(world.device)
        self.training: Training = build(config, manifest, world)
        self.coming: Iterator[Step] = self.training.loader.steps()

    def turn(self, steps: int, warm: int) -> dict[str, Any]:
        """Runs some steps; counts are of all ranks, told by the first.

        Returns:
            What `Steps.end` returns, with the `losses` and `gradient_norms` of the same steps.

        Raises:
            RuntimeError: they trained nothing, so that their speed means nothing.
        """
        outcomes: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.steps.begin()
        for _ in range(steps + warm):
            step = next(self.coming)
            main = int(self.world.is_main)
            self.steps.count(main * step.tokens, main * step.tweets, main * step.positions)
            outcomes.append(self.training.engine.train_step(step, self.training.masking, LEARNING_RATE))
            self.steps.end_step()
        taken = self.steps.end(warm)
        losses, norms = torch.stack([torch.stack(outcome) for outcome in outcomes[warm:]]).T.tolist()
        require_training(norms)
        return {**taken, "losses": losses, "gradient_norms": norms}

    def parts(self, steps: int) -> dict[str, float]:
        """Milliseconds of a step by part, medians of some; `data` is what the step waits for the loader."""
        found = []
        for _ in range(steps + 1):
            parts, asked = Parts(self.world.device), time.perf_counter()
            step = next(self.coming)
            waited = 1000 * (time.perf_counter() - asked)
            with mock.patch.object(ddp, "record_function", parts):
                self.training.engine.train_step(step, self.training.masking, LEARNING_RATE)
            found.append({"data": waited, **parts.milliseconds()})
        return {name: statistics.median(part[name] for part in found[1:]) for name in found[0]}


def require_training(gradient_norms: list[float]) -> None:
    """Raises RuntimeError where gradients are zero or not finite."""
    bad = [norm for norm in gradient_norms if not 0 < norm < math.inf]
    if bad:
        steps = f"{len(bad)} of {len(gradient_norms)} steps"
        raise RuntimeError(f"trained nothing: the gradient norm was {bad[0]} in {steps}")


def measured_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of the best of ten square products of random factors, of a size that fills the device."""
    dtype = PRODUCTS[precision]
    size, best = (8192, 0.0) if device.type == "cuda" else (1024, 0.0)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(12):
        begun = moment(device)
        left @ right
        ended = moment(device)
        synchronize(device)
        best = max(best, 2 * size**3 / between(begun, ended))
    return best


def peaks(device: torch.device, precision: str) -> dict[str, float]:
    """What MFU is a share of, and what a plain product reaches."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return {
        "matrix_peak": max(matrix_peak(device, precision) for _ in range(3)),
        "measured_peak": measured_peak(device, precision),
    }


def mean_length(manifest: Manifest) -> float:
    return manifest.tokens("train") / manifest.rows("train")


def tweets_that_fill(tokens: int, mean_length: float) -> int:
    """Tweets that one micro-batch of so many tokens nearly always holds.

    Best-fit leaves one or two per cent of the rows empty; lengths deviate by half their mean, so the sum of n of them
    by 1/(2√n): two deviations and a little are left free.
    """
    most = tokens / mean_length
    return max(1, int(0.985 * most * (1 - min(0.5, 1.2 / most**0.5))))


def configured(shards: str, device: str, given: dict[str, Any], manifest: Manifest, ranks: int) -> TrainConfig:
    """The run of these settings; by default a step is one micro-batch a rank, as full as packing makes it."""
    words = {"model.name": given["model"], "tokens_per_device": given["tokens_per_device"]}
    words |= {key: given[key] for key in ("precision", "model.attention", "model.compile") if given.get(key)}
    tweets = given.get("batch_tweets") or tweets_that_fill(given["tokens_per_device"], mean_length(manifest)) * ranks
    words |= {"data.path": shards, "batch_size": tweets, "device": device, "max_steps": 10**6, "output": "unused"}
    words |= given.get("settings", {})
    return parser.load(TrainConfig, [f"{key}={value}" for key, value in words.items()])


def main(shards: str, device: str) -> None:
    channel, world = Channel(), ranks.world_from_environment(device)
    ranks.start_process_group(world, 600)
    manifest = Manifest.read(shards)

    def answer_all(command: Command) -> Command | None:
        if "peaks" in command:
            channel.answer(**peaks(world.device, command["peaks"]))
            return channel.next()
        config = configured(shards, world.device.type, command["build"], manifest, world.world_size)
        try:
            ours = Ours(config, manifest, world)
        except UserError as reason:
            channel.answer(skipped=str(reason))
            return channel.next()
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
            elif "parts" in following:
                channel.answer(**ours.parts(following["parts"]))
            else:
                channel.answer(**ours.turn(**following["turn"]))
            following = channel.next()
        return following

    serve(channel, world.device, answer_all)
    ranks.stop_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

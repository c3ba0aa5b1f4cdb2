"""One rank of `benchmarks.scaling`: our training step as it is, broken down, and all-reduce alone.

python -m benchmarks.scaling_rank SHARDS DEVICE
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.device_timing import seconds_of
from benchmarks.throughput_ours import LEARNING_RATE, Ours, train_config
from benchmarks.timed_worker import Channel, Command, serve
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.world import World

_COUNTS = [1, 2, 3, 4]  # as many integers as ranks exchange per step


class Rank(Ours):
    """A training run on this rank, and the parts of its steps."""

    @property
    def replica(self) -> DistributedDataParallel | None:
        replica = getattr(self.training.engine, "replica", None)
        return replica if isinstance(replica, DistributedDataParallel) else None

    def gradients(self) -> dict[str, Any]:
        """Number of parameters, bytes of each gradient bucket in reduction order, and of the embeddings' gradients.

        Sizes are those in fp32, whatever precision gradients are exchanged in.
        """
        module = self.training.module
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        embeddings = module.model.get_input_embeddings().weight.numel()
        return {"parameters": parameters, "bucket_bytes": self._buckets(), "embedding_bytes": 4 * embeddings}

    def break_down(self, steps: int) -> dict[str, list[float]]:
        """Run some steps twice, with and without all-reduce, starting at the same moment on all ranks.

        Returns:
            For each step the seconds with all-reduce (`step`) and without (`compute`), the seconds spent waiting for
            the loader (`data`), and the mean tokens of the ranks (`tokens`).
        """
        columns: dict[str, list[float]] = {"tokens": [], "data": [], "step": [], "compute": []}
        for number in range(steps + 1):
            start = time.perf_counter()
            step = next(self.steps)
            row = {"tokens": step.tokens / self.world.world_size, "data": time.perf_counter() - start}
            run = partial(self.training.engine.train_step, step, self.training.masking, LEARNING_RATE)
            for name in ("step", "compute") if number % 2 else ("compute", "step"):
                self.world.barrier()
                with self._no_all_reduce() if name == "compute" else nullcontext():
                    row[name] = seconds_of(run, self.world.device)
            if number:  # the first is a warm-up
                for name, value in row.items():
                    columns[name].append(value)
        return columns

    def all_reduce(self, sizes: list[int], number_bytes: int, repeats: int) -> dict[str, list[float]]:
        """Time the joint all-reduce of tensors of these sizes, with all ranks ready.

        Args:
            sizes: sizes in bytes; empty: those of the step's gradient buckets.
            number_bytes: bytes per number, 2 for bf16 or 4 for fp32.
            repeats: number of timed repeats.
        """
        dtype = torch.bfloat16 if number_bytes == 2 else torch.float32
        counts = [size // number_bytes for size in sizes] or [size // 4 for size in self._buckets()]
        tensors = [torch.ones(count, dtype=dtype, device=self.world.device) for count in counts]

        def reduce() -> None:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

        seconds = []
        for _ in range(repeats + 1):
            self.world.barrier()
            seconds.append(seconds_of(reduce, self.world.device))
            for tensor in tensors:
                tensor.fill_(1)
        return {"repeat_seconds": seconds[1:]}

    def counts(self, repeats: int) -> dict[str, list[float]]:
        """Time the small all-gather by which ranks agree on a step."""
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.world.gather(_COUNTS)()
            seconds.append(time.perf_counter() - start)
        return {"repeat_seconds": seconds}

    def _buckets(self) -> list[int]:
        if not self.replica:
            return []
        logged = self.replica._get_ddp_logging_data()
        sizes = logged.get("rebuilt_bucket_sizes") or logged["bucket_sizes"]
        return [int(size) for size in str(sizes).split(",")]

    def _no_all_reduce(self) -> AbstractContextManager[None]:
        return self.replica.no_sync() if self.replica else nullcontext()


def pin(world: World) -> int | None:
    """On a CPU, pin this rank and its children to one core, with one thread; return the core."""
    if world.device.type != "cpu":
        return None
    cores = sorted(os.sched_getaffinity(0))
    core = cores[world.local_rank % len(cores)]
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    return core


def build_runs(command: Command, shards: str, manifest: Manifest, world: World) -> dict[int, Rank]:
    """Build a training run for each number of tweets per rank, so that their turns can alternate."""
    runs = {}
    for tweets in command["tweets"]:
        settings = command | {"batch_tweets": tweets * world.world_size}
        config = train_config(shards, world.device.type, settings, manifest, world.world_size)
        config.engine.compress_gradients = command["compress"]
        runs[tweets] = Rank(config, manifest, world)
        runs[tweets].turn(3, 0)  # DDP rebuilds its buckets after the first step
    return runs


def main(shards: str, device: str) -> None:
    channel, world = Channel(), ranks.world_from_environment(device)
    core = pin(world)
    ranks.start_process_group(world, 600)
    manifest = Manifest.read(shards)

    def run(command: Command) -> Command | None:
        if "devices" in command:
            channel.answer(devices=torch.cuda.device_count())
            return channel.next()
        runs = build_runs(command["build"], shards, manifest, world)
        first = next(iter(runs.values()))
        columns = {"attention": first.training.attention, "flops_per_token": first.training.flops_per_token}
        channel.answer(**first.gradients(), core=core, **columns)
        following = channel.next()
        while following is not None and "build" not in following:
            ((name, arguments),) = following.items()
            channel.answer(**getattr(runs[arguments.pop("tweets")], name)(**arguments))
            following = channel.next()
        return following

    serve(channel, world.device, run)
    ranks.stop_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A rank of `benchmarks.scaling`: our training step as it is, taken apart, and all-reduce alone.

python -m benchmarks.scaling_rank SHARDS DEVICE
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.throughput_ours import LEARNING_RATE, Ours, configured
from benchmarks.throughput_steps import Channel, Command, between, moment, serve, synchronize
from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.world import World

_SMALL = [1, 2, 3, 4]  # as many integers as ranks tell each other of a step


class Rank(Ours):
    """A training run on this rank, and what its steps are made of."""

    @property
    def replica(self) -> DistributedDataParallel | None:
        replica = getattr(self.training.engine, "replica", None)
        return replica if isinstance(replica, DistributedDataParallel) else None

    def gradients(self) -> dict[str, Any]:
        """Parameters, bytes of each bucket of gradients in the order in which they are reduced, and of the embeddings'.

        In fp32, whatever they are exchanged in.
        """
        module = self.training.module
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        embeddings = module.model.get_input_embeddings().weight.numel()
        return {"parameters": parameters, "bucket_bytes": self._buckets(), "embedding_bytes": 4 * embeddings}

    def apart(self, steps: int) -> dict[str, list[float]]:
        """Some steps, each run twice from the same moment on all ranks: with all-reduce, and without; in seconds.

        `data` is what the step waited for the loader, `tokens` the mean of the ranks.
        """
        found: dict[str, list[float]] = {"tokens": [], "data": [], "whole": [], "compute": []}
        for number in range(steps + 1):
            asked = time.perf_counter()
            step = next(self.coming)
            seconds = {"tokens": step.tokens / self.world.world_size, "data": time.perf_counter() - asked}
            for way in ("whole", "compute") if number % 2 else ("compute", "whole"):
                self.world.barrier()
                begun = moment(self.world.device)
                with self._no_all_reduce() if way == "compute" else nullcontext():
                    self.training.engine.train_step(step, self.training.masking, LEARNING_RATE)
                ended = moment(self.world.device)
                synchronize(self.world.device)
                seconds[way] = between(begun, ended)
            if number:  # the first warms up
                for name, value in seconds.items():
                    found[name].append(value)
        return found

    def all_reduce(self, sizes: list[int], bytes_each: int, repeats: int) -> dict[str, list[float]]:
        """Seconds of reducing tensors of so many bytes in one go, all ranks ready; none: the step's buckets."""
        kind = torch.bfloat16 if bytes_each == 2 else torch.float32
        counts = [size // bytes_each for size in sizes] or [size // 4 for size in self._buckets()]
        tensors = [torch.ones(count, dtype=kind, device=self.world.device) for count in counts]
        seconds = []
        for _ in range(repeats + 1):
            self.world.barrier()
            begun = moment(self.world.device)
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()
            ended = moment(self.world.device)
            synchronize(self.world.device)
            seconds.append(between(begun, ended))
            for tensor in tensors:
                tensor.fill_(1)
        return {"seconds_each": seconds[1:]}

    def counts(self, repeats: int) -> dict[str, list[float]]:
        """Seconds of the small gathering by which ranks agree on a step."""
        seconds = []
        for _ in range(repeats):
            begun = time.perf_counter()
            self.world.gather(_SMALL)()
            seconds.append(time.perf_counter() - begun)
        return {"seconds_each": seconds}

    def _buckets(self) -> list[int]:
        if not self.replica:
            return []
        logged = self.replica._get_ddp_logging_data()
        sizes = logged.get("rebuilt_bucket_sizes") or logged["bucket_sizes"]
        return [int(size) for size in str(sizes).split(",")]

    def _no_all_reduce(self) -> AbstractContextManager[None]:
        return self.replica.no_sync() if self.replica else nullcontext()


def pin(world: World) -> int | None:
    """On a CPU, has this rank and all that it starts keep to one core, with one thread; the core."""
    if world.device.type != "cpu":
        return None
    cores = sorted(os.sched_getaffinity(0))
    core = cores[world.local_rank % len(cores)]
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    return core


def built(command: Command, shards: str, manifest: Manifest, world: World) -> dict[int, Rank]:
    """A run for each number of tweets a rank, all ready at once, so that their turns can alternate."""
    runs = {}
    for tweets in command["tweets"]:
        given = command | {"batch_tweets": tweets * world.world_size}
        config = configured(shards, world.device.type, given, manifest, world.world_size)
        config.engine.compress_gradients = command["compress"]
        runs[tweets] = Rank(config, manifest, world)
        runs[tweets].turn(3, 0)  # DDP settles its buckets, and tells of them
    return runs


def main(shards: str, device: str) -> None:
    channel, world = Channel(), ranks.world_from_environment(device)
    core = pin(world)
    ranks.start_process_group(world, 600)
    manifest = Manifest.read(shards)

    def answer_all(command: Command) -> Command | None:
        if "devices" in command:
            channel.answer(devices=torch.cuda.device_count())
            return channel.next()
        try:
            runs = built(command["build"], shards, manifest, world)
        except UserError as reason:
            channel.answer(skipped=str(reason))
            return channel.next()
        training = next(iter(runs.values())).training
        about = {"core": core, "attention": training.attention, "flops_per_token": training.flops_per_token}
        channel.answer(**next(iter(runs.values())).gradients(), **about)
        following = channel.next()
        while following is not None and "build" not in following:
            ((name, arguments),) = following.items()
            channel.answer(**getattr(runs[arguments.pop("tweets")], name)(**arguments))
            following = channel.next()
        return following

    serve(channel, world.device, answer_all)
    ranks.stop_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

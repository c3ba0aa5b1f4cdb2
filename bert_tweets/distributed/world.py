"""The ranks of a run: which one this process is, and the few collectives that they need."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from bert_tweets.common.errors import UserError

from .rendezvous import fresh_store
from .work_split import WorkSplit

Item = TypeVar("Item")

_DRAIN_SECONDS = 0.2
_UNTIL_ENDED_SECONDS = 5
# For stages whose ranks rarely communicate: one may be slow, and torchrun ends all ranks when one dies.
_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class World:
    """This process among the ranks.

    Attributes:
        rank, local_rank, world_size, local_world_size: values of torchrun's variables, see `launchers`; 0, 0, 1, 1
            without a launcher.
        device: device of this rank.
    """

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def work_split(self) -> WorkSplit:
        """This rank's share of work that a single process could do alone."""
        return WorkSplit(self.rank, self.world_size)

    def local_part(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's part of work that each machine does once."""
        return items[self.local_rank :: self.local_world_size]

    def gather(self, values: list[int]) -> Callable[[], list[list[int]]]:
        """Start gathering a list of integers from every rank; calling the result waits. See `data.loader`."""
        if self.world_size == 1:
            return lambda: [values]
        # On the CPU (gloo), while the device computes.
        mine = torch.tensor(values, dtype=torch.int64)
        everyone = [torch.empty_like(mine) for _ in range(self.world_size)]
        work = dist.all_gather(everyone, mine, async_op=True)

        def wait() -> list[list[int]]:
            work.wait()
            return [other.tolist() for other in everyone]

        return wait

    def all_gather_concat(self, mine: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Concatenate the arrays of all ranks along their first axis, in the order of ranks, on every rank."""
        counts = [count for (count,) in self.gather([len(mine)])()]
        if self.world_size == 1 or not any(counts):
            return mine
        # gloo gathers equal shapes.
        padded = torch.from_numpy(np.resize(mine, (max(counts), *mine.shape[1:])))
        everyone = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(everyone, padded)
        return np.concatenate([other.numpy()[:count] for other, count in zip(everyone, counts, strict=True)])

    def broadcast(self, value: Tensor) -> Tensor:
        """Broadcast a CPU tensor from rank 0, in place."""
        if self.world_size > 1:
            dist.broadcast(value, 0)
        return value

    def broadcast_object(self, value: Any = None) -> Any:
        """Broadcast a JSON-serialisable object from rank 0; the argument of other ranks is ignored."""
        if self.world_size == 1:
            return json.loads(json.dumps(value))
        text = json.dumps(value).encode() if self.is_main else b""
        length = int(self.broadcast(torch.tensor(len(text))))
        data = torch.zeros(length, dtype=torch.uint8)
        if self.is_main:
            data[:] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return json.loads(self.broadcast(data).numpy().tobytes())

    def run_on_rank0(self, work: Callable[[], Any]) -> Any:
        """Run a function on rank 0 and broadcast its JSON-serialisable result.

        Raises:
            UserError: the function raised one on rank 0; every rank raises it.
        """
        result, trouble = None, ""
        if self.is_main:
            try:
                result = work()
            except UserError as error:
                trouble = str(error)
        result, trouble = self.broadcast_object([result, trouble])
        if trouble:
            raise UserError(trouble)
        return result

    def sum(self, value: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.all_reduce(torch.zeros(1))


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of the setting `device=auto|cpu|cuda`.

    Raises:
        UserError: this machine has no GPU, or fewer GPUs than ranks.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if local_rank >= count:
        raise UserError(
            f"device={name}: no GPU for local rank {local_rank}, this machine has {count}; "
            "start fewer processes or set device=cpu",
            found_by_one_rank=True,
        )
    return torch.device("cuda", local_rank)


def world_from_environment(device: str) -> World:
    """This process's place, from torchrun's variables. Starts nothing.

    Raises:
        UserError: there are other ranks but no address at which they meet, or there is no device for this rank.
    """
    rank, local_rank, size, local_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1"))
    )
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if size > 1 and lacking:
        raise UserError(
            f"rank {rank} of {size} has no {' and no '.join(lacking)}, the address of rank 0; set it to the same value "
            "on every rank, or start with torchrun"
        )
    return World(rank, local_rank, size, local_size, choose_device(device, local_rank))


def start_process_group(world: World, timeout_seconds: int, always: bool = False) -> None:
    """Start the process group: gloo on CPUs; NCCL on GPUs, with gloo for counts.

    Args:
        timeout_seconds: time limit of the rendezvous and of each collective.
        always: whether a single rank gets a group too.
    """
    # Whatever the engine: transformers imports DeepSpeed, if installed, when it saves a model.
    set_deepspeed_accelerator(world.device)
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    backend = "gloo" if world.device.type == "cpu" else "cpu:gloo,cuda:nccl"
    timeout = timedelta(seconds=timeout_seconds)
    if world.world_size > 1:
        store = fresh_store(world.rank, world.world_size, timeout)
        rank, size = world.rank, world.world_size
        dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=size)
    elif always:
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, timeout=timeout, store=alone, rank=0, world_size=1)


def set_deepspeed_accelerator(device: torch.device) -> None:
    """Set DeepSpeed's accelerator before it is imported; else it searches for one and prints what it found."""
    os.environ["DS_ACCELERATOR"] = device.type


def stop_process_group() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        # gloo's threads take the GIL to drop their last tensors; destroying the group meanwhile waits for them while
        # holding the GIL, for ever. Sleeping releases it.
        time.sleep(_DRAIN_SECONDS)
        dist.destroy_process_group()


@contextmanager
def process_group(world: World) -> Iterator[None]:
    """Start the process group for the block; a group that exists already is kept.

    gloo's group must not be started twice in a process: ranks may find the addresses of the first one.
    """
    exists = dist.is_initialized()
    if not exists:
        start_process_group(world, _DAY_SECONDS)
    try:
        world.barrier()
        yield
    except RuntimeError:
        # Most likely another rank died and printed why: torchrun ends this rank before it prints more.
        if world.world_size > 1:
            time.sleep(_UNTIL_ENDED_SECONDS)
        raise
    finally:
        if not exists:
            stop_process_group()

"""A small all-reduce over the ranks of a launch: do they meet, is the sum right, and how long does it take."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bert_tweets.common.errors import UserError
from bert_tweets.common.logs import EVERY_RANK
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.world import World

logger = logging.getLogger(__name__)

# One number, whose time is all latency, and a bucket of DDP (25 MiB), whose time is mostly bandwidth.
SIZES = {"latency": (1, 20), "bandwidth": (25 * 2**20 // 4, 3)}  # numbers, times
_WARM_UP = 2
# The library's own time-out comes after ours, which is one line.
_LATER_SECONDS = 60


def trial(world: World, about: dict[str, Any], timeout_seconds: int) -> list[dict[str, Any]]:
    """Starts the process group, adds up on the device, and leaves the group. Every rank calls it.

    Args:
        about: what this rank says of itself, as JSON can write it.

    Returns:
        What each rank said, by rank, and with it `rank`, `device`, `wrong` (numbers of its own sums that were not the
        expected ones), `latency` and `bandwidth` (seconds of one all-reduce of that size).

    Raises:
        UserError: the ranks do not meet, or one of them is gone.
        SystemExit: code 2, after a line: it took too long. Nothing else ends a collective that hangs.
    """
    stage = ["meet"]
    with _watched(world, stage, timeout_seconds):
        try:
            ranks.start_process_group(world, timeout_seconds + _LATER_SECONDS)
            stage[0] = "add up"
            found: dict[str, Any] = {"rank": world.rank, "device": short_device_name(world), "wrong": 0}
            for name, (numbers, times) in SIZES.items():
                found[name], wrong = all_reduce(world, numbers, times)
                found["wrong"] += wrong
            return _from_all(world, {**about, **found})
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"{_where(world)}: the ranks could not {stage[0]} ({first})", found_by_one_rank=True
            ) from None
        finally:
            ranks.stop_process_group()


def all_reduce(world: World, numbers: int, times: int) -> tuple[float, int]:
    """Seconds of an all-reduce of so many numbers in fp32, and how many of all its sums were wrong."""
    expected = world.world_size * (world.world_size + 1) // 2
    wrong, started = 0, 0.0
    for turn in range(_WARM_UP + times):
        if turn == _WARM_UP:
            started = time.perf_counter()
        values = world.sum(torch.full((numbers,), float(world.rank + 1), device=world.device))
        if turn < _WARM_UP:
            wrong += int((values != expected).sum())  # waits for the device
    float(values[0])  # so does this
    return (time.perf_counter() - started) / times, wrong


def bandwidth(seconds: float, world_size: int) -> float:
    """Bytes a second that each rank's link carries: 2 (n - 1) / n of the data (nccl-tests, PERFORMANCE.md)."""
    return 2 * (world_size - 1) / world_size * 4 * SIZES["bandwidth"][0] / seconds


def short_device_name(world: World) -> str:
    return torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"


def _from_all(world: World, mine: dict[str, Any]) -> list[dict[str, Any]]:
    line = np.frombuffer((json.dumps(mine) + "\n").encode(), dtype=np.uint8)
    return [json.loads(one) for one in world.all_gather_concat(line.copy()).tobytes().splitlines()]


@contextmanager
def _watched(world: World, stage: list[str], seconds: int) -> Iterator[None]:
    """Ends the process when the block takes longer."""

    def end() -> None:
        if world.local_rank == 0:
            meeting = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            line = f"{_where(world)}: the ranks did not {stage[0]} within {seconds} s, at {meeting}"
            do = (
                "are all of them started, and may they reach each other there? NCCL_DEBUG=INFO says what NCCL waits for"
            )
            logger.error(f"{line}; {do}", extra=EVERY_RANK)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _where(world: World) -> str:
    return f"rank {world.rank} of {world.world_size}"

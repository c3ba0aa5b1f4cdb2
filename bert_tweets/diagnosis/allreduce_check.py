"""A small all-reduce over the ranks of a launch: do they meet, are the sums right, and how long does it take?"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

import numpy as np
import torch

from bert_tweets.common.errors import UserError
from bert_tweets.common.logs import EVERY_RANK
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.world import World

logger = logging.getLogger(__name__)

# Floats and repetitions. The time of a single float is all latency; that of a DDP bucket (25 MiB) is mostly bandwidth.
LATENCY, BANDWIDTH = (1, 20), (25 * 2**20 // 4, 3)
_WARM_UP = 2
# The library's own time-out comes after ours, which is one line.
_LATER_SECONDS = 60


class RankReport(TypedDict):
    """What one rank found.

    `problems` are those of its machine, as (stops a run, line); `wrong_sums` counts wrong numbers of the all-reduce;
    `latency` and `bandwidth` are the seconds of one all-reduce of 4 bytes and of 25 MiB.
    """

    rank: int
    host: str
    device: str
    versions: dict[str, str]
    problems: list[tuple[bool, str]]
    wrong_sums: int
    latency: float
    bandwidth: float


def check_all_reduce(
    world: World, host: str, versions: dict[str, str], problems: list[tuple[bool, str]], timeout_seconds: int
) -> list[RankReport]:
    """Start the process group, time two all-reduces, and leave the group. Every rank calls it, and gets all reports.

    Args:
        world: the ranks; the group must not have been started.
        host, versions, problems: see `RankReport`.
        timeout_seconds: limit for all of it.

    Raises:
        UserError: the ranks do not meet, or one of them is gone.
        SystemExit: code 2, after a line: the time limit passed. Nothing else ends a collective that hangs.
    """
    stage = ["meet"]
    with _time_limit(world, stage, timeout_seconds):
        try:
            ranks.start_process_group(world, timeout_seconds + _LATER_SECONDS)
            stage[0] = "finish the all-reduce"
            (latency, wrong), (bandwidth, more) = all_reduce(world, *LATENCY), all_reduce(world, *BANDWIDTH)
            device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"
            report = RankReport(
                rank=world.rank,
                host=host,
                device=device,
                versions=versions,
                problems=problems,
                wrong_sums=wrong + more,
                latency=latency,
                bandwidth=bandwidth,
            )
            line = np.frombuffer((json.dumps(report) + "\n").encode(), dtype=np.uint8)
            return [json.loads(one) for one in world.all_gather_concat(line.copy()).tobytes().splitlines()]
        except RuntimeError as error:
            why = f"the ranks could not {stage[0]} ({str(error).strip().splitlines()[0]})"
            raise UserError(f"{_name(world)}: {why}", found_by_one_rank=True) from None
        finally:
            ranks.stop_process_group()


def all_reduce(world: World, floats: int, repetitions: int) -> tuple[float, int]:
    """Seconds of an all-reduce of so many fp32 numbers, and how many of its sums were wrong."""
    expected = world.world_size * (world.world_size + 1) // 2
    wrong, started = 0, 0.0
    for turn in range(_WARM_UP + repetitions):
        if turn == _WARM_UP:
            started = time.perf_counter()
        values = world.sum(torch.full((floats,), float(world.rank + 1), device=world.device))
        if turn < _WARM_UP:
            wrong += int((values != expected).sum())  # waits for the device
    float(values[0])  # so does this
    return (time.perf_counter() - started) / repetitions, wrong


def bytes_per_second(seconds: float, world_size: int) -> float:
    """Rate of each rank's link in an all-reduce of 25 MiB: 2 (n - 1) / n of the data (nccl-tests, PERFORMANCE.md)."""
    return 2 * (world_size - 1) / world_size * 4 * BANDWIDTH[0] / seconds


@contextmanager
def _time_limit(world: World, stage: list[str], seconds: int) -> Iterator[None]:
    """End the process if the block takes longer."""

    def end() -> None:
        if world.local_rank == 0:
            meeting = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            logger.error(
                f"{_name(world)}: the ranks did not {stage[0]} within {seconds} s, at {meeting}; check that all are "
                "started and can reach each other there; NCCL_DEBUG=INFO shows what NCCL waits for",
                extra=EVERY_RANK,
            )
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _name(world: World) -> str:
    return f"rank {world.rank} of {world.world_size}"

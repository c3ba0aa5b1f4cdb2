"""Groups of worker processes, one per rank, that benchmarks time in turns; their answers are merged over ranks."""

from __future__ import annotations

import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from multiprocessing.connection import wait
from typing import IO, Any, Protocol

from benchmarks.common import ROOT

# Maximum number of steps per turn; only toy models have steps under a millisecond.
MAX_STEPS = 2000


class FailedError(Exception):
    """The workers could not carry out a command; the message is the reason."""


class SkippedError(FailedError):
    """The command is not supported on this machine."""


class TakesTurns(Protocol):
    """Something whose steps can be timed."""

    def turn(self, steps: int, warmup: int) -> dict[str, Any]:
        """Run `warmup` steps, then `steps` steps; return the seconds and counts of the latter."""
        ...


class WorkerGroup:
    """A group of worker processes; it waits between its turns, so that other groups can take theirs.

    Args:
        module: module of benchmarks that the workers run.
        shards: folder of shards.
        device: "auto", "cpu" or "cuda".
        ranks: number of processes.
    """

    def __init__(self, module: str, shards: str, device: str, ranks: int):
        self.module, self.arguments, self.ranks = module, (shards, device), ranks
        self.processes: list[subprocess.Popen[str]] = []
        self.stderr: list[IO[str]] = []
        self.hello: dict[str, Any] = {}

    def request(self, **command: Any) -> dict[str, Any]:
        """Send a command to all ranks; return their merged answers.

        Raises:
            FailedError: it failed; the next command starts new processes.
            SkippedError: the command is not supported on this machine.
        """
        return merge_ranks(self.request_each(**command))

    def request_each(self, **command: Any) -> list[dict[str, Any]]:
        """Send a command to all ranks; return the answer of each. Raises as `request` does."""
        self.start()
        if not self.hello:
            self.hello = self._answers()[0]
        for process in self.processes:
            assert process.stdin
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        return self._answers()

    def build(self, **settings: Any) -> dict[str, Any]:
        return self.request(build=settings)

    def turn(self, steps: int, warmup: int) -> dict[str, Any]:
        return self.request(turn={"steps": steps, "warmup": warmup})

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for file in self.stderr:
            file.close()
        self.processes, self.stderr, self.hello = [], [], {}

    def start(self) -> None:
        """Start the processes, unless they run; do not wait for them."""
        if self.processes:
            return
        shared = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if self.ranks > 1:
            threads = max(1, (os.cpu_count() or 1) // self.ranks)
            shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "OMP_NUM_THREADS": str(threads)}
            shared |= {"WORLD_SIZE": str(self.ranks), "LOCAL_WORLD_SIZE": str(self.ranks)}
        for rank in range(self.ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if self.ranks > 1 else {}
            stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
            self.stderr.append(stderr)
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"benchmarks.{self.module}", *self.arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    cwd=ROOT,
                    env={**os.environ, **shared, **own},
                )
            )

    def _answers(self) -> list[dict[str, Any]]:
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < len(self.processes):
            waiting = {process.stdout: rank for rank, process in enumerate(self.processes) if rank not in answers}
            # A single rank is read directly: `wait` does not see what Python has already buffered from its pipe.
            for ready in wait(list(waiting)) if self.ranks > 1 else waiting:  # type: ignore[arg-type]
                rank = waiting[ready]  # type: ignore[index]
                line = self.processes[rank].stdout.readline()  # type: ignore[union-attr]
                answers[rank] = json.loads(line) if line else {"error": self._exit_reason(rank)}
                if "error" in answers[rank]:
                    # Other ranks would wait for it forever, and its process may be unusable.
                    self.close()
                    raise FailedError(answers[rank]["error"])
        if "skipped" in answers[0]:
            raise SkippedError(answers[0]["skipped"])
        return [answers[rank] for rank in sorted(answers)]

    def _exit_reason(self, rank: int) -> str:
        self.processes[rank].wait()
        self.stderr[rank].seek(0)
        lines = [line for line in self.stderr[rank].read().splitlines() if line.strip()]
        return f"exited: {lines[-1] if lines else f'code {self.processes[rank].returncode}'}"


def merge_ranks(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the answers of all ranks: counts are summed, and a step takes as long as its slowest rank."""
    first = dict(answers[0])
    if "seconds" not in first:
        return first
    for name in ("tokens", "tweets", "positions"):
        first[name] = [sum(counts) for counts in zip(*(answer[name] for answer in answers), strict=True)]
    first["seconds"] = [max(seconds) for seconds in zip(*(answer["seconds"] for answer in answers), strict=True)]
    first["peak_memory_bytes"] = max(answer["peak_memory_bytes"] for answer in answers)
    return first


class TurnTimer:
    """The timed turns of a group.

    Args:
        workers: group whose training run is built.
        warmup: steps before the first turn.
    """

    def __init__(self, workers: TakesTurns, warmup: int):
        self.workers = workers
        self.turns: list[dict[str, Any]] = []
        self.step_seconds = statistics.median(workers.turn(2, warmup)["seconds"])

    def turn(self, seconds: float) -> None:
        """Time a turn of about `seconds` seconds and at least two steps, after one warm-up step."""
        steps = min(MAX_STEPS, max(2, math.ceil(seconds / self.step_seconds)))
        self.turns.append(self.workers.turn(steps, 1))

    def summary(self) -> dict[str, Any]:
        return summarize(self.turns)


def summarize(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarize turns: rates are medians of steps; those of the slowest and fastest turn are added."""
    seconds, tokens, tweets = (
        [value for turn in turns for value in turn[name]] for name in ("seconds", "tokens", "tweets")
    )
    turn_rates = [sum(turn["tokens"]) / sum(turn["seconds"]) for turn in turns]
    positions = sum(sum(turn["positions"]) for turn in turns)
    return {
        "tokens_per_second": _median_rate(tokens, seconds),
        "tokens_per_second_mean": sum(tokens) / sum(seconds),
        "lowest_turn": min(turn_rates),
        "highest_turn": max(turn_rates),
        "tweets_per_second": _median_rate(tweets, seconds),
        "step_milliseconds": 1000 * statistics.median(seconds),
        "steps": len(seconds),
        "tokens_per_step": sum(tokens) / len(tokens),
        "padding_fraction": 1 - sum(tokens) / positions,
        "peak_memory_bytes": max(turn["peak_memory_bytes"] for turn in turns),
    }


def utilisation(flops_per_second: float, peak: dict[str, float]) -> dict[str, float]:
    """Model FLOPs utilisation (MFU), of the matrix peak and of the measured peak."""
    return {
        "mfu": flops_per_second / peak["matrix_peak"],
        "mfu_of_measured_peak": flops_per_second / peak["measured_peak"],
    }


def _median_rate(counts: list[int], seconds: list[float]) -> float:
    return statistics.median(count / time for count, time in zip(counts, seconds, strict=True))


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])

"""The processes that `benchmarks.throughput` times: started, asked, their answers put together; a process a rank."""

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
from typing import IO, Any

from benchmarks.common import ROOT

# Steps of a turn at most; a step under a millisecond is a toy.
MOST_STEPS = 2000


class FailedError(Exception):
    """A party could not do what it was asked; the message says why."""


class SkippedError(FailedError):
    """It cannot be done here, and that is no fault."""


class Party:
    """One of those who are timed: waits between its turns, so that others can have theirs.

    Args:
        module: that its processes run.
        shards: folder.
        device: auto, cpu or cuda.
        ranks: processes.
    """

    def __init__(self, module: str, shards: str, device: str, ranks: int):
        self.module, self.words, self.ranks = module, (shards, device), ranks
        self.processes: list[subprocess.Popen[str]] = []
        self.said: list[IO[str]] = []
        self.hello: dict[str, Any] = {}

    def ask(self, **command: Any) -> dict[str, Any]:
        """Its answer to a command, those of all ranks in one.

        Raises:
            FailedError: it failed; asked again, it starts afresh.
            SkippedError: it cannot be done here.
        """
        return together(self.ask_each(**command))

    def ask_each(self, **command: Any) -> list[dict[str, Any]]:
        """The answers of all ranks to a command; see `ask`."""
        self.start()
        if not self.hello:
            self.hello = self._answers()[0]
        for process in self.processes:
            assert process.stdin
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        return self._answers()

    def build(self, **settings: Any) -> dict[str, Any]:
        return self.ask(build=settings)

    def turn(self, steps: int, warm: int) -> dict[str, Any]:
        return self.ask(turn={"steps": steps, "warm": warm})

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for file in self.said:
            file.close()
        self.processes, self.said, self.hello = [], [], {}

    def start(self) -> None:
        """Starts its processes, if they are not there; waits for nothing."""
        if self.processes:
            return
        common = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if self.ranks > 1:
            threads = max(1, (os.cpu_count() or 1) // self.ranks)
            common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "OMP_NUM_THREADS": str(threads)}
            common |= {"WORLD_SIZE": str(self.ranks), "LOCAL_WORLD_SIZE": str(self.ranks)}
        for rank in range(self.ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if self.ranks > 1 else {}
            said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the party
            self.said.append(said)
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"benchmarks.{self.module}", *self.words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    cwd=ROOT,
                    env={**os.environ, **common, **own},
                )
            )

    def _answers(self) -> list[dict[str, Any]]:
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < len(self.processes):
            waiting = {process.stdout: rank for rank, process in enumerate(self.processes) if rank not in answers}
            # One alone is read at once: what its pipe has given already would not wake the waiting.
            for ready in wait(list(waiting)) if self.ranks > 1 else waiting:  # type: ignore[arg-type]
                rank = waiting[ready]  # type: ignore[index]
                line = self.processes[rank].stdout.readline()  # type: ignore[union-attr]
                answers[rank] = json.loads(line) if line else {"error": self._last_words(rank)}
                if "error" in answers[rank]:
                    # Other ranks would wait for it for ever, and what it left may not be fit for more.
                    self.close()
                    raise FailedError(answers[rank]["error"])
        if "skipped" in answers[0]:
            raise SkippedError(answers[0]["skipped"])
        return [answers[rank] for rank in sorted(answers)]

    def _last_words(self, rank: int) -> str:
        self.processes[rank].wait()
        self.said[rank].seek(0)
        lines = [line for line in self.said[rank].read().splitlines() if line.strip()]
        return f"ended: {lines[-1] if lines else f'code {self.processes[rank].returncode}'}"


def together(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Answers of all ranks as one: counts add up, a step takes as long as its slowest rank."""
    first = dict(answers[0])
    if "seconds" not in first:
        return first
    for name in ("tokens", "tweets", "positions"):
        first[name] = [sum(counts) for counts in zip(*(answer[name] for answer in answers), strict=True)]
    first["seconds"] = [max(seconds) for seconds in zip(*(answer["seconds"] for answer in answers), strict=True)]
    first["peak_memory_bytes"] = max(answer["peak_memory_bytes"] for answer in answers)
    return first


class Timed:
    """A party that has been built, and the turns that it has had.

    Args:
        party: built.
        warm: steps before its first turn.
    """

    def __init__(self, party: Party, warm: int):
        self.party = party
        self.turns: list[dict[str, Any]] = []
        self.step_seconds = statistics.median(party.turn(2, warm)["seconds"])

    def turn(self, seconds: float) -> None:
        """A turn of about so many seconds, two steps at least, after one that is not counted."""
        steps = min(MOST_STEPS, max(2, math.ceil(seconds / self.step_seconds)))
        self.turns.append(self.party.turn(steps, 1))

    def summary(self) -> dict[str, Any]:
        return summary(self.turns)


def summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """What turns come to: rates are medians of steps, with the rates of whole turns beside them."""
    seconds, tokens, tweets = (
        [value for turn in turns for value in turn[name]] for name in ("seconds", "tokens", "tweets")
    )
    of_turns = [sum(turn["tokens"]) / sum(turn["seconds"]) for turn in turns]
    positions = sum(sum(turn["positions"]) for turn in turns)
    return {
        "tokens_per_second": _median_rate(tokens, seconds),
        "tokens_per_second_mean": sum(tokens) / sum(seconds),
        "lowest_turn": min(of_turns),
        "highest_turn": max(of_turns),
        "tweets_per_second": _median_rate(tweets, seconds),
        "step_milliseconds": 1000 * statistics.median(seconds),
        "steps": len(seconds),
        "tokens_per_step": sum(tokens) / len(tokens),
        "padding_fraction": 1 - sum(tokens) / positions,
        "peak_memory_bytes": max(turn["peak_memory_bytes"] for turn in turns),
    }


def _median_rate(counts: list[int], seconds: list[float]) -> float:
    return statistics.median(count / time for count, time in zip(counts, seconds, strict=True))


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])

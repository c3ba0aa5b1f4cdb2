"""Weak and strong scaling of our training step over the ranks of this machine, and a model fitted to it.

    python -m benchmarks.scaling shards=shards/ model=FOLDER [key=value ...]

ranks      world sizes, such as 1,2; auto: 1, 2, 4, ... up to the number of cores or GPUs [auto]
tweets     tweets per rank and step; every world size runs each: weak scaling compares equal numbers, strong scaling
           numbers whose product with the world size is equal [64,128,256]
precision  such as bf16,fp32 [bf16]
gradients  precision in which ranks exchange gradients, such as fp32,bf16 [fp32]
seconds    duration of a timed turn [3]
turns      turns per world size and number of tweets; they alternate, so that noise affects all alike [8]
breakdown  steps whose time is broken down, after the turns [5]
device     auto, cpu or cuda
output     path of the results without suffix; empty: benchmarks/results/scaling-{cpu|gpu}; rows of other precisions or
           gradients in that file are kept

On a CPU each rank is pinned to its own core, with one thread, for every world size. Rates count real tokens only, and
come from consecutive steps as in training. Some steps are then broken down: each is run with and without all-reduce,
starting at the same moment on all ranks.

    compute   duration of the step without all-reduce, mean over ranks
    waiting   how much longer the slowest rank takes than that
    exposed   how much longer the step with all-reduce takes than its slowest rank without
    hidden    how much longer all-reduce takes alone, with all ranks ready, than the exposed part
    data      time that the step waits for the loader

`scaling_model.py` describes the model and its fit, `scaling_cluster.py` the assumptions about a cluster.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import scaling_cluster, scaling_plot, scaling_report
from benchmarks.common import Row, provenance, read_rows, read_settings, write_rows
from benchmarks.worker_group import TurnTimer, WorkerGroup

OURS = "bert_tweets"
# Sizes in bytes to which the time of an all-reduce is fitted.
SIZES = (2**12, 2**18, 2**22, 2**24, 2**26)
REPEATS = 7
NUMBER_BYTES = {"fp32": 4, "bf16": 2}


class Steps:
    """The steps of one size that a group of workers has built.

    Args:
        workers: group whose training run is built.
        tweets: tweets per rank and step.
    """

    def __init__(self, workers: WorkerGroup, tweets: int):
        self.workers, self.tweets, self.ranks = workers, tweets, workers.ranks

    def turn(self, steps: int, warmup: int) -> Row:
        return self.workers.request(turn={"tweets": self.tweets, "steps": steps, "warmup": warmup})

    def request_each(self, command: str, **arguments: Any) -> list[Row]:
        """Send a command to all ranks; return the answer of each."""
        return self.workers.request_each(**{command: {"tweets": self.tweets, **arguments}})


class Scaling:
    """A run of the benchmark: its settings, a group of workers per world size, and rows of results.

    Args:
        arguments: `key=value` arguments.
    """

    def __init__(self, arguments: list[str]):
        self.settings = read_settings(
            arguments,
            __doc__,
            ("shards", "model"),
            shards="",
            model="",
            ranks="auto",
            tweets="64,128,256",
            precision="bf16",
            gradients="fp32",
            seconds=3.0,
            turns=8,
            breakdown=5,
            device="auto",
            output="",
        )
        self.shards, self.model = (str(Path(self.settings[name]).resolve()) for name in ("shards", "model"))
        self.provenance = provenance("scaling", arguments)
        first = WorkerGroup("scaling_rank", self.shards, self.settings["device"], 1)
        self.kind, max_ranks = self._devices(first)
        ranks = self.settings["ranks"]
        counts = [2**power for power in range(max_ranks.bit_length())] if ranks == "auto" else _numbers(ranks)
        if max(counts) > max_ranks:
            raise SystemExit(f"error: ranks={ranks}: this machine supports at most {max_ranks}")
        groups = {count: WorkerGroup("scaling_rank", self.shards, self.settings["device"], count) for count in counts}
        self.groups = {**groups, **({1: first} if 1 in groups else {})}
        self.tweets = _numbers(self.settings["tweets"])
        self.output = self.settings["output"] or f"benchmarks/results/scaling-{self.kind}"
        self.rows = self._earlier_rows()

    def run(self) -> None:
        """Measure, fit and predict; each row is written at once."""
        for precision in self.settings["precision"].split(","):
            for gradients in self.settings["gradients"].split(","):
                self.measure(precision, gradients)
                self.all_reduce(precision, gradients)
        self.rows += scaling_cluster.rows(self.rows)
        self.write()
        scaling_plot.plot(self.rows, self.output)

    def measure(self, precision: str, gradients: str) -> None:
        """Time all world sizes at all numbers of tweets in turns; then break down their steps."""
        columns: Row = {"precision": precision, "gradients": gradients}
        settings = {"model": self.model, "precision": precision, "compress": gradients == "bf16"}
        settings |= {"tweets": self.tweets, "tokens_per_device": 16_384}
        answers = {count: workers.build(**settings) for count, workers in self.groups.items()}
        all_steps = [Steps(workers, tweets) for tweets in self.tweets for workers in self.groups.values()]
        timers = [(steps, TurnTimer(steps, 1)) for steps in all_steps]
        for _ in range(self.settings["turns"]):
            for _, timer in timers:
                timer.turn(self.settings["seconds"])
        for steps, timer in timers:
            row = columns | {"ranks": steps.ranks, "tweets_per_rank": steps.tweets}
            row |= answers[steps.ranks] | timer.summary()
            row |= {"turn_rates": [sum(turn["tokens"]) / sum(turn["seconds"]) for turn in timer.turns]}
            row["tokens_per_rank"] = row["tokens_per_step"] / steps.ranks
            self.add("step", row | self.break_down(steps, gradients))

    def break_down(self, steps: Steps, gradients: str) -> Row:
        """The parts of a step, medians over some steps."""
        ranks = steps.request_each("break_down", steps=self.settings["breakdown"])
        return _parts(ranks, _all_reduce_seconds(steps, [], NUMBER_BYTES[gradients]) if steps.ranks > 1 else 0.0)

    def all_reduce(self, precision: str, gradients: str) -> None:
        """Time all-reduce by size, and the exchange of a step's counts."""
        for count, workers in self.groups.items():
            if count == 1:
                continue
            steps = Steps(workers, self.tweets[0])
            columns = {"ranks": count, "precision": precision, "gradients": gradients}
            for size in SIZES:
                seconds = _all_reduce_seconds(steps, [size], NUMBER_BYTES[gradients])
                self.add("all_reduce", columns | {"bytes": size, "seconds": seconds})
            answers = steps.request_each("counts", repeats=50)
            self.add("counts", columns | {"seconds": statistics.median(answers[0]["repeat_seconds"])})

    def add(self, kind: str, columns: Row) -> None:
        """Add a row of results, write all rows again, and print the new one."""
        row = {"who": OURS, "kind": kind, "model": Path(self.model).name} | columns | self.provenance
        if kind == "step":
            row |= {"engine": "ddp", "optimizer_included": True, "mfu": None}
        self.rows.append(row)
        self.write()
        print(scaling_report.line(row), flush=True)

    def write(self) -> None:
        write_rows(f"{self.output}.json", self.rows)
        scaling_report.write(self.rows, self.output)

    def close(self) -> None:
        for workers in self.groups.values():
            workers.close()

    def _devices(self, workers: WorkerGroup) -> tuple[str, int]:
        """The kind of device, "cpu" or "gpu", and the largest world size on it."""
        devices = int(workers.request(devices={})["devices"])
        kind = str(workers.hello["kind"])
        return kind, devices if kind == "gpu" else len(os.sched_getaffinity(0))

    def _earlier_rows(self) -> list[Row]:
        """Measured rows of an earlier run that this run does not repeat."""
        rows: list[Row] = read_rows(f"{self.output}.json")
        repeated = {name: self.settings[name].split(",") for name in ("precision", "gradients")}
        measured = [row for row in rows if row["kind"] in ("step", "all_reduce", "counts")]
        return [row for row in measured if any(row[name] not in values for name, values in repeated.items())]


def _all_reduce_seconds(steps: Steps, sizes: list[int], number_bytes: int) -> float:
    """Median time of all-reduce alone on the slowest rank; without sizes, of the step's gradient buckets."""
    ranks = steps.request_each("all_reduce", sizes=sizes, number_bytes=number_bytes, repeats=REPEATS)
    return float(statistics.median(map(max, zip(*(rank["repeat_seconds"] for rank in ranks), strict=True))))


def _parts(ranks: list[dict[str, list[float]]], all_reduce: float) -> Row:
    """The parts of a step.

    Args:
        ranks: seconds and tokens of some steps, by rank.
        all_reduce: seconds of all-reduce alone.
    """
    steps = [
        {name: [rank[name][number] for rank in ranks] for name in ("compute", "step", "data")}
        for number in range(len(ranks[0]["step"]))
    ]
    compute = statistics.median(statistics.mean(step["compute"]) for step in steps)
    waiting = statistics.median(max(step["compute"]) - statistics.mean(step["compute"]) for step in steps)
    exposed = 0.0
    if len(ranks) > 1:
        exposed = max(0.0, statistics.median(max(step["step"]) - max(step["compute"]) for step in steps))
    seconds_per_token = [
        rank["compute"][number] / rank["tokens"][number] for rank in ranks for number in range(len(steps))
    ]
    median = statistics.median(seconds_per_token)
    return {
        "compute_seconds": compute,
        "waiting_seconds": waiting,
        "exposed_seconds": exposed,
        "hidden_seconds": max(0.0, all_reduce - exposed),
        "data_seconds": statistics.median(max(step["data"]) for step in steps),
        "all_reduce_seconds": all_reduce,
        # Estimates the standard deviation, but is robust against single delayed steps (Huber 1981, section 5.1).
        "jitter": 1.4826 * statistics.median(abs(value - median) for value in seconds_per_token) / median,
    }


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main(arguments: list[str]) -> None:
    scaling = Scaling(arguments)
    try:
        scaling.run()
    finally:
        scaling.close()
    print(scaling_report.markdown(scaling.rows))


if __name__ == "__main__":
    main(sys.argv[1:])

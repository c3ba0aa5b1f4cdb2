"""Weak and strong scaling of our training step over the ranks of this machine, and what a model makes of it.

    python -m benchmarks.scaling shards=shards/ model=FOLDER [key=value ...]

ranks      numbers of ranks, such as 1,2; auto: 1, 2, 4 ... up to the cores, or the GPUs [auto]
tweets     of a rank and step; each number of ranks runs each: weak scaling compares equal ones, strong scaling those
           whose product with the ranks is equal [64,128,256]
precision  such as bf16,fp32 [bf16]
gradients  what ranks exchange, such as fp32,bf16 [fp32]
seconds    of a timed turn [3]
turns      of each; all numbers of ranks and tweets alternate, so that noise meets all [8]
apart      steps that are taken apart, after the turns [5]
device     auto, cpu or cuda
output     of results, without suffix; empty: benchmarks/results/scaling-{cpu|gpu}; rows of other precisions or
           gradients that stand there already stay

On a CPU each rank keeps to a core of its own, with one thread, whatever the number of ranks. Rates count real tokens
alone, and come from steps that follow each other as in training. A step is then taken apart: it is run with all-reduce
and without, from the same moment on all ranks.

    compute   the step without all-reduce, mean of the ranks
    waiting   what the slowest rank takes more than that
    exposed   what the step takes with all-reduce more than its slowest rank without
    hidden    what all-reduce takes alone, all ranks ready, more than that
    data      what the step waits for the loader

The model, and how it is fitted, is in `scaling_model.py`; what is assumed of a cluster in `scaling_cluster.py`.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import scaling_cluster, scaling_picture, scaling_report
from benchmarks.common import command_of, machine, read_rows, words_of, write_rows
from benchmarks.throughput_parties import Party, Timed

OURS = "bert_tweets"
# Of which the time of an all-reduce is learnt.
SIZES = (2**12, 2**18, 2**22, 2**24, 2**26)
REPEATS = 7
BYTES_EACH = {"fp32": 4, "bf16": 2}
Row = dict[str, Any]


class Sized:
    """The steps of one size that a party has built.

    Args:
        party: built.
        tweets: of a rank and step.
    """

    def __init__(self, party: Party, tweets: int):
        self.party, self.tweets, self.ranks = party, tweets, party.ranks

    def turn(self, steps: int, warm: int) -> Row:
        return self.party.ask(turn={"tweets": self.tweets, "steps": steps, "warm": warm})

    def ask_each(self, what: str, **arguments: Any) -> list[Row]:
        """The answers of all ranks."""
        return self.party.ask_each(**{what: {"tweets": self.tweets, **arguments}})


class Scaling:
    """A run of the benchmark: its settings, a party for each number of ranks, and the rows that it has found.

    Args:
        words: `key=value`.
    """

    def __init__(self, words: list[str]):
        self.given = words_of(
            words,
            shards="",
            model="",
            ranks="auto",
            tweets="64,128,256",
            precision="bf16",
            gradients="fp32",
            seconds=3.0,
            turns=8,
            apart=5,
            device="auto",
            output="",
        )
        if not self.given["shards"] or not self.given["model"]:
            raise SystemExit("shards= and model= are needed")
        self.shards, self.model = (str(Path(self.given[name]).resolve()) for name in ("shards", "model"))
        self.command = command_of("scaling", words)
        first = Party("scaling_rank", self.shards, self.given["device"], 1)
        self.kind, most = self._devices(first)
        asked = self.given["ranks"]
        counts = [2**power for power in range(most.bit_length())] if asked == "auto" else _numbers(asked)
        if max(counts) > most:
            raise SystemExit(f"ranks={asked}: there are {most} of them here")
        parties = {count: Party("scaling_rank", self.shards, self.given["device"], count) for count in counts}
        self.parties = {**parties, **({1: first} if 1 in parties else {})}
        self.machine, self.tweets = machine(), _numbers(self.given["tweets"])
        self.output = self.given["output"] or f"benchmarks/results/scaling-{self.kind}"
        self.rows = self._kept()

    def run(self) -> None:
        """Measures, fits and predicts; rows are written as they are found."""
        for precision in self.given["precision"].split(","):
            for gradients in self.given["gradients"].split(","):
                self.measure(precision, gradients)
                self.all_reduce(precision, gradients)
        self.rows += scaling_cluster.rows(self.rows)
        self.write()
        scaling_picture.picture(self.rows, self.output)

    def measure(self, precision: str, gradients: str) -> None:
        """All numbers of ranks at all sizes of a rank's step, turn by turn; then their steps taken apart."""
        about: Row = {"precision": precision, "gradients": gradients}
        settings = {"model": self.model, "precision": precision, "compress": gradients == "bf16"}
        settings |= {"tweets": self.tweets, "tokens_per_device": 16_384}
        built = {count: party.build(**settings) for count, party in self.parties.items()}
        sized = [Sized(party, tweets) for tweets in self.tweets for party in self.parties.values()]
        timed = [(one, Timed(one, 1)) for one in sized]  # type: ignore[arg-type]  # it asks for turns alone
        for _ in range(self.given["turns"]):
            for _, party in timed:
                party.turn(self.given["seconds"])
        for one, party in timed:
            row = about | {"ranks": one.ranks, "tweets_a_rank": one.tweets} | built[one.ranks] | party.summary()
            row |= {"turn_rates": [sum(turn["tokens"]) / sum(turn["seconds"]) for turn in party.turns]}
            row["tokens_a_rank"] = row["tokens_per_step"] / one.ranks
            self.add("step", row | self.apart(one, gradients))

    def apart(self, one: Sized, gradients: str) -> Row:
        """What a step is made of, medians of some."""
        ranks = one.ask_each("apart", steps=self.given["apart"])
        return _parts(ranks, _reduce_seconds(one, [], BYTES_EACH[gradients]) if one.ranks > 1 else 0.0)

    def all_reduce(self, precision: str, gradients: str) -> None:
        """How long ranks take to reduce so many bytes, and to tell each other a few numbers."""
        for count, party in self.parties.items():
            if count == 1:
                continue
            one, about = Sized(party, self.tweets[0]), {"ranks": count, "precision": precision, "gradients": gradients}
            for size in SIZES:
                seconds = _reduce_seconds(one, [size], BYTES_EACH[gradients])
                self.add("all_reduce", about | {"bytes": size, "seconds": seconds})
            told = one.ask_each("counts", repeats=50)
            self.add("counts", about | {"seconds": statistics.median(told[0]["seconds_each"])})

    def add(self, kind: str, found: Row) -> None:
        row = {"who": OURS, "kind": kind, "device": self.machine["device"], "model": Path(self.model).name}
        row |= found | {name: self.machine[name] for name in ("versions", "commit")} | {"command": self.command}
        if kind == "step":
            row |= {"engine": "ddp", "optimizer_included": True, "mfu": None}
        self.rows.append(row)
        self.write()
        print(scaling_report.line(row), flush=True)

    def write(self) -> None:
        write_rows(f"{self.output}.json", self.rows)
        scaling_report.write(self.rows, self.output)

    def close(self) -> None:
        for party in self.parties.values():
            party.close()

    def _devices(self, party: Party) -> tuple[str, int]:
        """cpu or gpu, and how many ranks there can be of it."""
        devices = int(party.ask(devices={})["devices"])
        kind = str(party.hello["kind"])
        return kind, devices if kind == "gpu" else len(os.sched_getaffinity(0))

    def _kept(self) -> list[Row]:
        """Measured rows of an earlier run that this one does not make again."""
        rows: list[Row] = read_rows(f"{self.output}.json")
        again = {name: self.given[name].split(",") for name in ("precision", "gradients")}
        measured = [row for row in rows if row["kind"] in ("step", "all_reduce", "counts")]
        return [row for row in measured if any(row[name] not in of for name, of in again.items())]


def _reduce_seconds(one: Sized, sizes: list[int], bytes_each: int) -> float:
    """Of all-reduce alone, of the step's buckets where no sizes are given; median, by the slowest rank."""
    ranks = one.ask_each("all_reduce", sizes=sizes, bytes_each=bytes_each, repeats=REPEATS)
    return float(statistics.median(map(max, zip(*(rank["seconds_each"] for rank in ranks), strict=True))))


def _parts(ranks: list[dict[str, list[float]]], alone: float) -> Row:
    """The parts of a step from what each rank saw of some, and from the seconds of all-reduce alone."""
    steps = [
        {name: [rank[name][number] for rank in ranks] for name in ("compute", "whole", "data")}
        for number in range(len(ranks[0]["whole"]))
    ]
    compute = statistics.median(statistics.mean(step["compute"]) for step in steps)
    waiting = statistics.median(max(step["compute"]) - statistics.mean(step["compute"]) for step in steps)
    exposed = 0.0
    if len(ranks) > 1:
        exposed = max(0.0, statistics.median(max(step["whole"]) - max(step["compute"]) for step in steps))
    by_token = [rank["compute"][number] / rank["tokens"][number] for rank in ranks for number in range(len(steps))]
    middle = statistics.median(by_token)
    return {
        "compute_seconds": compute,
        "waiting_seconds": waiting,
        "exposed_seconds": exposed,
        "hidden_seconds": max(0.0, alone - exposed),
        "data_seconds": statistics.median(max(step["data"]) for step in steps),
        "all_reduce_seconds": alone,
        # As a standard deviation, but deaf to a single step that something else held up (Huber 1981, section 5.1).
        "jitter": 1.4826 * statistics.median(abs(value - middle) for value in by_token) / middle,
    }


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main(words: list[str]) -> None:
    scaling = Scaling(words)
    try:
        scaling.run()
    finally:
        scaling.close()
    print(scaling_report.markdown(scaling.rows))


if __name__ == "__main__":
    main(sys.argv[1:])

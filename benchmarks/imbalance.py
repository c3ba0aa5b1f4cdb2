"""How evenly the ranks of a step are loaded, with tweets dealt by length and without.

    python -m benchmarks.imbalance data.path=shards/

Ranks are simulated: only lengths are read, and each rank's rows are packed as the loader packs them.
Writes benchmarks/results/imbalance.json and prints a table.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from benchmarks.common import usage, write_rows
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split, open_split
from bert_tweets.data.packing import best_fit
from bert_tweets.data.permutation import Stream
from bert_tweets.data.sampler import deal, dealing_group

ROW_LENGTH = 128
# A step of 1,024 ranks is half a million tweets: few of them say as much as many of the small ones.
RANK_STEPS = 4096


def measure(split: Split, ranks: int, each: int, dealt: bool) -> dict[str, Any]:
    """Tokens and packed rows of all ranks over some steps.

    Args:
        split: real tweets.
        ranks: simulated.
        each: tweets of a rank and step.
        dealt: by length within groups of neighbours, as the sampler does; else contiguous shares.
    """
    steps = min(64, max(4, RANK_STEPS // ranks))
    stream = Stream(len(split), 1, ranks * each, 10**12)
    tokens, rows = np.empty((steps, ranks)), np.empty((steps, ranks), np.int64)
    for step in range(steps):
        lengths = split.lengths_of(stream.slice(step, 0, 1)[1])
        for rank in range(ranks):
            group = dealing_group(rank, ranks)
            of_group = lengths[group[0] * each : (group[-1] + 1) * each]
            if dealt:
                mine = of_group[deal(of_group[None], rank - group[0], len(group))[0]]
            else:
                mine = lengths[rank * each : (rank + 1) * each]
            tokens[step, rank] = mine.sum()
            rows[step, rank] = best_fit(mine, ROW_LENGTH).rows
    most = rows.max(axis=1, keepdims=True)
    near = [[tokens[:, list(dealing_group(rank, ranks))].mean(axis=1)] for rank in range(ranks)]
    of_group_mean = tokens / np.concatenate(near).T
    return {
        "ranks": ranks,
        "tweets_a_rank": each,
        "dealt": dealt,
        "steps": steps,
        "tokens_max_over_mean": float((tokens.max(axis=1) / tokens.mean(axis=1)).mean()),
        "tokens_off_group_mean": float(np.abs(of_group_mean - 1).max()),
        "rows_max_over_mean": float((rows.max(axis=1) / rows.mean(axis=1)).mean()),
        "real_positions": float(tokens.sum() / (most * ranks * ROW_LENGTH).sum()),
        "rows_filled_alone": float(tokens.sum() / (rows.sum() * ROW_LENGTH)),
    }


def cost(split: Split, each: int, repeats: int = 5) -> dict[str, float]:
    """Seconds a step and rank for finding its tweets, median of some repeats: alone, and out of a dealt group of 8."""
    from bert_tweets.data.sampler import Sampler

    stream = Stream(len(split), 1, 8 * each, 10**12)
    steps = max(1, 8192 // each)
    times: dict[str, list[float]] = {"undealt": [], "dealt": []}
    for repeat in range(repeats + 1):
        first = repeat * steps
        begun = time.perf_counter()
        stream.tweets(stream.positions(first, first + steps, 0, 1, 8))
        middle = time.perf_counter()
        Sampler(stream, split, 0, 8).share(first, first + steps)
        times["undealt"].append((middle - begun) / steps)
        times["dealt"].append((time.perf_counter() - middle) / steps)
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def main(argv: list[str]) -> None:
    usage(argv, __doc__)
    folder = dict(argument.split("=", 1) for argument in argv)["data.path"]
    manifest = Manifest.read(folder)
    split = open_split(folder, manifest, "train")
    results = []
    print("| ranks | tweets a rank | dealt | tokens, max / mean | rows, max / mean | real positions |")
    print("|---|---|---|---|---|---|")
    for ranks in (1, 8, 64, 1024):
        for each in (32, 256, 512):
            for dealt in (False, True) if ranks > 1 else (False,):
                row = measure(split, ranks, each, dealt)
                results.append(row | {"command": "python -m benchmarks.imbalance", "tweets": len(split)})
                print(
                    f"| {ranks:,} | {each} | {'yes' if dealt else 'no'} | {row['tokens_max_over_mean']:.3f} | "
                    f"{row['rows_max_over_mean']:.3f} | {row['real_positions']:.1%} |",
                    flush=True,
                )
    for each in (32, 256, 512):
        seconds = cost(split, each)
        results.append({"tweets_a_rank": each, "seconds_a_step": seconds, "command": "python -m benchmarks.imbalance"})
        print(f"{each} tweets a rank: {seconds['undealt'] * 1e6:.0f} us a step, {seconds['dealt'] * 1e6:.0f} dealt")
    write_rows("benchmarks/results/imbalance.json", results)


if __name__ == "__main__":
    main(sys.argv[1:])

"""How evenly a step's work is distributed over ranks, with tweets dealt by length and with contiguous shares.

    python -m benchmarks.imbalance data.path=shards/

Ranks are simulated: only lengths are read, and each rank's rows are packed as the loader packs them.
Writes benchmarks/results/imbalance.json and prints a table.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks.common import Row, markdown_table, read_settings, write_rows
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split, open_split
from bert_tweets.data.packing import best_fit
from bert_tweets.data.permutation import Stream
from bert_tweets.data.sampler import Sampler, deal, dealing_group

COMMAND = "python -m benchmarks.imbalance"
ROW_LENGTH = 128
# Steps are fewer for more ranks: one step of 1,024 ranks takes half a million tweets.
RANK_STEPS = 4096


def measure(split: Split, ranks: int, tweets_per_rank: int, dealt_by_length: bool) -> Row:
    """Measure tokens and packed rows of all ranks over some steps.

    Args:
        split: split of real tweets.
        ranks: number of simulated ranks.
        tweets_per_rank: tweets per rank and step.
        dealt_by_length: deal tweets by length within groups of neighbouring ranks, as the sampler does; otherwise give
            each rank a contiguous share.
    """
    steps = min(64, max(4, RANK_STEPS // ranks))
    stream = Stream(len(split), 1, ranks * tweets_per_rank, 10**12)
    tokens, rows = np.empty((steps, ranks)), np.empty((steps, ranks), np.int64)
    for step in range(steps):
        lengths = split.lengths_of(stream.slice(step, 0, 1)[1])
        for rank in range(ranks):
            group = dealing_group(rank, ranks)
            of_group = lengths[group[0] * tweets_per_rank : (group[-1] + 1) * tweets_per_rank]
            if dealt_by_length:
                own = of_group[deal(of_group[None], rank - group[0], len(group))[0]]
            else:
                own = lengths[rank * tweets_per_rank : (rank + 1) * tweets_per_rank]
            tokens[step, rank] = own.sum()
            rows[step, rank] = best_fit(own, ROW_LENGTH).rows
    max_rows = rows.max(axis=1, keepdims=True)
    group_means = [[tokens[:, list(dealing_group(rank, ranks))].mean(axis=1)] for rank in range(ranks)]
    deviations = np.abs(tokens / np.concatenate(group_means).T - 1)
    return {
        "ranks": ranks,
        "tweets_per_rank": tweets_per_rank,
        "dealt_by_length": dealt_by_length,
        "steps": steps,
        "tokens_max_over_mean": float((tokens.max(axis=1) / tokens.mean(axis=1)).mean()),
        "tokens_max_deviation_from_group_mean": float(deviations.max()),
        "rows_max_over_mean": float((rows.max(axis=1) / rows.mean(axis=1)).mean()),
        "real_token_fraction": float(tokens.sum() / (max_rows * ranks * ROW_LENGTH).sum()),
        "real_token_fraction_unpadded_ranks": float(tokens.sum() / (rows.sum() * ROW_LENGTH)),
    }


def cost(split: Split, tweets_per_rank: int, repeats: int = 5) -> dict[str, float]:
    """Median seconds per step for finding a rank's tweets, by contiguous share and dealt by length in a group of 8."""
    stream = Stream(len(split), 1, 8 * tweets_per_rank, 10**12)
    steps = max(1, 8192 // tweets_per_rank)
    times: dict[str, list[float]] = {"contiguous": [], "dealt_by_length": []}
    for repeat in range(repeats + 1):
        first = repeat * steps
        start = time.perf_counter()
        stream.tweets(stream.positions(first, first + steps, 0, 1, 8))
        middle = time.perf_counter()
        Sampler(stream, split, 0, 8).share(first, first + steps)
        times["contiguous"].append((middle - start) / steps)
        times["dealt_by_length"].append((time.perf_counter() - middle) / steps)
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def main(arguments: list[str]) -> None:
    folder = read_settings(arguments, __doc__, ("data.path",), **{"data.path": ""})["data.path"]
    split = open_split(folder, Manifest.read(folder), "train")
    sizes = (32, 256, 512)
    combinations = [(ranks, size, dealt) for ranks in (1, 8, 64, 1024) for size in sizes for dealt in (False, True)]
    rows, cells = [], []
    for ranks, size, dealt_by_length in combinations:
        if ranks == 1 and dealt_by_length:
            continue
        row = measure(split, ranks, size, dealt_by_length)
        rows.append(row | {"command": COMMAND, "tweets": len(split)})
        maxima = (f"{row[f'{name}_max_over_mean']:.3f}" for name in ("tokens", "rows"))
        setup = (f"{ranks:,}", str(size), "yes" if dealt_by_length else "no")
        cells.append((*setup, *maxima, f"{row['real_token_fraction']:.1%}"))
        print(*cells[-1], file=sys.stderr, flush=True)
    header = ("ranks", "tweets per rank", "dealt by length", "tokens, max / mean", "rows, max / mean", "real tokens")
    print(markdown_table(header, cells))
    for size in sizes:
        seconds = cost(split, size)
        rows.append({"tweets_per_rank": size, "seconds_per_step": seconds, "command": COMMAND})
        microseconds = [f"{1e6 * seconds[name]:.0f}" for name in ("contiguous", "dealt_by_length")]
        print(f"{size} tweets per rank: {microseconds[0]} µs per step contiguous, {microseconds[1]} dealt by length")
    write_rows("benchmarks/results/imbalance.json", rows)


if __name__ == "__main__":
    main(sys.argv[1:])

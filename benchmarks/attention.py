"""The backends of attention beside each other on this device: rows of tweets, forward, and forward and backward.

    python -m benchmarks.attention [key=value ...]

rows        of the micro-batch; 0: 16 on a CPU, 512 on a GPU
row_length  tokens of a row [128]
heads, head_size  [12, 64]
repeats     timed runs, of which the median is taken; 0: 5 on a CPU, 30 on a GPU
shards      folder whose tweets' lengths are taken; empty: lengths drawn like those of tweets, 26 tokens on average
threads     of a CPU [1]
window      how far a token sees; -1: all of its tweet
tiles       true: the cuts of our kernel beside each other instead, on a GPU
output      of results, without suffix; empty: benchmarks/results/attention-{cpu|gpu}, or -tiles behind it

Gigabytes a second count what has to move: query, key and value are read and the output is written; backward reads its
gradient and the three, and writes three. A backend that moves more, or computes for longer, shows a lower rate.
All that is compared takes turns, so that what else runs on the machine meets all of it. On a CPU one thread is the
default: where something else holds a core, each small product waits for the thread that has none, and what is made of
many small products looks fifty times slower than it is, run after run (seen on 2 cores). Rows name threads and load.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import command_of, machine, table, words_of, write_rows
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.data.packing import best_fit
from bert_tweets.model.attention import Backend, Shape, backend_named, backend_names, triton_rows

DEFAULTS: dict[str, Any] = {
    "rows": 0,
    "row_length": 128,
    "heads": 12,
    "head_size": 64,
    "repeats": 0,
    "shards": "",
    "threads": 1,
    "window": -1,
    "tiles": "false",
    "output": "",
}
KIND = "gpu" if torch.cuda.is_available() else "cpu"
DEVICE = torch.device("cuda" if KIND == "gpu" else "cpu")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
Way = Callable[[], object]
Name = tuple[str, str]
# Tensors of the size of the output that have to move.
MOVED = {"plan": 0, "forward": 4, "backward": 7, "both": 11}


def tweet_lengths(shards: str, count: int, longest: int) -> np.ndarray:
    """Tokens of each of `count` tweets; int64."""
    if shards:
        lengths = open_split(shards, Manifest.read(shards), "train").lengths(0)
        return np.resize(lengths[lengths <= longest], count).astype(np.int64)
    drawn = np.random.default_rng(0).gamma(3.0, 26 / 3, count)
    return np.clip(np.round(drawn), 3, longest).astype(np.int64)


def segments_of(rows: int, row_length: int, shards: str) -> Tensor:
    """Tweets packed best-fit, the first rows of them; int32 [rows, row_length]."""
    lengths = tweet_lengths(shards, 2 + rows * row_length // 10, row_length)
    placement = best_fit(lengths, row_length)
    assert placement.rows >= rows, "too few tweets for so many rows"
    segments = np.zeros((placement.rows, row_length), np.int32)
    for number, (row, start, length) in enumerate(zip(placement.row, placement.start, lengths, strict=True), 1):
        segments[row, start : start + length] = number
    # Best fit puts the longest first: a sample of all of them.
    chosen = segments[np.random.default_rng(0).permutation(placement.rows)[:rows]]
    _, chosen = np.unique(np.append(chosen, 0), return_inverse=True)  # 0 stays 0, the others follow without gaps
    return torch.from_numpy(chosen[:-1].reshape(rows, row_length).astype(np.int32)).to(DEVICE)


def milliseconds(ways: dict[Name, Way], repeats: int) -> dict[Name, list[float] | str]:
    """Of each run of each way, which take turns; or why a way does not work. Three runs of each are not counted."""
    found: dict[Name, list[float] | str] = {}
    for name, way in ways.items():
        try:
            for _ in range(3):
                way()
            found[name] = []
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:200]
    for _ in range(repeats):
        for name, times in found.items():
            if isinstance(times, list):
                times.append(_once(ways[name]))
    return found


def _once(way: Way) -> float:
    if KIND == "cpu":
        begun = time.perf_counter()
        way()
        return 1000 * (time.perf_counter() - begun)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    way()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


class Race:
    """Rows of one size, and what is done with them.

    Attributes:
        bytes: that a tensor of the size of the output takes, by name of the dtype.
    """

    def __init__(self, given: dict[str, Any]):
        self.given = given
        self.segments = segments_of(given["rows"], given["row_length"], given["shards"])
        self.tweets, self.tokens = int(self.segments.max()), int((self.segments > 0).sum())
        self.window = None if given["window"] < 0 else given["window"]
        self.scale = given["head_size"] ** -0.5
        places = given["rows"] * given["row_length"] * given["heads"] * given["head_size"]
        self.bytes = {name: places * dtype.itemsize for name, dtype in DTYPES.items()}

    def states(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Query, key and value in one; and the gradient of the output."""
        generator = torch.Generator(DEVICE).manual_seed(0)
        shape = (self.given["rows"], self.given["row_length"], 3, self.given["heads"], self.given["head_size"])
        packed = torch.randn(shape, generator=generator, device=DEVICE, dtype=dtype).requires_grad_()
        return packed, torch.randn((*shape[:2], *shape[3:]), generator=generator, device=DEVICE, dtype=dtype)

    def ways(self, backend: Backend, packed: Tensor, above: Tensor) -> dict[Name, Way]:
        """What is timed of a backend."""
        plan = backend.plan(self.segments, self.tweets)

        def forward() -> Tensor:
            return backend.attend_packed(packed, plan, self.scale, self.window)

        ways: dict[str, Way] = {
            "plan": lambda: backend.plan(self.segments, self.tweets),
            "forward": torch.no_grad()(forward),
            "both": lambda: torch.autograd.grad(forward(), packed, above),
        }
        return {(backend.name, way): run for way, run in ways.items()}

    def rows(self, dtype: str, ways: dict[Name, Way]) -> Iterator[dict[str, Any]]:
        """What is found of them."""
        found = milliseconds(ways, self.given["repeats"])
        for (who, way), times in found.items():
            row: dict[str, Any] = {"who": who, "dtype": dtype, "way": way}
            if isinstance(times, str):
                yield row | {"missing": times}
                continue
            middle = statistics.median(times)
            yield row | {
                "milliseconds": middle,
                "lowest": min(times),
                "highest": max(times),
                "tokens_per_second": self.tokens / middle * 1e3,
                "gigabytes_per_second": MOVED[way] * self.bytes[dtype] / middle / 1e6,
            }


def backends(race: Race) -> Iterator[dict[str, Any]]:
    """A row for each dtype, backend and way."""
    for name, dtype in DTYPES.items():
        shape = Shape(DEVICE.type, dtype, race.given["head_size"], race.given["row_length"], race.window is not None)
        states, ways = race.states(dtype), {}
        for backend in map(backend_named, backend_names()):
            if missing := backend.missing(shape):
                yield {"who": backend.name, "dtype": name, "way": "both", "missing": missing}
            else:
                ways |= race.ways(backend, *states)
        yield from race.rows(name, ways)


def cuts(race: Race) -> Iterator[dict[str, Any]]:
    """A row for each cut of the two kernels of `triton`, each by itself; Triton makes them when first asked for."""
    packed, above = race.states(torch.bfloat16)
    three = packed.detach().transpose(1, 3).unbind(dim=2)
    rest = (race.scale, race.given["window"])
    logsumexp = triton_rows.rows_attention(*three, race.segments, *rest)[1]
    runs: dict[str, Way] = {
        "forward": lambda: triton_rows.rows_attention(*three, race.segments, *rest),
        "backward": lambda: triton_rows.rows_attention_backward(above, *three, race.segments, logsumexp, *rest),
    }
    tried = {
        "forward": [triton_rows.KernelConfig(q, w) for q in (32, 64, 128) for w in (4, 8)],
        "backward": [
            triton_rows.KernelConfig(q, w, r) for q in (32, 64, 128) for w in (4, 8) for r in (None, 128, 168)
        ],
    }
    for way, tiles in tried.items():
        ways: dict[Name, Way] = {
            (f"{tile.queries} queries, {tile.warps} warps, registers {tile.registers or 'free'}", way): _cut(run, tile)
            for run in (runs[way],)
            for tile in tiles
        }
        yield from race.rows("bf16", ways)


def _cut(run: Way, tile: triton_rows.KernelConfig) -> Way:
    """The run, with this cut for both kernels."""

    def way() -> object:
        with mock.patch.object(triton_rows, "kernel_configs", lambda *_: (tile, tile)):
            return run()

    return way


def shown(row: dict[str, Any]) -> tuple[str, ...]:
    who = (row["who"], row["dtype"], row["way"])
    if "missing" in row:
        return (*who, row["missing"], "", "", "")
    spread = f"{row['lowest']:.3f} to {row['highest']:.3f}"
    rates = (f"{row['tokens_per_second']:,.0f}", f"{row['gigabytes_per_second']:,.0f}")
    return (*who, f"{row['milliseconds']:.3f}", spread, *rates)


def main(words: list[str]) -> None:
    given = words_of(words, **DEFAULTS)
    given["rows"] = given["rows"] or (512 if KIND == "gpu" else 16)
    given["repeats"] = given["repeats"] or (30 if KIND == "gpu" else 5)
    torch.set_num_threads(given["threads"])
    race, of_tiles = Race(given), given["tiles"] == "true"
    if of_tiles and KIND == "cpu":
        raise SystemExit("tiles=true needs a GPU")
    device = {"device": torch.cuda.get_device_name()} if KIND == "gpu" else {}
    sizes = {name: given[name] for name in ("rows", "row_length", "heads", "head_size", "threads", "window", "repeats")}
    common = sizes | {"tweets": race.tweets, "tokens": race.tokens} | machine() | device
    common["load_before"] = os.getloadavg()[0]
    common["command"] = command_of("attention", words)
    output = given["output"] or f"benchmarks/results/attention-{KIND}{'-tiles' if of_tiles else ''}"
    found: list[dict[str, Any]] = []
    for row in (cuts if of_tiles else backends)(race):
        found.append(row | common)
        print(*shown(row), file=sys.stderr, flush=True)
        write_rows(Path(f"{output}.json"), found)
    on = f"{common['device']}; load before {common['load_before']:.1f}"
    print(f"{race.tokens:,} tokens of {race.tweets:,} tweets in {given['rows']:,} rows; {on}\n")
    header = (
        "backend",
        "dtype",
        "way",
        "ms, median",
        "lowest to highest",
        "tokens/s of a layer",
        "GB/s that must move",
    )
    print(table(header, [shown(row) for row in found]))


if __name__ == "__main__":
    main(sys.argv[1:])

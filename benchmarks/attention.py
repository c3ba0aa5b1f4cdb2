"""Speed of the attention backends on this device, on rows of packed tweets.

    python -m benchmarks.attention [key=value ...]

rows        rows per micro-batch; 0: 16 on a CPU, 512 on a GPU
row_length  tokens per row [128]
heads, head_size  [12, 64]
repeats     timed runs, whose median is reported; 0: 5 on a CPU, 30 on a GPU
shards      folder of shards whose tweet lengths are used; empty: random lengths like those of tweets, mean 26 tokens
threads     CPU threads [1]
window      attention window in tokens; -1: the whole tweet
tiles       true: compare tile sizes of our kernel instead of backends; needs a GPU
output      path of the results without suffix; empty: benchmarks/results/attention-{cpu|gpu}, with tiles=true -tiles

GB/s counts the bytes that must move: forward reads query, key and value and writes the output; backward reads these
three and the output's gradient, and writes three gradients. A backend that moves more, or computes longer, shows a
lower rate. Everything that is compared takes turns, so that other load on the machine affects all alike. On a CPU one
thread is the default: if another process holds a core, every small product waits for the thread without a core, and a
backend of many small products looks fifty times slower than it is, run after run (seen on 2 cores). Rows record
threads and load.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Row, exit_with_help, markdown_table, parse_settings, provenance, write_rows
from benchmarks.device_timing import seconds_of
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
Run = Callable[[], object]
# Backend or tile, and operation.
Name = tuple[str, str]
# Tensors of the output's size that an operation must read or write.
TENSORS_MOVED = {"plan": 0, "forward": 4, "backward": 7, "both": 11}


def tweet_lengths(shards: str, count: int, longest: int) -> np.ndarray:
    """Lengths of `count` tweets in tokens; int64."""
    if shards:
        lengths = open_split(shards, Manifest.read(shards), "train").lengths(0)
        return np.resize(lengths[lengths <= longest], count).astype(np.int64)
    lengths = np.random.default_rng(0).gamma(3.0, 26 / 3, count)
    return np.clip(np.round(lengths), 3, longest).astype(np.int64)


def segments_of(rows: int, row_length: int, shards: str) -> Tensor:
    """Segment ids of best-fit packed tweets, in random rows of the packing; int32 [rows, row_length]."""
    lengths = tweet_lengths(shards, 2 + rows * row_length // 10, row_length)
    placement = best_fit(lengths, row_length)
    assert placement.rows >= rows, "too few tweets for so many rows"
    segments = np.zeros((placement.rows, row_length), np.int32)
    for number, (row, start, length) in enumerate(zip(placement.row, placement.start, lengths, strict=True), 1):
        segments[row, start : start + length] = number
    # Best fit places the longest tweets first, so take a random sample of all rows.
    sample = segments[np.random.default_rng(0).permutation(placement.rows)[:rows]]
    _, sample = np.unique(np.append(sample, 0), return_inverse=True)  # 0 stays 0, the others follow without gaps
    return torch.from_numpy(sample[:-1].reshape(rows, row_length).astype(np.int32)).to(DEVICE)


def milliseconds(runs: dict[Name, Run], repeats: int) -> dict[Name, list[float] | str]:
    """Time runs that take turns, after three warm-up runs each.

    Returns:
        The milliseconds of each repeat, or the error message of a run that failed.
    """
    results: dict[Name, list[float] | str] = {}
    for name, run in runs.items():
        try:
            for _ in range(3):
                run()
            results[name] = []
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}"[:200]
    for _ in range(repeats):
        for name, times in results.items():
            if isinstance(times, list):
                times.append(1000 * seconds_of(runs[name], DEVICE))
    return results


class Race:
    """Inputs of one size, and the operations that are timed on them.

    Attributes:
        bytes: size in bytes of a tensor of the output's shape, by dtype name.
    """

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings
        self.segments = segments_of(settings["rows"], settings["row_length"], settings["shards"])
        self.tweets, self.tokens = int(self.segments.max()), int((self.segments > 0).sum())
        self.window = None if settings["window"] < 0 else settings["window"]
        self.scale = settings["head_size"] ** -0.5
        numbers = settings["rows"] * settings["row_length"] * settings["heads"] * settings["head_size"]
        self.bytes = {name: numbers * dtype.itemsize for name, dtype in DTYPES.items()}

    def states(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Random inputs: packed query, key and value, and the gradient of the output."""
        generator = torch.Generator(DEVICE).manual_seed(0)
        shape = (
            self.settings["rows"],
            self.settings["row_length"],
            3,
            self.settings["heads"],
            self.settings["head_size"],
        )
        packed = torch.randn(shape, generator=generator, device=DEVICE, dtype=dtype).requires_grad_()
        return packed, torch.randn((*shape[:2], *shape[3:]), generator=generator, device=DEVICE, dtype=dtype)

    def operations(self, backend: Backend, packed: Tensor, gradient: Tensor) -> dict[Name, Run]:
        """The operations of a backend that are timed."""
        plan = backend.plan(self.segments, self.tweets)

        def forward() -> Tensor:
            return backend.attend_packed(packed, plan, self.scale, self.window)

        runs: dict[str, Run] = {
            "plan": lambda: backend.plan(self.segments, self.tweets),
            "forward": torch.no_grad()(forward),
            "both": lambda: torch.autograd.grad(forward(), packed, gradient),
        }
        return {(backend.name, operation): run for operation, run in runs.items()}

    def rows(self, dtype: str, runs: dict[Name, Run]) -> Iterator[Row]:
        """Time these runs and yield a row for each."""
        for (who, operation), times in milliseconds(runs, self.settings["repeats"]).items():
            row: Row = {"who": who, "dtype": dtype, "operation": operation}
            if isinstance(times, str):
                yield row | {"missing": times}
                continue
            median = statistics.median(times)
            yield row | {
                "milliseconds": median,
                "lowest": min(times),
                "highest": max(times),
                "tokens_per_second": self.tokens / median * 1e3,
                "gigabytes_per_second": TENSORS_MOVED[operation] * self.bytes[dtype] / median / 1e6,
            }


def backend_rows(race: Race) -> Iterator[Row]:
    """Yield a row for each dtype, backend and operation."""
    for name, dtype in DTYPES.items():
        shape = Shape(
            DEVICE.type, dtype, race.settings["head_size"], race.settings["row_length"], race.window is not None
        )
        states = race.states(dtype)
        runs: dict[Name, Run] = {}
        for backend in map(backend_named, backend_names()):
            if missing := backend.missing(shape):
                yield {"who": backend.name, "dtype": name, "operation": "both", "missing": missing}
            else:
                runs |= race.operations(backend, *states)
        yield from race.rows(name, runs)


def tile_rows(race: Race) -> Iterator[Row]:
    """Yield a row for each tile size of the `triton` backend's two kernels, which are timed separately."""
    packed, gradient = race.states(torch.bfloat16)
    inputs = packed.detach().transpose(1, 3).unbind(dim=2)
    options = (race.scale, race.settings["window"])
    logsumexp = triton_rows.rows_attention(*inputs, race.segments, *options)[1]
    runs: dict[str, Run] = {
        "forward": lambda: triton_rows.rows_attention(*inputs, race.segments, *options),
        "backward": lambda: triton_rows.rows_attention_backward(gradient, *inputs, race.segments, logsumexp, *options),
    }
    tiles_tried = {
        "forward": [triton_rows.KernelConfig(q, w) for q in (32, 64, 128) for w in (4, 8)],
        "backward": [
            triton_rows.KernelConfig(q, w, r) for q in (32, 64, 128) for w in (4, 8) for r in (None, 128, 168)
        ],
    }
    for operation, tiles in tiles_tried.items():
        labels = [f"{tile.queries} queries, {tile.warps} warps, registers {tile.registers or 'free'}" for tile in tiles]
        by_tile = {
            (label, operation): _with_tile(runs[operation], tile) for label, tile in zip(labels, tiles, strict=True)
        }
        yield from race.rows("bf16", by_tile)


def _with_tile(run: Run, tile: triton_rows.KernelConfig) -> Run:
    """The same run with this tile for both kernels."""

    def run_with_tile() -> object:
        with mock.patch.object(triton_rows, "kernel_configs", lambda *_: (tile, tile)):
            return run()

    return run_with_tile


def cells(row: Row) -> tuple[str, ...]:
    name = (row["who"], row["dtype"], row["operation"])
    if "missing" in row:
        return (*name, row["missing"], "", "", "")
    value_range = f"{row['lowest']:.3f} to {row['highest']:.3f}"
    rates = (f"{row['tokens_per_second']:,.0f}", f"{row['gigabytes_per_second']:,.0f}")
    return (*name, f"{row['milliseconds']:.3f}", value_range, *rates)


def main(arguments: list[str]) -> None:
    exit_with_help(arguments, __doc__, without_arguments=False)
    settings = parse_settings(arguments, **DEFAULTS)
    settings["rows"] = settings["rows"] or (512 if KIND == "gpu" else 16)
    settings["repeats"] = settings["repeats"] or (30 if KIND == "gpu" else 5)
    torch.set_num_threads(settings["threads"])
    race, compare_tiles = Race(settings), settings["tiles"] == "true"
    if compare_tiles and KIND == "cpu":
        raise SystemExit("error: tiles=true needs a GPU")
    device = {"device": torch.cuda.get_device_name()} if KIND == "gpu" else {}
    sizes = {
        name: settings[name] for name in ("rows", "row_length", "heads", "head_size", "threads", "window", "repeats")
    }
    common = sizes | {"tweets": race.tweets, "tokens": race.tokens} | provenance("attention", arguments) | device
    common["load_before"] = os.getloadavg()[0]
    output = settings["output"] or f"benchmarks/results/attention-{KIND}{'-tiles' if compare_tiles else ''}"
    rows: list[Row] = []
    for row in (tile_rows if compare_tiles else backend_rows)(race):
        rows.append(row | common)
        print(*cells(row), file=sys.stderr, flush=True)
        write_rows(Path(f"{output}.json"), rows)
    on = f"{common['device']}; load before {common['load_before']:.1f}"
    print(f"{race.tokens:,} tokens of {race.tweets:,} tweets in {settings['rows']:,} rows; {on}\n")
    header = ("backend", "dtype", "operation", "ms, median", "range", "tokens/s per layer", "GB/s")
    print(markdown_table(header, [cells(row) for row in rows]))


if __name__ == "__main__":
    main(sys.argv[1:])

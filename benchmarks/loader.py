"""Speed of the loader on one core compared with a torch DataLoader, pages read per step, and opening one billion rows.

    taskset -c 0 python -m benchmarks.loader data.path=shards/

Everything runs in one process on one thread, from a warm page cache. Rates are given by wall clock and by CPU time,
which other processes on the machine disturb less. Writes benchmarks/results/loader.json and prints tables.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, RandomSampler
from transformers import AutoTokenizer, DataCollatorWithPadding

from benchmarks.common import Row, exit_with_help, markdown_table, write_rows
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest
from bert_tweets.corpus.shards.reader import Split, open_split
from bert_tweets.data.layout import Layout
from bert_tweets.data.loader import StepLoader
from bert_tweets.data.masking import masking_for
from bert_tweets.data.permutation import Stream

BATCH, REPEATS, REFERENCE_STEPS, PAGE = 512, 7, 60, 4096
BLOCKS = {"block_size": 8192, "shuffle_blocks": 64}


class Rows(Dataset[Any]):
    """A map-style data set with one tweet per row.

    Args:
        split: split of tweets.
        lists: return Python lists made from Arrow, as Hugging Face's data sets do; otherwise slices of the flat tokens.
    """

    def __init__(self, split: Split, lists: bool):
        self.lists = lists
        batches = [split.batch(shard) for shard in range(len(split.shards))]
        self.columns = [batch.column("input_ids") for batch in batches]
        self.flat = [(column.offsets.to_numpy(), column.values.to_numpy()) for column in self.columns]
        self.ends = np.cumsum([batch.num_rows for batch in batches]).tolist()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> list[int] | torch.Tensor:
        shard = next(shard for shard, end in enumerate(self.ends) if index < end)
        row = index - (self.ends[shard - 1] if shard else 0)
        if self.lists:
            return list(self.columns[shard][row].as_py())
        offsets, flat = self.flat[shard]
        return torch.from_numpy(flat[offsets[row] : offsets[row + 1]].astype(np.int64))


def padded(tweets: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Collate with padding: ids [tweets, longest], and the attention mask."""
    lengths = torch.tensor([len(tweet) for tweet in tweets])
    ids = pad_sequence(tweets, batch_first=True)
    return {"input_ids": ids, "attention_mask": torch.arange(ids.shape[1]) < lengths[:, None]}


def reference_tokens(rows: Rows, collate: Callable[[list[Any]], Any]) -> int:
    """Load some batches with a torch DataLoader; return their real tokens."""
    sampler = RandomSampler(rows, num_samples=BATCH * REFERENCE_STEPS)
    batches = DataLoader(rows, BATCH, sampler=sampler, collate_fn=collate)
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


def loader_of(manifest: Manifest, split: Split, steps: int, **order: int) -> StepLoader:
    """The loader of a single rank, without loading ahead."""
    stream = Stream(len(split), 1, BATCH, BATCH * steps, **order)
    layout = Layout(manifest.max_length, 2**20, manifest.pad_id)
    return StepLoader(split, stream, masking_for(manifest, 1, 0.15, False), layout)


def rates(loaders: dict[str, Callable[[], int]]) -> dict[str, dict[str, float]]:
    """Tokens per second of each loader, by wall clock and by CPU time; the loaders take turns."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    for repeat in range(REPEATS + 1):
        for name, load in loaders.items():
            start = time.perf_counter(), time.process_time()
            tokens = load()
            if repeat:
                seconds = time.perf_counter() - start[0], time.process_time() - start[1]
                measured[name].append((tokens / seconds[0], tokens / seconds[1]))
    return {name: _summary(*zip(*pairs, strict=True)) for name, pairs in measured.items()}


def _summary(by_clock: tuple[float, ...], by_cpu_time: tuple[float, ...]) -> dict[str, float]:
    return {
        "tokens_per_second": statistics.median(by_clock),
        "lowest": min(by_clock),
        "highest": max(by_clock),
        "tokens_per_cpu_second": statistics.median(by_cpu_time),
    }


def reads(split: Split, **order: int) -> dict[str, float]:
    """Distinct 4 KiB pages of tokens read per step, and by a hundred steps as a share of all pages."""
    stream = Stream(len(split), 1, BATCH, BATCH * 10**6, **order)
    begins = np.cumsum(np.concatenate([[0], *(split.lengths(shard) for shard in range(len(split.shards)))]))
    pages = [np.unique(begins[stream.slice(step, 0, 1)[1]] * 2 // PAGE) for step in range(100)]
    total = begins[-1] * 2 // PAGE
    return {
        "pages_per_step": float(np.mean([len(pages_of_step) for pages_of_step in pages])),
        "share_of_pages_in_100_steps": len(np.unique(np.concatenate(pages))) / float(total),
    }


def memory() -> dict[str, float]:
    """Resident memory of this process in MB, in total and without mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) / 1000 for name in ("VmRSS", "RssAnon")}


def open_billion_rows(folder: str, order: str) -> Row:
    """Open 10⁹ rows, made of the same real shards repeated, and load steps from the middle on.

    Opening ends when the tweets of the middle step are known; the first step also has their tokens, and those of some
    steps after it. Pages of mapped files count once read, although the kernel can reclaim them.
    """
    manifest = Manifest.read(folder)
    times = -(-(10**9) // manifest.rows("train"))
    before, start = memory(), time.perf_counter()
    split = open_split(folder, replace(manifest, splits={"train": manifest.splits["train"] * times}), "train")
    loader = loader_of(manifest, split, 10**9 // BATCH, **(BLOCKS if order == "blocks" else {}))
    middle = loader.stream.steps // 2
    loader.sampler.share(middle, middle + 1)
    row = {"order": order, "rows": len(split), "shards": len(split.shards)} | _since(before, start, "to_open")
    steps = loader.steps(first=middle)
    next(steps)
    row |= _since(before, start, "to_first_step")
    for name in ("tokens_per_second", "tokens_per_second_later"):
        start = time.perf_counter()
        row[name] = sum(next(steps).tokens for _ in range(200)) / (time.perf_counter() - start)
    return row | _since(before, start, "later")


def _since(before: dict[str, float], start: float, when: str) -> dict[str, float]:
    now = memory()
    return {
        f"seconds_{when}": time.perf_counter() - start,
        f"megabytes_{when}": now["VmRSS"] - before["VmRSS"],
        f"megabytes_{when}_without_mapped_files": now["RssAnon"] - before["RssAnon"],
    }


def loaders_of(folder: str, manifest: Manifest, split: Split) -> dict[str, Callable[[], int]]:
    """The loaders that are compared; each loads and returns a number of real tokens."""
    steps = len(split) // BATCH
    as_lists = Rows(split, lists=True)
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(Path(folder) / TOKENIZER_FOLDER))

    def collate(rows: list[list[int]]) -> Any:
        return collator([{"input_ids": row} for row in rows])

    return {
        "bert_tweets": lambda: sum(step.tokens for step in loader_of(manifest, split, steps).steps()),
        "bert_tweets_blocks": lambda: sum(step.tokens for step in loader_of(manifest, split, steps, **BLOCKS).steps()),
        "dataloader_transformers": lambda: reference_tokens(as_lists, collate),
        "dataloader_lists": lambda: reference_tokens(
            as_lists, lambda rows: padded([torch.tensor(row) for row in rows])
        ),
        "dataloader_slices": lambda: reference_tokens(Rows(split, lists=False), padded),
    }


def _opening_cells(row: Row) -> tuple[str, ...]:
    without_mapped_files = row["megabytes_to_first_step_without_mapped_files"]
    return (
        *(row["order"], f"{row['rows']:,}", f"{row['shards']:,}"),
        *(f"{row['seconds_to_open']:.2f}", f"{row['megabytes_to_open']:.0f}", f"{row['seconds_to_first_step']:.2f}"),
        f"{row['megabytes_to_first_step']:.0f} ({without_mapped_files:.0f})",
        *(f"{row['tokens_per_second']:,.0f}", f"{row['tokens_per_second_later']:,.0f}"),
        f"{row['megabytes_later_without_mapped_files']:.0f}",
    )


def main(arguments: list[str]) -> None:
    exit_with_help(arguments, __doc__)
    folder = dict(argument.split("=", 1) for argument in arguments if "=" in argument)["data.path"]
    torch.set_num_threads(1)
    if arguments[0] == "billion":
        print(json.dumps(open_billion_rows(folder, arguments[1])))
        return
    manifest = Manifest.read(folder)
    split = open_split(folder, manifest, "train")
    common = {
        "device": f"{platform.processor() or platform.machine()}, 1 thread",
        "tweets": len(split),
        "batch_size": BATCH,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        },
        "command": "taskset -c 0 python -m benchmarks.loader data.path=shards/",
    }
    rows: list[Row] = []
    cells: list[tuple[str, ...]] = []
    measured = rates(loaders_of(folder, manifest, split))
    for name, rate in measured.items():
        rows.append({"who": name, "repeats": REPEATS, **rate, **common})
        ratio = measured["bert_tweets"]["tokens_per_cpu_second"] / rate["tokens_per_cpu_second"]
        value_range = f"{rate['lowest']:,.0f} to {rate['highest']:,.0f}"
        speeds = (f"{rate['tokens_per_second']:,.0f}", value_range, f"{rate['tokens_per_cpu_second']:,.0f}")
        cells.append((name, *speeds, f"{ratio:.1f} ×"))
    header = ("loader", "real tokens/s, median", "range", "per CPU second", "bert_tweets is faster by")
    print(markdown_table(header, cells))
    cells = []
    for name, order in (("rows", {}), ("blocks", {"block_size": 512, "shuffle_blocks": 32})):
        pages = reads(split, **order)
        rows.append({"who": f"reads_{name}", **order, **pages, **common})
        share = f"{pages['share_of_pages_in_100_steps']:.1%}"
        cells.append((f"{name} {order or ''}", f"{pages['pages_per_step']:.0f}", share))
    print(f"\n{markdown_table(('order', 'pages per step', 'share of all pages in 100 steps'), cells)}")
    cells = []
    for name in ("rows", "blocks"):
        command = [sys.executable, "-m", "benchmarks.loader", "billion", name, f"data.path={folder}"]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append({"who": "one_billion_rows", **row, **common})
        cells.append(_opening_cells(row))
    opening = ("order", "rows", "shards", "s to open", "MB", "s to first step", "MB (without mapped files)")
    header = (*opening, "tokens/s, 200 steps", "next 200", "MB then, without mapped files")
    print(f"\n{markdown_table(header, cells)}")
    write_rows("benchmarks/results/loader.json", rows)


if __name__ == "__main__":
    main(sys.argv[1:])

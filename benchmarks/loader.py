"""The loader's speed on one core, beside a torch DataLoader; what a step reads; opening a thousand million rows.

    taskset -c 0 python -m benchmarks.loader data.path=shards/

Everything runs in one process on one thread, from a warm page cache. Rates are by the clock and by processor time,
which other processes of the machine disturb less. Writes benchmarks/results/loader.json and prints tables.
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

from benchmarks.common import usage, write_rows
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest
from bert_tweets.corpus.shards.reader import Split, open_split
from bert_tweets.data.layout import Layout
from bert_tweets.data.loader import StepLoader
from bert_tweets.data.masking import masking_for
from bert_tweets.data.permutation import Stream

BATCH, REPEATS, REFERENCE_STEPS, PAGE = 512, 7, 60, 4096
BLOCKS = {"block_size": 8192, "shuffle_blocks": 64}


class Rows(Dataset[Any]):
    """A tweet a row, as map-style data sets hand them out.

    Args:
        split: the tweets.
        lists: as Python lists out of Arrow, as Hugging Face's data sets do; else as slices of the flat tokens.
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
    """The padding collator: [tweets, longest], and the mask of real tokens."""
    lengths = torch.tensor([len(tweet) for tweet in tweets])
    ids = pad_sequence(tweets, batch_first=True)
    return {"input_ids": ids, "attention_mask": torch.arange(ids.shape[1]) < lengths[:, None]}


def reference_tokens(rows: Rows, collate: Callable[[list[Any]], Any]) -> int:
    """Real tokens of some batches of a torch DataLoader."""
    sampler = RandomSampler(rows, num_samples=BATCH * REFERENCE_STEPS)
    batches = DataLoader(rows, BATCH, sampler=sampler, collate_fn=collate)
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


def loader_of(manifest: Manifest, split: Split, steps: int, **order: int) -> StepLoader:
    """The loader of a world of one that makes its steps when they are due."""
    stream = Stream(len(split), 1, BATCH, BATCH * steps, **order)
    layout = Layout(manifest.max_length, 2**20, manifest.pad_id)
    return StepLoader(split, stream, masking_for(manifest, 1, 0.15, False), layout)


def rates(ways: dict[str, Callable[[], int]]) -> dict[str, dict[str, float]]:
    """Tokens a second of each way, by the clock and by processor time; the ways take turns."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, way in ways.items():
            begun = time.perf_counter(), time.process_time()
            tokens = way()
            if repeat:
                seconds = time.perf_counter() - begun[0], time.process_time() - begun[1]
                measured[name].append((tokens / seconds[0], tokens / seconds[1]))
    return {name: _summary(*zip(*pairs, strict=True)) for name, pairs in measured.items()}


def _summary(by_clock: tuple[float, ...], by_processor: tuple[float, ...]) -> dict[str, float]:
    return {
        "tokens_per_second": statistics.median(by_clock),
        "lowest": min(by_clock),
        "highest": max(by_clock),
        "tokens_per_processor_second": statistics.median(by_processor),
    }


def reads(split: Split, **order: int) -> dict[str, float]:
    """Distinct 4 KiB pages of tokens that a step touches, and those that a hundred steps do, as a share of all."""
    stream = Stream(len(split), 1, BATCH, BATCH * 10**6, **order)
    begins = np.cumsum(np.concatenate([[0], *(split.lengths(shard) for shard in range(len(split.shards)))]))
    pages = [np.unique(begins[stream.slice(step, 0, 1)[1]] * 2 // PAGE) for step in range(100)]
    every = begins[-1] * 2 // PAGE
    return {
        "pages_a_step": float(np.mean([len(touched) for touched in pages])),
        "share_of_pages_in_100_steps": len(np.unique(np.concatenate(pages))) / float(every),
    }


def memory() -> dict[str, float]:
    """Resident megabytes of this process: all, and those that are no mapped file."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) / 1000 for name in ("VmRSS", "RssAnon")}


def huge(folder: str, order: str) -> dict[str, Any]:
    """Opens 10⁹ rows, made of real shards over and over, and makes steps from the middle on.

    Opening goes up to knowing the tweets of the middle step; the first step has their tokens, and those of some
    steps behind it. A mapped file is counted where it was read, although the kernel can take its pages back.
    """
    manifest = Manifest.read(folder)
    times = -(-(10**9) // manifest.rows("train"))
    before, begun = memory(), time.perf_counter()
    split = open_split(folder, replace(manifest, splits={"train": manifest.splits["train"] * times}), "train")
    loader = loader_of(manifest, split, 10**9 // BATCH, **(BLOCKS if order == "blocks" else {}))
    middle = loader.stream.steps // 2
    loader.sampler.share(middle, middle + 1)
    record = {"order": order, "rows": len(split), "shards": len(split.shards)} | _since(before, begun, "to_open")
    steps = loader.steps(first=middle)
    next(steps)
    record |= _since(before, begun, "to_first_step")
    for name in ("tokens_per_second", "tokens_per_second_later"):
        begun = time.perf_counter()
        record[name] = sum(next(steps).tokens for _ in range(200)) / (time.perf_counter() - begun)
    return record | _since(before, begun, "later")


def _since(before: dict[str, float], begun: float, when: str) -> dict[str, float]:
    now = memory()
    return {
        f"seconds_{when}": time.perf_counter() - begun,
        f"megabytes_{when}": now["VmRSS"] - before["VmRSS"],
        f"megabytes_{when}_without_mapped_files": now["RssAnon"] - before["RssAnon"],
    }


def main(argv: list[str]) -> None:
    usage(argv, __doc__)
    folder = dict(argument.split("=", 1) for argument in argv if "=" in argument)["data.path"]
    torch.set_num_threads(1)
    if argv[0] == "huge":
        print(json.dumps(huge(folder, argv[1])))
        return
    manifest = Manifest.read(folder)
    split = open_split(folder, manifest, "train")
    steps = len(split) // BATCH
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
    of_lists = Rows(split, lists=True)
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(Path(folder) / TOKENIZER_FOLDER))
    ways: dict[str, Callable[[], int]] = {
        "bert_tweets": lambda: sum(step.tokens for step in loader_of(manifest, split, steps).steps()),
        "bert_tweets_blocks": lambda: sum(step.tokens for step in loader_of(manifest, split, steps, **BLOCKS).steps()),
        "dataloader_transformers": lambda: reference_tokens(
            of_lists, lambda rows: collator([{"input_ids": row} for row in rows])
        ),
        "dataloader_lists": lambda: reference_tokens(
            of_lists, lambda rows: padded([torch.tensor(row) for row in rows])
        ),
        "dataloader_slices": lambda: reference_tokens(Rows(split, lists=False), padded),
    }
    results: list[dict[str, Any]] = []
    measured = rates(ways)
    ours = measured["bert_tweets"]
    print("| loader | real tokens/s, median | lowest to highest | by processor time | ours is faster |")
    print("|---|---|---|---|---|")
    for name, rate in measured.items():
        results.append({"who": name, "repeats": REPEATS, **rate, **common})
        faster = ours["tokens_per_processor_second"] / rate["tokens_per_processor_second"]
        print(
            f"| {name} | {rate['tokens_per_second']:,.0f} | {rate['lowest']:,.0f} to {rate['highest']:,.0f} | "
            f"{rate['tokens_per_processor_second']:,.0f} | {faster:.1f} x |"
        )
    print("\n| order | pages a step | share of all pages in 100 steps |\n|---|---|---|")
    for name, order in (("rows", {}), ("blocks", {"block_size": 512, "shuffle_blocks": 32})):
        touched = reads(split, **order)
        results.append({"who": f"reads_{name}", **order, **touched, **common})
        print(
            f"| {name} {order or ''} | {touched['pages_a_step']:.0f} | {touched['share_of_pages_in_100_steps']:.1%} |"
        )
    print(
        "\n| order | rows | shards | s to open | MB | s to first step | MB (no mapped files) | "
        "tokens/s, 200 steps | next 200 | MB then, no mapped files |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for order in ("rows", "blocks"):
        command = [sys.executable, "-m", "benchmarks.loader", "huge", order, f"data.path={folder}"]
        opened = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        results.append({"who": "a_thousand_million_rows", **opened, **common})
        print(
            f"| {order} | {opened['rows']:,} | {opened['shards']:,} | {opened['seconds_to_open']:.2f} | "
            f"{opened['megabytes_to_open']:.0f} | {opened['seconds_to_first_step']:.2f} | "
            f"{opened['megabytes_to_first_step']:.0f} ({opened['megabytes_to_first_step_without_mapped_files']:.0f}) | "
            f"{opened['tokens_per_second']:,.0f} | {opened['tokens_per_second_later']:,.0f} | "
            f"{opened['megabytes_later_without_mapped_files']:.0f} |"
        )
    write_rows("benchmarks/results/loader.json", results)


if __name__ == "__main__":
    main(sys.argv[1:])

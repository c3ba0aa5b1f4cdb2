"""Peak memory and disk use of prepare on 500,000 and on 5,000,000 rows, to see whether they grow with the input.

    python -m benchmarks.prepare_memory input=tweets.csv.gz tokenizer=FOLDER [rows=500000,5000000] [processes=2]

Each row joins the first half of one of the input's texts and the second half of another, so that copies are no more
frequent than in the input. Memory is each process's own peak as the kernel reports it (VmHWM), and the largest sum over
all processes at one time (RSS, sampled four times per second, as is disk use).
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import ROOT, Row, folder_bytes, markdown_table, provenance, read_settings, read_texts, write_rows

STRIDE = 7919  # distance in rows between the two halves of a generated tweet, growing by as much in each round


def main(arguments: list[str]) -> None:
    settings = read_settings(
        arguments,
        __doc__,
        **{"input": "", "tokenizer": "", "rows": "500000,5000000", "processes": 2},
        output="benchmarks/results/prepare_memory.json",
    )
    texts = read_texts(settings["input"]).to_pylist()
    results = []
    for rows in map(int, settings["rows"].split(",")):
        with tempfile.TemporaryDirectory(prefix="prepare-memory-") as name:
            folder = Path(name)
            with (folder / "tweets.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["text"])
                writer.writerows([text] for text in _generate(texts, rows))
            results.append(_measure(folder, rows, settings["tokenizer"], settings["processes"]))
            print(results[-1], flush=True)
    shared = provenance("prepare_memory", arguments)
    write_rows(settings["output"], [{**row, **shared} for row in results])
    columns = (
        "rows",
        "seconds",
        "largest_process_mb",
        "all_processes_mb",
        "disk_bytes_per_row",
        "near_duplicates",
    )
    print(markdown_table(columns, [tuple(f"{row[name]:,.0f}" for name in columns) for row in results]))


def _generate(texts: list[str], rows: int) -> Iterator[str]:
    halves = [text.split() for text in texts]
    for number in range(rows):
        round_, index = divmod(number, len(halves))
        first, second = halves[index], halves[(index + round_ * STRIDE) % len(halves)]
        yield " ".join(first[: (len(first) + 1) // 2] + second[(len(second) + 1) // 2 :])


def _measure(folder: Path, rows: int, tokenizer: str, processes: int) -> Row:
    """Run prepare on `rows` rows; return its time, memory and disk use."""
    arguments = [f"input={folder / 'tweets.csv'}", f"tokenizer={tokenizer}", f"num_workers={processes}"]
    start = time.perf_counter()
    running = subprocess.Popen(
        [sys.executable, "-m", "bert_tweets.prepare", *arguments, f"output={folder / 'out'}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    peaks: dict[int, int] = {}
    all_processes = disk = 0
    while running.poll() is None:
        memory = {process: _memory(process) for process in _process_tree(running.pid)}
        peaks |= {process: max(peaks.get(process, 0), peak) for process, (peak, _) in memory.items()}
        all_processes = max(all_processes, sum(resident for _, resident in memory.values()))
        disk = max(disk, folder_bytes(folder / ".out.unfinished"))
        time.sleep(0.25)
    assert running.returncode == 0
    seconds = time.perf_counter() - start
    funnel = json.loads((folder / "out" / "funnel.json").read_text())
    assert funnel["read"] == rows
    return {
        "who": "bert_tweets",
        "rows": rows,
        "processes": processes,
        "seconds": seconds,
        "largest_process_mb": max(peaks.values()) / 1e3,
        "all_processes_mb": all_processes / 1e3,
        "disk_bytes_per_row": disk / rows,
        "input_bytes_per_row": (folder / "tweets.csv").stat().st_size / rows,
        "shards_bytes_per_row": folder_bytes(folder / "out") / rows,
        "dropped_duplicates": funnel["dropped"]["duplicate"],
        "near_duplicates": _near_duplicates(folder / "out"),
    }


def _near_duplicates(shards: Path) -> int:
    """Number of tweets that share their cluster with an earlier tweet."""
    import numpy as np

    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.corpus.shards.reader import open_split

    split = open_split(shards, Manifest.read(shards), "train")
    clusters = np.concatenate([split.batch(shard).column("cluster").to_numpy() for shard in range(len(split.shards))])
    return len(clusters) - len(np.unique(clusters))


def _process_tree(root: int) -> list[int]:
    """Ids of a process and all its descendants."""
    processes = [root]
    for process in processes:
        try:
            processes += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
        except OSError:
            continue
    return processes


def _memory(process: int) -> tuple[int, int]:
    """Peak and current resident memory of a process in kB; zeros if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "VmRSS"))}
    return values.get("VmHWM", 0), values.get("VmRSS", 0)


if __name__ == "__main__":
    main(sys.argv[1:])

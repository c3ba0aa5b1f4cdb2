"""Peak memory and disk of prepare on half a million rows and on five: does it grow with the input?

    python -m benchmarks.prepare_memory input=tweets.csv.gz tokenizer=FOLDER [rows=500000,5000000] [processes=2]

The rows are made of the input's texts: the first half of one tweet before the second half of another, so that no more
of them are copies than in the input. Memory is what the kernel says of each process (VmHWM, its own peak) and the
largest sum over all processes at one time (RSS, looked at four times a second); disk is looked at as often.
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
from typing import Any

from benchmarks.common import ROOT, command_of, folder_bytes, machine, table, usage, words_of, write_rows

STRIDE = 7919  # rows between the two halves of a made-up tweet, once more for each round


def main() -> None:
    usage(sys.argv[1:], __doc__)
    given = words_of(
        sys.argv[1:],
        **{"input": "", "tokenizer": "", "rows": "500000,5000000", "processes": 2},
        output="benchmarks/results/prepare_memory.json",
    )
    texts = _texts(given["input"])
    results = []
    for rows in map(int, given["rows"].split(",")):
        with tempfile.TemporaryDirectory(prefix="prepare-memory-") as name:
            folder = Path(name)
            with (folder / "tweets.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["text"])
                writer.writerows([text] for text in _made_up(texts, rows))
            results.append(_watched(folder, rows, given["tokenizer"], given["processes"]))
            print(results[-1], flush=True)
    command = command_of("prepare_memory", sys.argv[1:])
    write_rows(given["output"], [{**row, **machine(), "command": command} for row in results])
    columns = (
        "rows",
        "seconds",
        "largest_process_mb",
        "all_processes_mb",
        "disk_bytes_a_row",
        "near_duplicate_clusters",
    )
    print(table(columns, [tuple(f"{row[name]:,.0f}" for name in columns) for row in results]))


def _texts(name: str) -> list[str]:
    from bert_tweets.corpus.sources import discovery

    paths = discovery.expand([name])
    columns = discovery.find_columns(paths, {})
    return [text for rows in discovery.read_tweets(paths, columns) for text in rows.fields["text"].to_pylist()]


def _made_up(texts: list[str], rows: int) -> Iterator[str]:
    halves = [text.split() for text in texts]
    for number in range(rows):
        round_, place = divmod(number, len(halves))
        first, second = halves[place], halves[(place + round_ * STRIDE) % len(halves)]
        yield " ".join(first[: (len(first) + 1) // 2] + second[(len(second) + 1) // 2 :])


def _watched(folder: Path, rows: int, tokenizer: str, processes: int) -> dict[str, Any]:
    words = [f"input={folder / 'tweets.csv'}", f"tokenizer={tokenizer}", f"num_workers={processes}"]
    started = time.perf_counter()
    running = subprocess.Popen(
        [sys.executable, "-m", "bert_tweets.prepare", *words, f"output={folder / 'out'}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    peaks: dict[int, int] = {}
    together = disk = 0
    while running.poll() is None:
        now = {process: _memory(process) for process in _tree(running.pid)}
        peaks |= {process: max(peaks.get(process, 0), own[0]) for process, own in now.items()}
        together = max(together, sum(own[1] for own in now.values()))
        disk = max(disk, folder_bytes(folder / ".out.unfinished"))
        time.sleep(0.25)
    assert running.returncode == 0
    seconds = time.perf_counter() - started
    funnel = json.loads((folder / "out" / "funnel.json").read_text())
    assert funnel["read"] == rows
    return {
        "who": "bert_tweets",
        "rows": rows,
        "processes": processes,
        "seconds": seconds,
        "largest_process_mb": max(peaks.values()) / 1e3,
        "all_processes_mb": together / 1e3,
        "disk_bytes_a_row": disk / rows,
        "input_bytes_a_row": (folder / "tweets.csv").stat().st_size / rows,
        "shards_bytes_a_row": folder_bytes(folder / "out") / rows,
        "dropped_as_copies": funnel["dropped"]["duplicate"],
        "near_duplicate_clusters": _clusters(folder / "out"),
    }


def _clusters(shards: Path) -> int:
    """Tweets that share their cluster with an earlier one."""
    import numpy as np

    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.corpus.shards.reader import open_split

    split = open_split(shards, Manifest.read(shards), "train")
    clusters = np.concatenate([split.batch(shard).column("cluster").to_numpy() for shard in range(len(split.shards))])
    return len(clusters) - len(np.unique(clusters))


def _tree(root: int) -> list[int]:
    """A process and all that it started."""
    found = [root]
    for process in found:
        try:
            found += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
        except OSError:
            continue
    return found


def _memory(process: int) -> tuple[int, int]:
    """The process's peak and present memory in kB; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "VmRSS"))}
    return values.get("VmHWM", 0), values.get("VmRSS", 0)


if __name__ == "__main__":
    main()

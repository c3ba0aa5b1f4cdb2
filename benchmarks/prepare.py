"""prepare beside its references, in one run on the same tweets.

    python -m benchmarks.prepare input=tweets.csv.gz tokenizer=FOLDER [repeats=3] [rows=0] [output=FILE]

The whole command `prepare` (start-up, reading, cleaning, telling copies apart, encoding, writing) on one process and on
two, beside `encode_batch` alone on the cleaned texts (ids and word ids read; the encoding alone is timed) and
`datasets.map` with the same cleaning and tokenizer (reading and mapping are timed, imports are not). The ways take
turns, so that a noisy machine is noisy to all of them; medians are shown. Needs `pip install datasets`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import command_of, machine, table, usage, words_of, write_rows

ROOT = Path(__file__).parent.parent
REFERENCES = ("encode_batch", "datasets_map")


def main() -> None:
    usage(sys.argv[1:], __doc__)
    given = words_of(sys.argv[1:], input="", tokenizer="", repeats=3, rows=0, output="benchmarks/results/prepare.json")
    folder = Path(tempfile.mkdtemp(prefix="prepare-"))
    try:
        source = _plain_csv(given["input"], given["rows"], folder)
        rows = _whole_stage(source, given["tokenizer"], 2, folder / "shards")["rows"]
        runs: dict[tuple[str, int], list[float]] = {}
        for _ in range(given["repeats"]):
            for processes in (1, 2):
                for who, run in _ways(source, given["tokenizer"], processes, folder).items():
                    runs.setdefault((who, processes), []).append(run())
        results = [
            {
                "who": who,
                "processes": processes,
                "tweets_per_second": rows / statistics.median(seconds),
                "seconds": seconds,
                "rows": rows,
                **machine(),
                "command": command_of("prepare", sys.argv[1:]),
            }
            for (who, processes), seconds in sorted(runs.items(), key=lambda item: item[0][::-1])
        ]
        write_rows(given["output"], results)
        _show(results)
    finally:
        shutil.rmtree(folder)


def _show(results: list[dict[str, Any]]) -> None:
    rates = {(row["who"], row["processes"]): row["tweets_per_second"] for row in results}
    for processes in (1, 2):
        ours = rates["bert_tweets", processes]
        lines = [
            (who, f"{rates[who, processes]:,.0f}", f"{ours / rates[who, processes]:.2f}")
            for who in ("bert_tweets", *REFERENCES)
        ]
        print(table((f"on {processes} process(es)", "rows/s", "ours to it"), lines))
    print(f"two processes against one: {rates['bert_tweets', 2] / rates['bert_tweets', 1]:.2f}")


def _ways(source: Path, tokenizer: str, processes: int, folder: Path) -> dict[str, Callable[[], float]]:
    def reference(name: str) -> float:
        command = [sys.executable, "-m", "benchmarks.prepare_references", name, str(source), str(folder / "shards")]
        threads = {"RAYON_NUM_THREADS": str(processes), "HF_DATASETS_CACHE": str(folder / "cache")}
        done = subprocess.run(
            [*command, str(processes)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **threads},
            cwd=ROOT,
        )
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return float(done.stdout.split()[-1])

    def ours() -> float:
        seconds: float = _whole_stage(source, tokenizer, processes, folder / "again")["seconds"]
        shutil.rmtree(folder / "again")
        return seconds

    return {"bert_tweets": ours, **{name: lambda name=name: reference(name) for name in REFERENCES}}  # type: ignore[misc]


def _whole_stage(source: Path, tokenizer: str, processes: int, output: Path) -> dict[str, Any]:
    """Prepares by the command that users give; its seconds, and the rows that it read."""
    words = [f"input={source}", f"tokenizer={tokenizer}", f"num_workers={processes}", f"output={output}"]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bert_tweets.prepare", *words], check=True, capture_output=True, cwd=ROOT)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": json.loads((output / "funnel.json").read_text())["read"]}


def _plain_csv(name: str, rows: int, folder: Path) -> Path:
    """The texts of the input as a plain CSV file, so that nobody pays for unzipping; the first `rows`, if not 0."""
    import pyarrow as pa
    import pyarrow.csv

    from bert_tweets.corpus.sources import discovery

    paths = discovery.expand([name])
    columns = discovery.find_columns(paths, {})
    texts = pa.concat_arrays([rows.fields["text"] for rows in discovery.read_tweets(paths, columns)])
    pyarrow.csv.write_csv(pa.table({"text": texts.slice(0, rows or len(texts))}), folder / "tweets.csv")
    return folder / "tweets.csv"


if __name__ == "__main__":
    main()

"""Speed of prepare and of two references on the same tweets, in one run.

    python -m benchmarks.prepare input=tweets.csv.gz tokenizer=FOLDER [repeats=3] [rows=0] [output=FILE]

Times the whole command `prepare` (start-up, reading, cleaning, removing duplicates, encoding, writing) on one process
and on two; `encode_batch` alone on the cleaned texts (reading ids and word ids; only the encoding is timed); and
`datasets.map` with the same cleaning and tokenizer (reading and mapping are timed, imports are not). They take turns,
so that noise affects all alike; medians are reported. Needs `pip install datasets`.
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

from benchmarks.common import ROOT, Row, markdown_table, provenance, read_settings, read_texts, write_rows

REFERENCES = ("encode_batch", "datasets_map")


def main(arguments: list[str]) -> None:
    defaults = {"input": "", "tokenizer": "", "repeats": 3, "rows": 0, "output": "benchmarks/results/prepare.json"}
    settings = read_settings(arguments, __doc__, **defaults)
    folder = Path(tempfile.mkdtemp(prefix="prepare-"))
    try:
        source = _plain_csv(settings["input"], settings["rows"], folder)
        rows = _time_prepare(source, settings["tokenizer"], 2, folder / "shards")["rows"]
        runs: dict[tuple[str, int], list[float]] = {}
        for _ in range(settings["repeats"]):
            for processes in (1, 2):
                for who, run in _runs(source, settings["tokenizer"], processes, folder).items():
                    runs.setdefault((who, processes), []).append(run())
        results = [
            {
                "who": who,
                "processes": processes,
                "tweets_per_second": rows / statistics.median(seconds),
                "seconds": seconds,
                "rows": rows,
                **provenance("prepare", arguments),
            }
            for (who, processes), seconds in sorted(runs.items(), key=lambda item: item[0][::-1])
        ]
        write_rows(settings["output"], results)
        _show(results)
    finally:
        shutil.rmtree(folder)


def _show(results: list[Row]) -> None:
    rates = {(row["who"], row["processes"]): row["tweets_per_second"] for row in results}
    for processes in (1, 2):
        ours = rates["bert_tweets", processes]
        lines = [
            (who, f"{rates[who, processes]:,.0f}", f"{ours / rates[who, processes]:.2f}")
            for who in ("bert_tweets", *REFERENCES)
        ]
        print(markdown_table((f"on {processes} process(es)", "rows/s", "bert_tweets is faster by"), lines))
    print(f"two processes against one: {rates['bert_tweets', 2] / rates['bert_tweets', 1]:.2f}")


def _runs(source: Path, tokenizer: str, processes: int, folder: Path) -> dict[str, Callable[[], float]]:
    def reference(name: str) -> float:
        command = [sys.executable, "-m", "benchmarks.prepare_references", name, str(source), str(folder / "shards")]
        threads = {"RAYON_NUM_THREADS": str(processes), "HF_DATASETS_CACHE": str(folder / "cache")}
        completed = subprocess.run(
            [*command, str(processes)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **threads},
            cwd=ROOT,
        )
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return float(completed.stdout.split()[-1])

    def ours() -> float:
        seconds: float = _time_prepare(source, tokenizer, processes, folder / "again")["seconds"]
        shutil.rmtree(folder / "again")
        return seconds

    return {"bert_tweets": ours, **{name: lambda name=name: reference(name) for name in REFERENCES}}  # type: ignore[misc]


def _time_prepare(source: Path, tokenizer: str, processes: int, output: Path) -> Row:
    """Run the command `prepare`; return its seconds and the number of rows read."""
    arguments = [f"input={source}", f"tokenizer={tokenizer}", f"num_workers={processes}", f"output={output}"]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bert_tweets.prepare", *arguments], check=True, capture_output=True, cwd=ROOT)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "rows": json.loads((output / "funnel.json").read_text())["read"]}


def _plain_csv(name: str, rows: int, folder: Path) -> Path:
    """Write the input's texts (the first `rows`, if not 0) to plain CSV, so that decompression is not timed."""
    import pyarrow as pa
    import pyarrow.csv

    texts = read_texts(name)
    pyarrow.csv.write_csv(pa.table({"text": texts.slice(0, rows or len(texts))}), folder / "tweets.csv")
    return folder / "tweets.csv"


if __name__ == "__main__":
    main(sys.argv[1:])

"""Near-duplicate clusters: seconds, memory and disk by kind and number of rows, and recall of planted near-copies.

    python -m benchmarks.clusters random 5_000_000
    python -m benchmarks.clusters real everyday_en.csv.gz

Kinds of generated rows: `random` (a tenth copies, a tenth near-copies), `equal` (one text), `near` (different
near-copies of one text). All tasks run on one core inside this process, so its peak memory is that of all stages
together, including the making of the keys.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from benchmarks.common import exit_with_help, folder_bytes
from bert_tweets.common.executors import Inline, Workers
from bert_tweets.common.hashing import mix
from bert_tweets.corpus.dedup.clustering import CLUSTER, find_clusters
from bert_tweets.corpus.dedup.key_file import write_keys
from bert_tweets.corpus.dedup.minhash import Keys, MinHash, banding, hash_keys
from bert_tweets.corpus.text.cleaning import clean, duplicate_key

THRESHOLD = 0.7
UNIT_ROWS = 50_000


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# Before any data is read or generated.
PEAK_AFTER_IMPORTS = peak_bytes()


def generate_keys(kind: str, first: int, rows: int) -> Keys:
    """Generate keys of rows; a row's text is a number, and near-copies differ in its last bits."""
    number = np.arange(first, first + rows, dtype=np.uint64)
    text = number << np.uint64(8)
    if kind == "random":
        earlier = (mix(number + np.uint64(1)) % (number + np.uint64(1))) << np.uint64(8)
        text = np.where(number % 10 == 0, earlier, np.where(number % 10 == 1, earlier + number % 251 + 1, text))
        like, variant = text >> np.uint64(8), text & np.uint64(255)
    else:
        like, variant = np.zeros_like(number), number if kind == "near" else np.zeros_like(number)
    text = (like << np.uint64(32)) + variant
    bands, _ = banding(THRESHOLD)
    shares = np.arange(1, bands + 1, dtype=np.uint64)
    # A near-copy loses some of its bands.
    lost = np.where((mix(text[:, None] * np.uint64(31) + shares) % 4 == 0) & (variant[:, None] > 0), text[:, None], 0)
    hashes = mix(mix(like + np.uint64(9))[:, None] + shares + mix(lost))
    sketch = mix(mix(like + np.uint64(5))[:, None] + np.arange(4, dtype=np.uint64))
    sketch[:, 0] ^= variant & np.uint64(3)
    sketch[:, 3] = (sketch[:, 3] & np.uint64(2**56 - 1)) | np.uint64(20 << 56)
    return Keys(mix(text), hashes, sketch)


def watch_size(folder: Path, stop: threading.Event, peak: list[int]) -> None:
    """Keep the largest size of a folder, in bytes, in `peak[0]`, until it is stopped."""
    while not stop.wait(0.2):
        peak[0] = max(peak[0], folder_bytes(folder))


def measure(folder: Path, files: list[Path], rows: list[int]) -> np.ndarray:
    """Find clusters, print time and memory, and return the cluster of each row."""
    stop, peak_disk, work = threading.Event(), [0], folder / "work"
    work.mkdir()
    watch = threading.Thread(target=watch_size, args=(work, stop, peak_disk))
    watch.start()
    start, cpu_start = time.perf_counter(), time.process_time()
    outputs = find_clusters(files, rows, work, Workers(Inline(), 1), THRESHOLD)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    peak_memory = peak_bytes()
    stop.set()
    watch.join()
    clusters = np.concatenate([np.fromfile(file, CLUSTER) for file in outputs])
    total = sum(rows)
    figures = {
        "rows": total,
        "clusters": len(np.unique(clusters["cluster"])),
        "seconds": round(seconds, 2),
        "microseconds_per_row": round(seconds / total * 1e6, 2),
        "cpu_microseconds_per_row": round(cpu / total * 1e6, 2),
        "peak_megabytes": round(peak_memory / 1e6),
        "peak_megabytes_after_imports": round(PEAK_AFTER_IMPORTS / 1e6),
        "key_bytes_per_row": round(sum(file.stat().st_size for file in files) / total),
        "work_bytes_per_row": round(peak_disk[0] / total),
    }
    print(json.dumps(figures))
    return clusters


def real_texts(source: Path) -> tuple[list[str], np.ndarray]:
    """Duplicate keys of real tweets, then near-copies of 20,000 of them; and the row of each copy's original."""
    table = pyarrow.csv.read_csv(source, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    keys = duplicate_key(clean(table.column("text").combine_chunks(), "tweets")).to_pylist()
    generator = np.random.default_rng(0)
    origins = generator.choice(len(keys), 20_000, replace=False)
    for origin in origins.tolist():
        words = keys[origin].split(" ")
        for position in generator.integers(0, len(words), generator.integers(1, 4)).tolist():
            words[position] = f"x{generator.integers(10**9)}"
        keys.append(" ".join(words))
    return keys, origins


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split(" ")
    return set(pairwise(words)) if len(words) > 1 else {tuple(words)}


def real(folder: Path, source: Path) -> None:
    """Print speed and recall on real tweets."""
    texts, origins = real_texts(source)
    array = pa.array(texts)
    minhash, sample = MinHash(THRESHOLD, 2), array.slice(0, 100_000)
    for name, task in (("hash_keys alone", hash_keys), ("MinHash", minhash)):
        start = time.process_time()
        task(sample)
        print(f"{name}: {(time.process_time() - start) / len(sample) * 1e6:.2f} µs of CPU time per tweet")
    files, rows = [], []
    for first in range(0, len(texts), UNIT_ROWS):
        unit = array.slice(first, UNIT_ROWS)
        files.append(folder / f"{first}.keys")
        start = time.process_time()
        keys = minhash(unit)
        hashed = time.process_time()
        write_keys(files[-1], keys)
        rows.append(len(unit))
    print(f"last unit: MinHash {(hashed - start) / rows[-1] * 1e6:.2f}, ", end="")
    print(f"write_keys {(time.process_time() - hashed) / rows[-1] * 1e6:.2f} µs per tweet")
    clusters = measure(folder, files, rows)["cluster"]
    planted = np.arange(len(texts) - len(origins), len(texts))
    pairs = [(shingles(texts[a]), shingles(texts[b])) for a, b in zip(origins, planted, strict=True)]
    exact = np.array([len(a & b) / len(a | b) for a, b in pairs])
    same_cluster = clusters[origins] == clusters[planted]
    for low, high in pairwise((0.0, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.01)):
        inside = (exact >= low) & (exact < high)
        print(
            f"planted, similarity {low:.2f} to {high:.2f}: {inside.sum():5d}, found {same_cluster[inside].mean():.4f}"
        )
    sizes = np.unique(clusters[: -len(origins)], return_counts=True)[1]
    print(f"largest clusters {np.sort(sizes)[::-1][:8].tolist()}, rows in clusters {sizes[sizes > 1].sum()}")


def main() -> None:
    exit_with_help(sys.argv[1:], __doc__)
    kind, argument = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "real":
            real(folder, Path(argument))
            return
        files, rows = [], []
        for first in range(0, int(argument), UNIT_ROWS):
            rows.append(min(UNIT_ROWS, int(argument) - first))
            files.append(folder / f"{first}.keys")
            write_keys(files[-1], generate_keys(kind, first, rows[-1]))
        measure(folder, files, rows)


if __name__ == "__main__":
    main()

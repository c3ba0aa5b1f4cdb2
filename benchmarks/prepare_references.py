"""The references that `benchmarks.prepare` times, each in a process of its own that prints its seconds.

python -m benchmarks.prepare_references encode_batch|datasets_map tweets.csv SHARDS PROCESSES
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH = 4096
MAX_LENGTH = 128


def encode_batch(source: Path, shards: Path, processes: int) -> float:
    """Time the tokenizer alone on the cleaned texts of all rows, reading ids and word ids.

    The number of threads is set by RAYON_NUM_THREADS.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shards / "tokenizer" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    batches = list(_cleaned(source, shards))
    tokenizer.encode_batch(batches[0])
    start = time.perf_counter()
    for texts in batches:
        encodings = tokenizer.encode_batch(texts)
        ids = [(encoding.ids, encoding.word_ids) for encoding in encodings]
        assert len(ids) == len(texts)
    return time.perf_counter() - start


def _cleaned(source: Path, shards: Path) -> Iterator[list[str]]:
    """Yield the cleaned texts of all rows of the CSV file, in batches."""
    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.corpus.sources import discovery
    from bert_tweets.corpus.text import cleaning

    preset = Manifest.read(shards).recipe.clean
    paths = [str(source)]
    for rows in discovery.read_tweets(paths, discovery.find_columns(paths, {})):
        texts = cleaning.clean(rows.fields["text"], preset).to_pylist()
        yield from (texts[first : first + BATCH] for first in range(0, len(texts), BATCH))


def datasets_map(source: Path, shards: Path, processes: int) -> float:
    """Time `datasets.map` on a CSV file, cleaned and encoded as the shards are."""
    import pyarrow as pa
    from datasets import load_dataset

    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.corpus.text import cleaning
    from bert_tweets.corpus.text.tokenizer import load_tokenizer

    preset = Manifest.read(shards).recipe.clean
    tokenizer = load_tokenizer(str(shards / "tokenizer"))

    def encode(rows: dict[str, Any]) -> dict[str, Any]:
        texts = cleaning.clean(pa.array(rows["text"], pa.string()), preset).to_pylist()
        encoded = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)
        words = [[-1 if word is None else word for word in encoded.word_ids(row)] for row in range(len(texts))]
        return {"input_ids": encoded["input_ids"], "words": words}

    start = time.perf_counter()
    data = load_dataset("csv", data_files=str(source), split="train", keep_default_na=False)
    data.map(encode, batched=True, num_proc=processes if processes > 1 else None, remove_columns=["text"])
    return time.perf_counter() - start


if __name__ == "__main__":
    name, source, shards, processes = sys.argv[1:]
    print(
        {"encode_batch": encode_batch, "datasets_map": datasets_map}[name](Path(source), Path(shards), int(processes))
    )

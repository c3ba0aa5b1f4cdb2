"""What a GPU run needs on a machine without a network: tweets, packages that may be missing there, the commit's name.

    python -m benchmarks.gpu_inputs pack FOLDER [tweets=FILE] [tokenizer=FOLDER] [count=250000]

FOLDER     takes the inputs, .gpu for benchmarks/gpu.sh; what it holds of an earlier run is replaced
tweets     as prepare's input takes them, in CSV; else generated ones
tokenizer  folder; else one is trained on the tweets, of a small vocabulary
count      tweets at most, spread over the file
"""

from __future__ import annotations

import csv
import gzip
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib.metadata import Distribution, distribution
from pathlib import Path

from benchmarks.common import commit, words_of
from bert_tweets.config import ModelConfig, PrepareConfig, ScratchConfig
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.demo import generate, write_csv
from bert_tweets.model.loading import load_model
from bert_tweets.prepare import prepare

ARCHIVE, COMMIT = "inputs.tar.gz", "commit"
# Pure Python, and not on every machine with a GPU and torch.
_PACKAGE, _ON_THE_MACHINE = "omegaconf", ("pyyaml",)


def pack(folder: str, tweets: str = "", tokenizer: str = "", count: int = 250_000) -> Path:
    """Write `inputs.tar.gz` with shards and packages, and `commit`, into a folder; returns the folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        chosen = Path(place) / "tweets.csv"
        if tweets:
            spread(Path(tweets), chosen, count)
        else:
            write_csv(chosen, generate(count, 0, date(2019, 1, 1), 730))
        settings = {"input": [str(chosen)], "output": f"{place}/shards", "tokenizer": tokenizer or "wordpiece"}
        # Generated tweets say the same thing often.
        prepare(PrepareConfig(**settings, **({} if tweets else {"deduplicate": "none"})))
        with tarfile.open(target / ARCHIVE, "w:gz") as archive:
            archive.add(f"{place}/shards", "shards")
            for package in travelling():
                for file in package.files or []:
                    if file.suffix != ".pyc" and ".." not in file.parts:
                        archive.add(file.locate(), f"site/{file}")
    (target / COMMIT).write_text(commit() + "\n")
    return target


def spread(source: Path, target: Path, count: int) -> None:
    """Every n-th row of a CSV file, so that `count` remain at most."""
    opened = gzip.open if source.suffix == ".gz" else open
    with opened(source, "rt", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows[:: -(-len(rows) // count)]])


def travelling() -> Iterator[Distribution]:
    """The installed packages that travel: OmegaConf, and what it needs that the machine will not have."""
    package = distribution(_PACKAGE)
    yield package
    for needed in package.requires or []:
        name = re.match(r"[\w.-]+", needed)
        if name and ";" not in needed and name[0].lower() not in _ON_THE_MACHINE:
            yield distribution(name[0])


def model(shards: str, folder: str, width: str, layers: str, heads: str, feed_forward: str) -> None:
    """A stock BERT of these sizes, with random weights and the shards' vocabulary and tokenizer."""
    sizes = ScratchConfig(int(width), int(layers), int(heads), int(feed_forward))
    made = load_model(ModelConfig(name="scratch", scratch=sizes), Manifest.read(shards)).model
    made.save_pretrained(folder)
    load_tokenizer(str(Path(shards) / TOKENIZER_FOLDER)).save_pretrained(folder)


def main(words: list[str]) -> None:
    if len(words) < 2 or words[0] != "pack":
        raise SystemExit((__doc__ or "").strip())
    folder = pack(words[1], **words_of(words[2:], tweets="", tokenizer="", count=250_000))
    for file in sorted(folder.iterdir()):
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB" if file.is_file() else file)


if __name__ == "__main__":
    main(sys.argv[1:])

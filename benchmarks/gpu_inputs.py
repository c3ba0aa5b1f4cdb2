"""Pack what a GPU run needs on a machine without network: shards, packages it may lack, and the commit's name.

    python -m benchmarks.gpu_inputs pack FOLDER [tweets=FILE] [tokenizer=FOLDER] [count=250000]

FOLDER     output folder (.gpu for benchmarks/gpu.sh); inputs of an earlier run are replaced
tweets     CSV file of tweets, in a form that prepare accepts; without it, tweets are generated
tokenizer  folder; without it, a small one is trained on the tweets
count      maximum number of tweets, taken evenly from the file
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

from benchmarks.common import commit, exit_with_help, parse_settings
from bert_tweets.config import ModelConfig, PrepareConfig, ScratchConfig
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.demo import generate, write_csv
from bert_tweets.model.loading import load_model
from bert_tweets.prepare import prepare

ARCHIVE, COMMIT = "inputs.tar.gz", "commit"
# Pure Python, and not installed on every machine with a GPU and torch.
_PACKAGE, _PREINSTALLED = "omegaconf", ("pyyaml",)


def pack(folder: str, tweets: str = "", tokenizer: str = "", count: int = 250_000) -> Path:
    """Write `inputs.tar.gz` (shards and packages) and `commit` into a folder; return the folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "tweets.csv"
        if tweets:
            thin_out(Path(tweets), source, count)
        else:
            write_csv(source, generate(count, 0, date(2019, 1, 1), 730))
        settings = {"input": [str(source)], "output": f"{temporary}/shards", "tokenizer": tokenizer or "wordpiece"}
        # Many generated tweets are alike.
        prepare(PrepareConfig(**settings, **({} if tweets else {"deduplicate": "none"})))
        with tarfile.open(target / ARCHIVE, "w:gz") as archive:
            archive.add(f"{temporary}/shards", "shards")
            for package in packages():
                for file in package.files or []:
                    if file.suffix != ".pyc" and ".." not in file.parts:
                        archive.add(file.locate(), f"site/{file}")
    (target / COMMIT).write_text(commit() + "\n")
    return target


def thin_out(source: Path, target: Path, count: int) -> None:
    """Copy every n-th row of a CSV file, so that at most `count` remain."""
    open_file = gzip.open if source.suffix == ".gz" else open
    with open_file(source, "rt", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows[:: -(-len(rows) // count)]])


def packages() -> Iterator[Distribution]:
    """Yield the installed packages to pack: OmegaConf and those dependencies that the machine will lack."""
    package = distribution(_PACKAGE)
    yield package
    for requirement in package.requires or []:
        name = re.match(r"[\w.-]+", requirement)
        if name and ";" not in requirement and name[0].lower() not in _PREINSTALLED:
            yield distribution(name[0])


def save_model(shards: str, folder: str, width: str, layers: str, heads: str, feed_forward: str) -> None:
    """Save a stock BERT of these sizes with random weights and the shards' vocabulary and tokenizer."""
    sizes = ScratchConfig(int(width), int(layers), int(heads), int(feed_forward))
    bert = load_model(ModelConfig(name="scratch", scratch=sizes), Manifest.read(shards)).model
    bert.save_pretrained(folder)
    load_tokenizer(str(Path(shards) / TOKENIZER_FOLDER)).save_pretrained(folder)


def main(arguments: list[str]) -> None:
    exit_with_help(arguments, __doc__)
    if len(arguments) < 2 or arguments[0] != "pack":
        raise SystemExit("error: expected pack FOLDER [key=value ...]; see --help")
    folder = pack(arguments[1], **parse_settings(arguments[2:], tweets="", tokenizer="", count=250_000))
    for file in sorted(folder.iterdir()):
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB" if file.is_file() else file)


if __name__ == "__main__":
    main(sys.argv[1:])

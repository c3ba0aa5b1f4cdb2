"""What a benchmark runs on where there is nothing to bring: generated tweets, a BERT with random weights.

python -m benchmarks.gpu_inputs tweets FILE.csv COUNT
python -m benchmarks.gpu_inputs model SHARDS FOLDER WIDTH LAYERS HEADS FEED_FORWARD
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from bert_tweets.config import ModelConfig, ScratchConfig
from bert_tweets.data.manifest import TOKENIZER_FOLDER, Manifest
from bert_tweets.demo import generate, write_csv
from bert_tweets.model.loading import load_model
from bert_tweets.text.tokenizer import load_tokenizer


def tweets(path: str, count: str) -> None:
    """A CSV file of the demo's tweets."""
    write_csv(Path(path), generate(int(count), 0, date(2019, 1, 1), 730))


def model(shards: str, folder: str, width: str, layers: str, heads: str, feed_forward: str) -> None:
    """A stock BERT of these sizes, with random weights and the shards' vocabulary and tokenizer."""
    sizes = ScratchConfig(int(width), int(layers), int(heads), int(feed_forward))
    made = load_model(ModelConfig(name="scratch", scratch=sizes), Manifest.read(shards)).model
    made.save_pretrained(folder)
    load_tokenizer(str(Path(shards) / TOKENIZER_FOLDER)).save_pretrained(folder)


if __name__ == "__main__":
    if sys.argv[1] == "tweets":
        tweets(*sys.argv[2:])
    else:
        model(*sys.argv[2:])

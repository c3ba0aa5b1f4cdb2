"""Small training runs, and how they are compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.text.recipe import Recipe
from bert_tweets.data.sampler import SamplerState
from bert_tweets.engine.scalars import Scalars
from bert_tweets.training import checkpoint, run_folder
from bert_tweets.training.fingerprint import RunFingerprint
from bert_tweets.training.trainer import train
from tests.helpers import generated_tweets, make_shards

SETTINGS = [
    "model.name=scratch",
    "model.scratch.hidden_size=32",
    "model.scratch.intermediate_size=64",
    "precision=fp32",
    "device=cpu",
    "optimizer.learning_rate=1e-3",
]
# Settings of a run in one process, with checkpoints.
MORE = ["batch_size=6", "max_steps=9", "log.every_steps=2", "validation.every_steps=4", "checkpoint.every_steps=3"]
# Fields of a line of metrics that measure time.
TIMES = {
    "tokens_per_second",
    "tweets_per_second",
    "time",
    "mfu",
    "data_wait_fraction",
    "step_seconds",
    "rank_compute_seconds",
    "rank_data_wait_seconds",
    "slowest_rank",
}


def short_tweets(folder: Path) -> Path:
    """Shards of about 45 short tweets for training, and as many for validation."""
    texts = [" ".join(text.split()[: 2 + number % 5]) for number, text in enumerate(generated_tweets(90))]
    return make_shards(folder, texts, max_length=12, validation_fraction=0.5)


def words_of(shards: Path, output: Path, *more: str) -> list[str]:
    return [f"data.path={shards}", f"output={output}", *SETTINGS, *more]


def config_of(shards: Path, output: Path, *more: str) -> TrainConfig:
    return parser.load(TrainConfig, words_of(shards, output, *more))


def lines_of(run: Path, name: str = "metrics.jsonl") -> list[dict[str, float]]:
    """The lines of a file, without fields that measure time."""
    lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def model_of(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model/model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    """Assert that two runs took the same steps to the same model, bit for bit."""
    assert lines_of(one) == lines_of(other)
    assert lines_of(one, "validation.jsonl") == lines_of(other, "validation.jsonl")
    mine, theirs = model_of(one), model_of(other)
    assert mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)
    records = [json.loads((run / "run.json").read_text()) for run in (one, other)]
    assert all(record["steps"] == records[0]["steps"] for record in records)
    assert all(record["tokens"] == records[0]["tokens"] for record in records)


def train_run(shards: Path, run: Path, *more: str) -> None:
    """Start a small run, or resume it."""
    train(config_of(shards, run, *MORE, *more))


def names_in(run: Path) -> set[str]:
    """The names in its folder of checkpoints."""
    return {path.name for path in (run / run_folder.CHECKPOINTS).iterdir()}


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def record_of(step: int) -> checkpoint.Record:
    """A checkpoint's record that belongs to no run."""
    progress = checkpoint.Progress(
        checkpoint.BestState(0, None, None, 0, False),
        checkpoint.MeterState([], 0, 0, 0, 0, 0.0, [[0.0, 0.0]]),
        checkpoint.TotalsState(0, 0, 0.0),
        checkpoint.GuardState([], False),
    )
    fingerprint = RunFingerprint({}, Recipe("raw", "", ""), "", "")
    metadata = checkpoint.Metadata("ddp", 1, {}, {})
    return checkpoint.Record(step, fingerprint, SamplerState(0, 0, 0, 0, 0, ""), progress, Scalars(0), metadata)

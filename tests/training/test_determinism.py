"""Deterministic runs, the profiler, and garbage collection between steps."""

from __future__ import annotations

import gc
import gzip
import json
from pathlib import Path

import pytest
import torch

from bert_tweets.config import TrainConfig
from bert_tweets.training.determinism import manual_gc
from bert_tweets.training.trainer import train


def settings(shards: Path, output: Path) -> TrainConfig:
    config = TrainConfig(output=str(output), max_steps=9, batch_size=16, tokens_per_device=512, device="cpu")
    config.data.path, config.model.name, config.log.every_steps = str(shards), "scratch", 1
    return config


def losses(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_have_the_same_losses_to_the_last_bit(
    precision: str, shards: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Also with sums over several threads.
    request.addfinalizer(lambda: torch.set_num_threads(1))
    torch.set_num_threads(2 if precision == "bf16" else 1)
    found = []
    for name in ("first", "second"):
        config = settings(shards, tmp_path / name)
        config.precision, config.model.checkpoint_activations = precision, name == "second"
        train(config)
        found.append(losses(tmp_path / name))
    assert len(found[0]) == 9 and found[0] == found[1]


def test_profile_writes_a_trace_and_a_table(shards: Path, tmp_path: Path) -> None:
    config = settings(shards, tmp_path / "run")
    config.profile, config.deterministic = True, True
    try:
        train(config)
    finally:
        torch.use_deterministic_algorithms(False)
    table = (tmp_path / "run/profile/table.txt").read_text()
    assert all(part in table for part in ("forward", "backward", "optimizer"))
    with gzip.open(tmp_path / "run/profile/trace.json.gz") as file:
        assert json.load(file)["traceEvents"]


def test_garbage_collection_is_off_during_training() -> None:
    with manual_gc():
        assert not gc.isenabled()
    assert gc.isenabled()

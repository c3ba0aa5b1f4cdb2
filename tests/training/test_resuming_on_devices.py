"""deterministic=true: a resumed run is bit-identical to an uninterrupted one, on a GPU too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devices import each_device
from tests.processes import stage
from tests.training.runs import assert_same, short_tweets

SETTINGS = [
    *("model.name=scratch", "model.scratch.hidden_size=64", "model.scratch.intermediate_size=128"),
    *("optimizer.learning_rate=1e-3", "deterministic=true"),
    *("batch_size=6", "tokens_per_device=64", "max_steps=9", "log.every_steps=2"),
    *("validation.every_steps=4", "checkpoint.every_steps=3"),
]


@pytest.mark.dist
@pytest.mark.slow
@each_device
def test_a_resumed_run_is_bit_identical(device: str, tmp_path: Path) -> None:
    precision = "bf16" if device == "cuda" else "fp32"
    resumed_run_is_bit_identical(tmp_path, f"device={device}", f"precision={precision}", "model.compile=false")


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.gpu
def test_a_resumed_run_is_bit_identical_when_compiled(tmp_path: Path) -> None:
    one_layer = "model.scratch.num_hidden_layers=1"  # each of three processes compiles
    resumed_run_is_bit_identical(tmp_path, "device=cuda", "precision=bf16", "model.compile=true", one_layer)


def resumed_run_is_bit_identical(folder: Path, *more: str) -> None:
    # Not forked from a process with torch, where CUDA may have been initialised already.
    own_python = {"CUDA_MODULE_LOADING": "LAZY"} if "device=cuda" in more else {}
    shards = short_tweets(folder / "data")
    for run, stop in (("whole", ()), ("parts", ("stop_after_steps=5",)), ("parts", ())):
        words = [f"data.path={shards}", f"output={folder / run}", *SETTINGS, *more, *stop]
        stage("train", *words, **own_python)
    assert_same(folder / "whole", folder / "parts")

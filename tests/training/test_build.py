"""The parts of a run are what its settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.distributed import world as ranks
from bert_tweets.training.build import build
from bert_tweets.training.trainer import train
from tests.training.runs import config_of, lines_of, words_of


@pytest.mark.parametrize(("compile_", "attention"), [("auto", "bucketed"), ("true", "sdpa")])
def test_compiled_micro_batches_have_one_shape(shards: Path, compile_: str, attention: str) -> None:
    own = [f"model.compile={compile_}", "batch_size=48", "max_steps=7"]
    config = parser.load(TrainConfig, words_of(shards, "unused", *own))
    training = build(config, Manifest.read(shards), ranks.world_from_environment("cpu"))
    assert training.attention == attention and training.module.compiled == (compile_ == "true")
    sizes = {len(batch.input_ids) for step in training.loader.steps() for batch in step.micro_batches}
    assert (len(sizes) == 1) == (compile_ == "true") == (training.layout.fixed is not None)


@pytest.mark.parametrize(("more", "count"), [([], 1), (["model.dropout=0.1"], 2)], ids=["plain", "dropout"])
def test_a_whole_run_compiles_one_graph(
    shards: Path, tmp_path: Path, graphs: list[Any], more: list[str], count: int
) -> None:
    """With accumulation, a short last step and validation, although validation has its own seed and share of masks.

    With dropout, validation needs a graph of its own.
    """
    own = ["model.compile=true", "seed=5", "masking.probability=0.3", "batch_size=70", "epochs=1"]
    own += ["tokens_per_device=2048", "validation.every_steps=2", *more]
    train(config_of(shards, tmp_path / "run", *own))
    rows = Manifest.read(shards).rows("train")
    assert rows % 70 and len(lines_of(tmp_path / "run", "validation.jsonl")) > 2
    assert len(graphs) == count

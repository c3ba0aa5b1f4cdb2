"""Putting a run together: what its settings ask for is what is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_tweets import options
from bert_tweets.config import TrainConfig
from bert_tweets.data.manifest import Manifest
from bert_tweets.engine import world as ranks
from bert_tweets.training.setup import build
from tests.training.runs import words_of


@pytest.mark.parametrize(("compile_", "attention"), [("auto", "tweets"), ("true", "masked")])
def test_what_is_compiled_sees_few_shapes(shards: Path, compile_: str, attention: str) -> None:
    config = options.load(TrainConfig, words_of(shards, "unused", f"model.compile={compile_}", "max_steps=3"))
    training = build(config, Manifest.read(shards), ranks.this_world("cpu"))
    assert training.attention == attention and training.module.compiled == (compile_ == "true")
    sizes = {len(batch.input_ids) for step in training.loader.steps() for batch in step.micro_batches}
    assert all(size % 8 == 0 for size in sizes) == (compile_ == "true")

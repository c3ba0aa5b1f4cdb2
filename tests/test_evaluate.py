"""evaluate: the same masks for both models, an honest interval, and no gain where nothing can be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bert_tweets.common.errors import UserError
from bert_tweets.config import DataConfig, EvaluateConfig, ModelConfig, ScratchConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.distributed.world import world_from_environment
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import load_model
from bert_tweets.training import evaluate as evaluation
from bert_tweets.training.evaluate import Score
from tests.helpers import make_shards
from tests.processes import failure, stage


def export_scratch(folder: Path, shards: Path, seed: int) -> Path:
    """A tiny model with random weights, exported as train would."""
    manifest = Manifest.read(shards)
    sizes = ScratchConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    loaded = load_model(ModelConfig(name="scratch", scratch=sizes), manifest, seed)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(3)
    export_model(folder, loaded.model, None, manifest, str(shards))
    return folder


@pytest.fixture(scope="module")
def models(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: export_scratch(folder / name, shards, seed) for seed, name in enumerate(("a", "b"))}


def config_of(shards: Path, model: Path, base: Path | str = "", **more: Any) -> EvaluateConfig:
    return EvaluateConfig(
        model=str(model), base=str(base), output="-", data=DataConfig(path=str(shards)), device="cpu", **more
    )


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """By one rank."""
    metrics = evaluation.evaluate(config, world_from_environment(config.device))
    assert metrics is not None
    return metrics


def test_a_model_against_itself_differs_by_nothing(shards: Path, models: dict[str, Path]) -> None:
    metrics = evaluate(config_of(shards, models["a"], models["a"]))
    assert metrics["model"] | {"name": ""} == metrics["base"] | {"name": ""}
    assert metrics["difference"]["loss"] == metrics["difference"]["low"] == metrics["difference"]["high"] == 0
    assert "No effect" in metrics["verdict"]


def test_swapping_the_models_turns_the_sign(shards: Path, models: dict[str, Path]) -> None:
    there = evaluate(config_of(shards, models["a"], models["b"]))["difference"]
    back = evaluate(config_of(shards, models["b"], models["a"]))["difference"]
    assert there["loss"] == pytest.approx(-back["loss"]) and there["loss"] != 0
    assert (there["low"], there["high"]) == pytest.approx((-back["high"], -back["low"]))
    assert there["low"] < there["loss"] < there["high"]


def test_the_figures_do_not_depend_on_the_layout(shards: Path, models: dict[str, Path]) -> None:
    wide, narrow = (
        evaluate(config_of(shards, models["a"], tokens_per_device=tokens))["model"] for tokens in (128, 16_384)
    )
    assert wide["loss"] == pytest.approx(narrow["loss"], rel=1e-6)
    assert wide["masked_tokens"] == narrow["masked_tokens"] and wide["accuracy"] == narrow["accuracy"]


def test_the_loss_is_that_of_the_stock_model_on_the_same_masks(shards: Path, models: dict[str, Path]) -> None:
    from transformers import AutoModelForMaskedLM

    from bert_tweets.corpus.shards.reader import open_split
    from bert_tweets.data.batches import to_micro_batch
    from bert_tweets.data.masking import masking_for
    from bert_tweets.data.packing import pack

    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "validation")
    stock = AutoModelForMaskedLM.from_pretrained(models["a"]).eval()
    masking = masking_for(manifest, 0, 0.15, whole_word=False)
    total, masked = 0.0, 0
    for index in np.arange(len(split)):
        batch = to_micro_batch(pack(split.gather(np.array([index])), 128, 0), np.array([index]), np.array([0]))
        corrupted, selected = masking.apply(batch)
        real = batch.segment_ids > 0
        with torch.no_grad():
            logits = stock(input_ids=corrupted[real][None]).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, batch.input_ids[real].long(), reduction="none")
        total += float(losses[selected[real]].sum())
        masked += int(selected.sum())
    figures = evaluate(config_of(shards, models["a"]))["model"]
    assert figures["masked_tokens"] == masked
    assert figures["loss"] == pytest.approx(total / masked, rel=1e-5)
    assert figures["perplexity"] == pytest.approx(np.exp(total / masked), rel=1e-4)


def test_copies_are_resampled_together() -> None:
    """Ten copies of each tweet tell no more than one: the interval must not shrink."""
    generator = np.random.default_rng(0)
    loss = generator.gamma(2, 1, 60)
    config = EvaluateConfig(bootstrap_samples=4000)

    def width(copies: int, clusters: np.ndarray) -> float:
        score = Score(np.tile(loss, copies), np.zeros(60 * copies), np.ones(60 * copies))
        figures = evaluation._figures("m", score, clusters, config, None)
        return float(figures["high"] - figures["low"])

    def paired(copies: int, clusters: np.ndarray) -> float:
        nothing, ones = np.zeros(60 * copies), np.ones(60 * copies)
        model, base = Score(np.tile(loss, copies), nothing, ones), Score(ones, nothing, ones)
        found = evaluation._paired_difference(model, base, clusters, config)
        return float(found["high"] - found["low"])

    assert paired(10, np.tile(np.arange(60), 10)) == pytest.approx(paired(1, np.arange(60)), rel=0.1)
    assert paired(10, np.arange(600)) < paired(1, np.arange(60)) / 2
    once = width(1, np.arange(60))
    assert width(10, np.tile(np.arange(60), 10)) == pytest.approx(once, rel=0.1)
    assert width(10, np.arange(600)) < once / 2


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator, hits = np.random.default_rng(1), 0
    config = EvaluateConfig(bootstrap_samples=400)
    for _ in range(200):
        difference = generator.normal(0.3, 1.0, 150)
        base = Score(np.ones(150) * 5, np.zeros(150), np.ones(150))
        model = Score(base.loss + difference, np.zeros(150), np.ones(150))
        found = evaluation._paired_difference(model, base, np.arange(150), config)
        hits += found["low"] <= 0.3 <= found["high"]
    assert 0.90 <= hits / 200 <= 0.985


@pytest.mark.dist
def test_a_base_without_a_head_is_not_comparable(shards: Path, models: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    headless = tmp_path / "encoder"
    AutoModelForMaskedLM.from_pretrained(models["b"]).bert.save_pretrained(headless)
    shutil.copytree(shards / "tokenizer", headless, dirs_exist_ok=True)
    words = [f"model={models['a']}", f"base={headless}", f"data.path={shards}", f"output={tmp_path}/eval", "device=cpu"]
    said = stage("evaluate", *words).stdout
    assert "not comparable" in said and "helped" not in said.replace("Whether adaptation helped cannot be said", "")
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert metrics["difference"] is None
    assert metrics["base"]["comparable"] is False and metrics["base"]["loss"] is None
    # Again: its own complete output is left alone; other settings are refused.
    assert "complete already" in stage("evaluate", *words).stdout
    assert "other settings" in failure("evaluate", *words, "seed=5")


def test_what_weakens_the_figures_is_said(shards: Path, models: dict[str, Path], tmp_path: Path) -> None:
    # The same texts and tokenizer, held out otherwise: the model may have been trained on what is held out here.
    others = make_shards(tmp_path / "data", tokenizer=str(shards / "tokenizer"), seed=1)
    noted = evaluate(config_of(others, models["a"], max_tweets=30))["notes"]
    assert len(noted) == 2 and "only" in noted[0] and "other shards" in noted[1]
    assert not any("other shards" in note for note in evaluate(config_of(shards, models["a"]))["notes"])


def test_too_few_tweets_allow_no_verdict() -> None:
    score = Score(np.ones(30), np.zeros(30), np.ones(30))
    difference = {"loss": -1.0, "low": -1.0, "high": -1.0, "clusters": 19}
    few = evaluation.verdict(EvaluateConfig(base="b"), score, difference, None)
    assert "cannot be said" in few and "19 held-out" in few
    assert "helped:" in evaluation.verdict(EvaluateConfig(base="b"), score, {**difference, "clusters": 20}, None)


def test_what_cannot_be_evaluated_is_said(shards: Path, models: dict[str, Path], tmp_path: Path) -> None:
    empty = make_shards(tmp_path / "data", validation_fraction=0.0)
    with pytest.raises(UserError, match="validation split is empty"):
        evaluate(config_of(empty, export_scratch(tmp_path / "model", empty, 0)))
    other = make_shards(tmp_path / "other", vocabulary_size=300)
    with pytest.raises(UserError, match="recipe is not that of the shards: tokenizer"):
        evaluate(config_of(other, models["a"]))
    with pytest.raises(UserError, match="no such folder"):
        evaluate(config_of(shards, tmp_path / "nothing"))
    short = config_of(shards, models["a"])
    short.data.row_length = 16
    with pytest.raises(UserError, match="shorter than the shards' longest tweet"):
        evaluate(short)

"""evaluate: the same masks for both models, intervals that cover, and no gain claimed without a comparable base."""

from __future__ import annotations

import json
import math
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
from bert_tweets.training.evaluate import TweetScores, outcome_of
from bert_tweets.training.messages import evaluation_verdict
from bert_tweets.training.records import (
    Evaluation,
    ModelScores,
    Outcome,
    PairedDifference,
    read_evaluation,
    write_evaluation,
)
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


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Evaluate with one rank."""
    found = evaluation.evaluate(config, world_from_environment(config.device))
    assert found is not None
    return found


def compare(config: EvaluateConfig) -> PairedDifference:
    difference = evaluate(config).difference
    assert difference is not None
    return difference


def test_a_model_compared_with_itself_differs_by_nothing(shards: Path, models: dict[str, Path]) -> None:
    found = evaluate(config_of(shards, models["a"], models["a"]))
    assert found.model == found.base
    assert found.difference is not None
    assert found.difference.loss == found.difference.low == found.difference.high == 0
    assert found.outcome is Outcome.NO_EFFECT and "No effect" in found.verdict


def test_swapping_the_models_flips_the_sign(shards: Path, models: dict[str, Path]) -> None:
    there, back = (compare(config_of(shards, models[one], models[other])) for one, other in ("ab", "ba"))
    assert there.loss == pytest.approx(-back.loss) and there.loss != 0
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.low < there.loss < there.high


def test_figures_do_not_depend_on_the_layout(shards: Path, models: dict[str, Path]) -> None:
    wide, narrow = (
        evaluate(config_of(shards, models["a"], tokens_per_device=tokens)).model for tokens in (128, 16_384)
    )
    assert wide.loss == pytest.approx(narrow.loss, rel=1e-6)
    assert wide.masked_tokens == narrow.masked_tokens and wide.accuracy == narrow.accuracy


def test_the_loss_equals_that_of_the_stock_model_on_the_same_masks(shards: Path, models: dict[str, Path]) -> None:
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
    scores = evaluate(config_of(shards, models["a"])).model
    assert scores.masked_tokens == masked
    assert scores.loss == pytest.approx(total / masked, rel=1e-5)
    assert scores.perplexity == pytest.approx(np.exp(total / masked), rel=1e-4)


def test_copies_are_resampled_together() -> None:
    """Ten copies of each tweet are no more evidence than one: the interval must not shrink."""
    generator = np.random.default_rng(0)
    loss = generator.gamma(2, 1, 60)
    config = EvaluateConfig(bootstrap_samples=4000)

    def width(copies: int, clusters: np.ndarray) -> float:
        score = TweetScores(np.tile(loss, copies), np.zeros(60 * copies), np.ones(60 * copies))
        found = evaluation._model_scores("m", score, clusters, config)
        return found.high - found.low

    def paired(copies: int, clusters: np.ndarray) -> float:
        nothing, ones = np.zeros(60 * copies), np.ones(60 * copies)
        model, base = TweetScores(np.tile(loss, copies), nothing, ones), TweetScores(ones, nothing, ones)
        found = evaluation._paired_difference(model, base, clusters, config)
        return found.high - found.low

    assert paired(10, np.tile(np.arange(60), 10)) == pytest.approx(paired(1, np.arange(60)), rel=0.1)
    assert paired(10, np.arange(600)) < paired(1, np.arange(60)) / 2
    once = width(1, np.arange(60))
    assert width(10, np.tile(np.arange(60), 10)) == pytest.approx(once, rel=0.1)
    assert width(10, np.arange(600)) < once / 2


def test_a_95_percent_interval_covers_the_truth_about_95_percent_of_the_time() -> None:
    generator, hits = np.random.default_rng(1), 0
    config = EvaluateConfig(bootstrap_samples=400)
    for _ in range(200):
        difference = generator.normal(0.3, 1.0, 150)
        base = TweetScores(np.ones(150) * 5, np.zeros(150), np.ones(150))
        model = TweetScores(base.loss + difference, np.zeros(150), np.ones(150))
        found = evaluation._paired_difference(model, base, np.arange(150), config)
        hits += found.low <= 0.3 <= found.high
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
    found = read_evaluation(tmp_path / "eval")
    assert found.difference is None and found.base is None and found.outcome is Outcome.NOT_COMPARABLE
    assert found.excluded_base is not None and found.excluded_base.name == str(headless)
    # Rerun: a complete output of the same settings is left alone; other settings are rejected.
    assert "complete already" in stage("evaluate", *words).stdout
    assert "other settings" in failure("evaluate", *words, "seed=5")


def test_weak_figures_come_with_notes(shards: Path, models: dict[str, Path], tmp_path: Path) -> None:
    # The same texts and tokenizer with another split: the model may have been trained on what is held out here.
    others = make_shards(tmp_path / "data", tokenizer=str(shards / "tokenizer"), seed=1)
    notes = evaluate(config_of(others, models["a"], max_tweets=30)).notes
    assert len(notes) == 2 and "only" in notes[0] and "other shards" in notes[1]
    assert not any("other shards" in note for note in evaluate(config_of(shards, models["a"])).notes)


SCORES = ModelScores("m", 1.0, 0.9, 1.1, math.e, 0.5, 100, 30)


@pytest.mark.parametrize(
    ("low", "high", "clusters", "outcome", "words"),
    [
        (-1.5, -0.5, 19, Outcome.TOO_FEW, "cannot be said: 19 held-out tweets are too few"),
        (-1.5, -0.5, 20, Outcome.HELPED, "helped: the masked loss on held-out tweets fell by 1.000"),
        (-1.5, 0.5, 20, Outcome.NO_EFFECT, "No effect"),
        (0.5, 1.5, 20, Outcome.HARMED, "did harm: the masked loss on held-out tweets rose by 1.000"),
    ],
)
def test_the_verdict_follows_from_the_interval(
    low: float, high: float, clusters: int, outcome: Outcome, words: str
) -> None:
    difference = PairedDifference((low + high) / 2 if low * high > 0 else -0.1, low, high, 0.0, clusters, 2000)
    assert outcome_of(difference, None) is outcome
    assert words in evaluation_verdict(outcome, SCORES, None, difference)


def test_what_cannot_be_evaluated_is_an_error(shards: Path, models: dict[str, Path], tmp_path: Path) -> None:
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


@pytest.mark.parametrize("change", [{"model": {"loss": "low"}}, {"outcome": "unknown"}, {"extra": 1}])
def test_a_damaged_record_is_an_error(tmp_path: Path, change: dict[str, Any]) -> None:
    whole = Evaluation(SCORES, None, None, None, Outcome.NO_BASE, "…", {"model": "w"}, "r", "d", 0)
    write_evaluation(tmp_path, whole)
    assert read_evaluation(tmp_path) == whole
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=r"metrics\.json: is damaged"):
        read_evaluation(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="evaluate has not finished there"):
        read_evaluation(tmp_path)

"""emoji=tokens through the whole pipeline: shards, a stock model with the new tokens, training, evaluation, vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from bert_tweets import embed
from bert_tweets.config import DataConfig, EvaluateConfig, ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.corpus.text.tokenizer import fingerprint, load_tokenizer, train_wordpiece
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import load_model
from tests.helpers import generated_tweets, make_shards
from tests.model.tiny import SIZES
from tests.processes import stage
from tests.test_evaluate import evaluate

ADDED = ["😂", "👩🏽‍💻", "😷"]
WORDS = ["mask", "😂", "😷", "👩🏽‍💻"]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock model whose tokenizer has no emoji."""
    folder = tmp_path_factory.mktemp("stock") / "model"
    tokenizer = train_wordpiece([[text.encode("ascii", "ignore").decode() for text in generated_tweets(400)]], 240)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "pad_token_id": 0}
    model = BertForMaskedLM(BertConfig(**{**SIZES, **sizes}))
    with torch.no_grad():
        model.cls.predictions.bias.normal_(0.0, 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def with_emoji(stock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emoji")
    return make_shards(folder, tokenizer=str(stock), emoji="tokens", emoji_vocabulary=5)


@pytest.fixture(scope="module")
def trained(stock: Path, with_emoji: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The model of a short run from the stock model, and what it printed."""
    run = tmp_path_factory.mktemp("trained") / "run"
    return run / "model", train(with_emoji, stock, run)


def train(shards: Path, model: Path, run: Path) -> str:
    settings = ["max_steps=3", "batch_size=32", "device=cpu", "precision=fp32", "optimizer.learning_rate=1e-3"]
    return stage("train", f"data.path={shards}", f"model.name={model}", f"output={run}", *settings).stdout


def config_of(shards: Path, model: Path, base: Path) -> EvaluateConfig:
    return EvaluateConfig(str(model), str(base), output="-", data=DataConfig(path=str(shards)), device="cpu")


def test_the_shards_tokenizer_is_the_stock_one_plus_the_inputs_emoji(stock: Path, with_emoji: Path) -> None:
    manifest, tokenizer = Manifest.read(with_emoji), load_tokenizer(str(with_emoji / "tokenizer"))
    assert sorted(added.token for added in manifest.recipe.added) == sorted(ADDED)
    assert manifest.vocabulary_size == len(tokenizer) == 240 + len(ADDED)
    assert manifest.recipe.tokenizer == fingerprint(tokenizer)
    assert manifest.recipe.base_tokenizer == fingerprint(load_tokenizer(str(stock)))
    assert not set(tokenizer.convert_tokens_to_ids(ADDED)) & set(manifest.special_ids)


def test_each_added_emoji_is_a_word_of_one_token(with_emoji: Path) -> None:
    manifest, tokenizer = Manifest.read(with_emoji), load_tokenizer(str(with_emoji / "tokenizer"))
    split = open_split(with_emoji, manifest, "train")
    for shard in range(len(split.shards)):
        for row in split.batch(shard).select(["input_ids", "word_starts", "text"]).to_pylist():
            tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
            for emoji in ADDED:
                assert tokens.count(emoji) == row["text"].split().count(emoji)
    assert not manifest.unknown_tokens


def test_before_training_model_and_base_give_equal_results(stock: Path, with_emoji: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(with_emoji)
    loaded = load_model(ModelConfig(name=str(stock)), manifest)
    export_model(tmp_path / "model", loaded.model, None, manifest, str(with_emoji))
    evaluation = evaluate(config_of(with_emoji, tmp_path / "model", stock))
    assert evaluation and evaluation.base and evaluation.difference
    assert replace(evaluation.model, name="") == replace(evaluation.base, name="")
    assert evaluation.difference.loss == evaluation.difference.low == evaluation.difference.high == 0
    vectors_of(with_emoji, tmp_path / "model", stock, tmp_path / "words")
    assert (tmp_path / "words" / "vectors.txt").read_bytes() == (tmp_path / "words" / "base_vectors.txt").read_bytes()


def vectors_of(shards: Path, model: Path, base: Path, output: Path) -> None:
    settings = [f"words=[{','.join(WORDS)}]", "layers=-1", "device=cpu", "controls=0"]
    embed.stage([f"model={model}", f"base={base}", f"data.path={shards}", f"output={output}", *settings])


@pytest.mark.dist
def test_a_stock_model_is_trained_on_added_emoji_and_exported_with_them(
    stock: Path, with_emoji: Path, trained: tuple[Path, str]
) -> None:
    folder, printed = trained
    assert f"gets {len(ADDED)} tokens" in printed
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer) == 240 + len(ADDED)
    initial = load_model(ModelConfig(name=str(stock)), Manifest.read(with_emoji)).model
    changed = (model.get_input_embeddings().weight != initial.get_input_embeddings().weight).any(dim=1)
    assert changed[-len(ADDED) :].all()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.dist
def test_model_and_stock_base_are_evaluated_on_the_same_tokens(
    stock: Path, with_emoji: Path, trained: tuple[Path, str], tmp_path: Path
) -> None:
    evaluation = evaluate(config_of(with_emoji, trained[0], stock))
    assert evaluation and evaluation.base and evaluation.difference
    assert evaluation.base.masked_tokens == evaluation.model.masked_tokens > 0
    assert evaluation.difference.loss != 0
    vectors_of(with_emoji, trained[0], stock, tmp_path / "words")
    rows = pq.read_table(tmp_path / "words" / "occurrences.parquet", columns=["word", "model", "status"]).to_pylist()
    assert {(row["word"], row["model"]) for row in rows} == {
        (word, role) for word in WORDS for role in ("model", "base")
    }
    assert {row["status"] for row in rows} == {"found"}


@pytest.mark.dist
def test_the_adapted_model_is_trained_further_and_its_tokenizer_prepares_the_same_recipe(
    stock: Path, with_emoji: Path, trained: tuple[Path, str], tmp_path: Path
) -> None:
    assert "takes on" not in train(with_emoji, trained[0], tmp_path / "run")
    again = make_shards(tmp_path / "again", generated_tweets(100, seed=1), tokenizer=str(trained[0]))
    assert Manifest.read(again).recipe == Manifest.read(with_emoji).recipe
    evaluate(config_of(again, trained[0], stock))

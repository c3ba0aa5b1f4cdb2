"""The experiment of docs/answer.md: each loop makes exactly the mistake it is named for, and all are measured alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from benchmarks import answer
from benchmarks.answer_arms import ARMS, IGNORED, LENGTH, Tweets, losses_of, without_bias_correction
from benchmarks.answer_tweets import use_of
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.model.loading import load_model
from tests.helpers import generated_tweets, write_csv


@pytest.fixture(scope="module")
def models(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny BERT with its masked-LM head, and the same without it."""
    folder = tmp_path_factory.mktemp("models")
    model = load_model(ModelConfig(name="scratch"), Manifest.read(shards)).model
    for name, part in (("whole", model), ("encoder", model.bert)):
        part.save_pretrained(folder / name)
        load_tokenizer(str(shards / "tokenizer")).save_pretrained(folder / name)
    return folder / "whole", folder / "encoder"


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_differs_in_its_labels_only_by_its_mistake(name: str, shards: Path) -> None:
    arm, tweets = ARMS[name], Tweets(shards, "train")
    special = torch.tensor(tweets.tokenizer.all_special_ids)
    labelled = real = 0
    for batch, first in zip(tweets.batches(20, arm), range(0, len(tweets), 20), strict=True):
        rows = tweets.rows[first : first + 20]
        has_label = batch.labels != IGNORED
        assert (batch.labels[~batch.real & has_label] == tweets.manifest.pad_id).all()
        assert has_label[~batch.real].all() if arm.padding else not has_label[~batch.real].any()
        assert batch.labels.shape[1] == (LENGTH if arm.padding else max(map(len, rows)))
        original = torch.cat(rows)
        real_label = has_label[batch.real]
        assert (batch.labels[batch.real][real_label] == original[real_label]).all()
        if arm.labels == "inputs":
            assert real_label.all() and (batch.input_ids[batch.real] == original).all()
        else:
            assert not (real_label & torch.isin(original, special)).any()
            assert (batch.input_ids[batch.real][~real_label] == original[~real_label]).all()
        labelled, real = labelled + int(real_label.sum()), real + int((~torch.isin(original, special)).sum())
    if arm.labels == "masked":
        assert labelled / real == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("name", ARMS)
def test_the_loss_equals_the_stock_models(name: str, shards: Path, models: tuple[Path, Path]) -> None:
    model, arm = AutoModelForMaskedLM.from_pretrained(models[0]).eval(), ARMS[name]
    batch = next(iter(Tweets(shards, "train").batches(20, arm)))
    mask = None if arm.as_in_question else batch.real.long()
    expected = model(input_ids=batch.input_ids, attention_mask=mask, labels=batch.labels).loss
    loss = losses_of(model, batch, arm, "fp32").sum() / (batch.labels != IGNORED).sum()
    torch.testing.assert_close(loss, expected)


def test_the_learning_rate_undoes_the_bias_correction() -> None:
    weight, mean, square = torch.nn.Parameter(torch.ones(3)), torch.zeros(3), torch.zeros(3)
    expected = weight.detach().clone()
    optimizer = torch.optim.AdamW([weight], lr=0.0, weight_decay=0.0)
    for step in range(1, 30):
        gradient = torch.tensor([1.0, -20.0, 0.3]) * step
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        expected -= 1e-2 * mean / (square.sqrt() + 1e-8)
        weight.grad, optimizer.param_groups[0]["lr"] = gradient, without_bias_correction(1e-2, step)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_a_use_is_recognised_if_exactly_one_pattern_matches() -> None:
    def use(word: str, text: str) -> str | None:
        return use_of(word, text, text.lower().index(word))

    assert use("talk", "I want to talk") == "to talk" and use("talk", "I will attend a TALK") == "a talk"
    assert use("talk", "talk!") is None
    assert use("apple", "my Apple iPhone") == "the company" and use("apple", "Apple pie") == "the fruit"
    assert use("apple", "an apple pie next to my iPhone") is None


@pytest.mark.parametrize("arguments", [["data=no/such.csv"], ["model=nowhere"]])
def test_a_missing_path_is_a_one_line_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*give (data|model)=PATH") as end:
        answer.main(arguments)
    assert "\n" not in str(end.value)


@pytest.mark.slow
def test_a_small_experiment_writes_all_rows_and_the_plot(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(answer, "_CURVE", (1,))
    texts = generated_tweets(700)
    starts = ("I want to talk to", "there was a talk about", "my apple iphone and", "apple pie for")
    rows = [(f"{starts[number % 4]} {text}" if number % 3 else text,) for number, text in enumerate(texts)]
    data = write_csv(tmp_path / "tweets.csv", ["text"], rows)
    small = ("tweets=40", "held_out=40", "general=100", "background=300", "base_steps=1", "seeds=1", "precision=fp32")
    arguments = [f"data={data}", f"model={models[1]}", f"work={tmp_path}/work", f"output={tmp_path}/out/answer", *small]
    with pytest.raises(SystemExit) as end:
        answer.main([*arguments, "seconds=0.001"])
    assert end.value.code == 75
    answer.main(arguments)
    assert "inputs as labels" in capsys.readouterr().out
    assert (tmp_path / "out" / "answer.png").stat().st_size > 1000

    header, *rows = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert str(tmp_path) not in json.dumps(header)
    arms: dict[str, Any] = {row["who"]: row for row in rows if row["kind"] == "arm"}
    assert arms.keys() == {"base", "unigram", answer.OURS, answer.LONGER, *ARMS}
    assert len({row["masked"]["masked_tokens"] for row in arms.values()}) == 1, "evaluated on different tokens"
    change = {name: row["input_matrix_change"]["all"] for name, row in arms.items()}
    assert change["base"] == 0 < change["rate of 1e-2"]
    assert {arms[name]["steps"] for name in (answer.OURS, *ARMS)} == {arms["corrected loop"]["steps"]}
    padding = {row["who"]: row for row in rows if row["kind"] == "padding"}
    assert 0 < padding["question"]["share_of_labels"] < padding["padding counted"]["share_of_labels"] < 1
    assert [row["word"] for row in rows if row["kind"] == "occurrences"] == ["talk", "apple"]
    assert all(0 <= row["contextual_overlap"] <= 1 for row in rows if row["kind"] == "movement")

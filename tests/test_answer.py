"""The runs behind docs/answer.md: each loop makes the one mistake that it is named for, and all are measured alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from benchmarks import answer
from benchmarks.answer_arms import ARMS, IGNORED, LENGTH, Tweets, losses_of, uncorrected
from benchmarks.answer_tweets import use_of
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.model.loading import load_model
from tests.helpers import generated_tweets, write_csv


@pytest.fixture(scope="module")
def models(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny BERT with its head, and the same without."""
    folder = tmp_path_factory.mktemp("models")
    model = load_model(ModelConfig(name="scratch"), Manifest.read(shards)).model
    for name, part in (("whole", model), ("encoder", model.bert)):
        part.save_pretrained(folder / name)
        load_tokenizer(str(shards / "tokenizer")).save_pretrained(folder / name)
    return folder / "whole", folder / "encoder"


@pytest.mark.parametrize("name", ARMS)
def test_labels_are_those_of_the_mistake_alone(name: str, shards: Path) -> None:
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
        here = has_label[batch.real]
        assert (batch.labels[batch.real][here] == original[here]).all()
        if arm.labels == "inputs":
            assert here.all() and (batch.input_ids[batch.real] == original).all()
        else:
            assert not (here & torch.isin(original, special)).any()
            assert (batch.input_ids[batch.real][~here] == original[~here]).all()
        labelled, real = labelled + int(here.sum()), real + int((~torch.isin(original, special)).sum())
    if arm.labels == "masked":
        assert labelled / real == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("name", ARMS)
def test_the_loss_is_that_of_the_stock_model(name: str, shards: Path, models: tuple[Path, Path]) -> None:
    model, arm = AutoModelForMaskedLM.from_pretrained(models[0]).eval(), ARMS[name]
    batch = next(iter(Tweets(shards, "train").batches(20, arm)))
    mask = None if arm.as_asked else batch.real.long()
    expected = model(input_ids=batch.input_ids, attention_mask=mask, labels=batch.labels).loss
    found = losses_of(model, batch, arm, "fp32").sum() / (batch.labels != IGNORED).sum()
    torch.testing.assert_close(found, expected)


def test_the_rate_undoes_the_bias_correction() -> None:
    weight, mean, square = torch.nn.Parameter(torch.ones(3)), torch.zeros(3), torch.zeros(3)
    expected = weight.detach().clone()
    optimizer = torch.optim.AdamW([weight], lr=0.0, weight_decay=0.0)
    for step in range(1, 30):
        gradient = torch.tensor([1.0, -20.0, 0.3]) * step
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        expected -= 1e-2 * mean / (square.sqrt() + 1e-8)
        weight.grad, optimizer.param_groups[0]["lr"] = gradient, uncorrected(1e-2, step)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_a_use_is_told_where_one_pattern_alone_fits() -> None:
    def use(word: str, text: str) -> str | None:
        return use_of(word, text, text.lower().index(word))

    assert use("talk", "I want to talk") == "to talk" and use("talk", "I will attend a TALK") == "a talk"
    assert use("talk", "talk!") is None
    assert use("apple", "my Apple iPhone") == "the company" and use("apple", "Apple pie") == "the fruit"
    assert use("apple", "an apple pie beside my iPhone") is None


@pytest.mark.parametrize("words", [[], ["data=no/such.csv"], ["model=nowhere"]])
def test_what_is_missing_is_told_in_one_line(words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*give (data|model)=PATH") as end:
        answer.main(words)
    assert "\n" not in str(end.value)


@pytest.mark.slow
def test_the_whole_answer_in_small(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(answer, "_CURVE", (1,))
    texts = generated_tweets(700)
    said = ("I want to talk to", "there was a talk about", "my apple iphone and", "apple pie for")
    rows = [(f"{said[number % 4]} {text}" if number % 3 else text,) for number, text in enumerate(texts)]
    data = write_csv(tmp_path / "tweets.csv", ["text"], rows)
    small = ("tweets=40", "held_out=40", "general=100", "background=300", "base_steps=1", "seeds=1", "precision=fp32")
    words = [f"data={data}", f"model={models[1]}", f"work={tmp_path}/work", f"output={tmp_path}/out/answer", *small]
    with pytest.raises(SystemExit) as end:
        answer.main([*words, "seconds=0.001"])
    assert end.value.code == 75
    answer.main(words)
    assert "inputs as labels" in capsys.readouterr().out
    assert (tmp_path / "out" / "answer.png").stat().st_size > 1000

    about, *found = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert str(tmp_path) not in json.dumps(about)
    arms: dict[str, Any] = {row["who"]: row for row in found if row["part"] == "arm"}
    assert arms.keys() == {"base", "unigram", answer.OURS, answer.LONGER, *ARMS}
    assert len({row["masked"]["masked_tokens"] for row in arms.values()}) == 1, "asked for other tokens"
    assert arms["base"]["input_rows"]["all"] == 0 < arms["rate of 1e-2"]["input_rows"]["all"]
    assert {arms[name]["steps"] for name in (answer.OURS, *ARMS)} == {arms["corrected loop"]["steps"]}
    padding = {row["who"]: row for row in found if row["part"] == "padding"}
    assert 0 < padding["question"]["share_of_labels"] < padding["padding counted"]["share_of_labels"] < 1
    assert [row["word"] for row in found if row["part"] == "occurrences"] == ["talk", "apple"]
    assert all(0 <= row["contextual_overlap"] <= 1 for row in found if row["part"] == "movement")

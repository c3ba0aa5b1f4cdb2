"""meaning-test: threshold from some pairs, tested on others, with the same resamples of words for model and base."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from bert_tweets import cli
from bert_tweets.common.errors import UserError
from bert_tweets.meaning_test import stage
from bert_tweets.words.meaning_test.pair_files import read_pairs
from bert_tweets.words.statistics.pair_metrics import cosines, weighted_auc
from tests.helpers import make_shards
from tests.test_evaluate import export_scratch

WORDS = ["mask", "virus", "internet", "government", "no"]
CONTEXTS = [["I wear a {} today", "she wears the {} again"], ["they tax {} rates", "taxes on {} go up"]]


def pairs(path: Path, count: int, seed: int, inverted: bool = False) -> Path:
    """SuperGLUE's lines: of the same meaning if both texts are of one kind."""
    random, lines = np.random.default_rng(seed), []
    for number in range(count):
        word, kinds = WORDS[random.integers(len(WORDS))], random.integers(0, 2, 2)
        record: dict[str, Any] = {"idx": number, "word": word, "label": bool((kinds[0] == kinds[1]) != inverted)}
        for side, kind in enumerate(kinds.tolist(), 1):
            before, _, after = CONTEXTS[kind][random.integers(2)].partition("{}")
            record |= {f"sentence{side}": f"{before}{word}{after}", f"start{side}": len(before)}
            record |= {f"end{side}": len(before) + len(word)}
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    shards = make_shards(folder / "shards")
    return export_scratch(folder / "first", shards, 1), export_scratch(folder / "second", shards, 2)


def run(output: Path, *more: str) -> dict[str, Any]:
    stage([*more, f"output={output}"])
    found: dict[str, Any] = json.loads((output / "meaning.json").read_text(encoding="utf-8"))
    return found


def test_a_threshold_chosen_on_some_pairs_is_tested_on_others(
    tmp_path: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train, test, inverted = (pairs(tmp_path / f"{seed}.jsonl", 60, seed, seed == 3) for seed in (1, 2, 3))
    settings = [f"train={train}", f"model={models[0]}", f"base={models[1]}", "bootstrap_samples=200"]
    found = run(tmp_path / "out", f"test={test},{inverted}", *settings)
    first, second = found["tests"]
    assert (first["pairs"], first["scored"], first["words"], second["file"]) == (60, 60, 5, str(inverted))
    for role in ("model", "base"):
        chosen = found["thresholds"][role]
        assert chosen["layer"] in ["0", "1"] and -1 <= chosen["threshold"] <= 1
        low, high = first[role]["macro_f1"][1:]
        assert 0 <= low <= first[role]["macro_f1"][0] <= high <= 1
    for name in ("macro_f1", "accuracy", "auc"):
        assert first["difference"][name][0] == pytest.approx(first["model"][name][0] - first["base"][name][0])
    # Inverted judgements invert the AUC, and it is reported so.
    assert first["model"]["auc"][0] > 0.5 > second["model"]["auc"][0]
    printed = capsys.readouterr()
    assert re.search(r"3\.jsonl: AUC of the model is 0\.\d+, below 0\.5: .* the sign is not flipped", printed.err)
    assert "its pairs are of 5 word(s), too few to trust the intervals" in printed.err
    assert f"chosen on {train}" in printed.out and "macro-F1" in printed.out
    # The test pairs have no influence on the choice.
    alone = run(tmp_path / "alone", str(inverted), *settings)
    assert alone["thresholds"] == found["thresholds"] and alone["tests"] == [second]
    stage([str(inverted), *settings, f"output={tmp_path / 'alone'}"])
    assert "is complete already" in capsys.readouterr().out


def test_scores_are_those_of_the_plain_model(tmp_path: Path, models: tuple[Path, Path]) -> None:
    """Compared with `transformers`, a text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    train, test = pairs(tmp_path / "train.jsonl", 40, 1), pairs(tmp_path / "test.jsonl", 30, 2)
    settings = [f"train={train}", f"model={models[0]}", "layers=[1]", "bootstrap_samples=100"]
    found = run(tmp_path / "out", str(test), *settings)
    tokenizer, model = AutoTokenizer.from_pretrained(models[0]), AutoModel.from_pretrained(models[0]).eval()
    pair_file, vectors = read_pairs(str(test)), []
    for text, start, end in zip(pair_file.texts, pair_file.start.tolist(), pair_file.end.tolist(), strict=True):
        # The recipe's cleaning does not change these texts.
        encoded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        offsets = encoded.pop("offset_mapping")[0].tolist()
        mine = [place for place, (first, last) in enumerate(offsets) if first < last and first < end and last > start]
        with torch.inference_mode():
            states = model(**encoded, output_hidden_states=True).hidden_states[1][0]
        vectors.append(states[mine].mean(dim=0).numpy())
    expected = cosines(np.array(vectors[::2]), np.array(vectors[1::2]))
    auc = weighted_auc(expected, pair_file.same, np.ones((1, 30)))[0]
    assert found["tests"][0]["model"]["auc"][0] == pytest.approx(auc, abs=1e-3)
    predicted = expected >= found["thresholds"]["model"]["threshold"]
    assert found["tests"][0]["model"]["accuracy"][0] == pytest.approx((predicted == pair_file.same).mean(), abs=1 / 29)
    assert found["thresholds"]["model"]["layer"] == "1" and found["tests"][0]["difference"] is None


def test_training_pairs_in_the_test_are_reported(tmp_path: Path, models: tuple[Path, Path], capsys: Any) -> None:
    """In another order, and with their texts swapped."""
    train, rows = pairs(tmp_path / "train.jsonl", 40, 1), []
    for line in train.read_text().splitlines()[:7]:
        row = json.loads(line)
        swapped = {
            f"{name}{3 - side}": row[f"{name}{side}"] for name in ("sentence", "start", "end") for side in (1, 2)
        }
        rows.append(json.dumps({**row, **swapped}))
    other = json.dumps({**row, "sentence1": f"{row['sentence1']} and nowhere else"})
    (tmp_path / "test.jsonl").write_text("\n".join([*rows[::-1], other]))
    settings = [f"train={train}", f"model={models[0]}", "bootstrap_samples=100"]
    found = run(tmp_path / "out", str(tmp_path / "test.jsonl"), *settings)["tests"][0]
    assert (found["pairs"], found["in_train"]) == (8, 7)
    assert "7 of its pairs are training pairs too" in capsys.readouterr().err
    again = pairs(tmp_path / "again.jsonl", 40, 1)
    again.write_text("\n".join(again.read_text().splitlines()[::-1]))
    with pytest.raises(UserError, match="has the same pairs as train"):
        stage([str(again), *settings, f"output={tmp_path / 'again'}"])


def test_a_model_that_diverged_is_rejected(tmp_path: Path, models: tuple[Path, Path]) -> None:
    train, test = pairs(tmp_path / "train.jsonl", 40, 1), pairs(tmp_path / "test.jsonl", 40, 2)
    shutil.copytree(models[0], tmp_path / "diverged")
    weights = load_file(tmp_path / "diverged/model.safetensors")
    weights["bert.embeddings.LayerNorm.weight"][3] = float("nan")
    save_file(weights, tmp_path / "diverged/model.safetensors", {"format": "pt"})
    settings = [f"train={train}", f"model={models[0]}", f"base={tmp_path / 'diverged'}", "bootstrap_samples=100"]
    with pytest.raises(UserError, match="diverged: some vectors contain NaN"):
        run(tmp_path / "out", str(test), *settings)


def test_one_word_has_no_interval(tmp_path: Path, models: tuple[Path, Path], capsys: Any) -> None:
    train, test = pairs(tmp_path / "train.jsonl", 40, 1), pairs(tmp_path / "test.jsonl", 80, 2)
    test.write_text("\n".join(line for line in test.read_text().splitlines() if '"word": "mask"' in line))
    found = run(tmp_path / "out", str(test), f"train={train}", f"model={models[0]}", "bootstrap_samples=100")
    value, low, high = found["tests"][0]["model"]["macro_f1"]
    assert found["tests"][0]["words"] == 1 and 0 <= value <= 1 and low is None and high is None
    assert f"{value:.3f} (no interval)" in capsys.readouterr().out


def test_mistakes_end_in_one_line(tmp_path: Path, models: tuple[Path, Path]) -> None:
    train = pairs(tmp_path / "train.jsonl", 20, 1)
    settings = [f"model={models[0]}", f"output={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="has the same pairs as train"):
        stage([str(train), f"train={train}", *settings])
    with pytest.raises(UserError, match="labels: lists 2 files for 1 test files"):
        stage([str(train), f"train={train}", "labels=a,b", *settings])
    one = [line for line in train.read_text().splitlines() if '"label": true' in line]
    (tmp_path / "one.jsonl").write_text("\n".join(one))
    with pytest.raises(UserError, match="all pairs have the same label"):
        stage([str(train), f"train={tmp_path / 'one.jsonl'}", *settings])
    with pytest.raises(UserError, match="train: is required"):
        cli.stage(["meaning-test", str(train), *settings])
    assert not (tmp_path / "out").exists()


def test_a_word_that_is_lost_is_not_scored(tmp_path: Path, models: tuple[Path, Path], capsys: Any) -> None:
    train, test = pairs(tmp_path / "train.jsonl", 40, 1), pairs(tmp_path / "test.jsonl", 40, 2)
    lost = {
        "word": "漢",
        "sentence1": "漢",
        "start1": 0,
        "end1": 1,
        "sentence2": "漢",
        "start2": 0,
        "end2": 1,
        "label": 1,
    }
    test.write_text(test.read_text() + "\n" + json.dumps(lost))
    settings = [f"train={train}", f"model={models[0]}", "bootstrap_samples=100"]
    found = run(tmp_path / "out", str(test), *settings)["tests"][0]
    assert (found["pairs"], found["scored"], found["words"]) == (41, 40, 5)
    assert "1 of 41 pairs are not scored" in capsys.readouterr().err

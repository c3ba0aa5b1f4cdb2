"""A loss or a gradient that is not finite: all ranks skip the same step, whatever the engine, and it is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bert_tweets.data.batches import Step
from bert_tweets.data.manifest import Manifest
from bert_tweets.data.order import Stream
from bert_tweets.data.shards import open_split
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.errors import UserError
from bert_tweets.training.loop import train
from bert_tweets.training.metrics import JsonLines
from bert_tweets.training.skipped import SkippedSteps
from bert_tweets.training.validation import Validation
from tests.processes import run
from tests.training.runs import config_of, lines_of, model_of, short_tweets, words_of

LAUNCHES = str(Path(__file__).parent / "launches.py")
ENGINES = {"ddp": [], "ddp-bf16": ["precision=bf16"], "ddp-weights": ["precision=bf16_weights"]} | {
    f"zero{stage}": ["engine.name=deepspeed", f"engine.zero_stage={stage}"] for stage in range(4)
}
MORE = ["batch_size=6", "max_steps=6", "log.every_steps=2", "validation.patience=0"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_tweets(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """Runs in whose third step rank 1 of two has a loss that is no number, and one at a budget of none."""
    folder = tmp_path_factory.mktemp("runs")
    launches = [words_of(shards, folder / name, *MORE, *more) for name, more in ENGINES.items()]
    launches.append(words_of(shards, folder / "budget", *MORE, "max_skipped_steps=0"))
    (folder / "launches.json").write_text(json.dumps(launches))
    broken = {"NOT_FINITE_AT": "2", "NOT_FINITE_RANK": "1"}
    done = run([LAUNCHES, str(folder / "launches.json")], processes=2, **broken)
    assert done.returncode == 0, done.stderr
    (folder / "alone.json").write_text(json.dumps([words_of(shards, folder / "alone", *MORE)]))
    done = run([LAUNCHES, str(folder / "alone.json")], **{**broken, "NOT_FINITE_RANK": "0"})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.dist
@pytest.mark.parametrize("engine", ENGINES)
def test_all_ranks_skip_the_step_and_go_on(runs: Path, shards: Path, engine: str) -> None:
    run, alone = runs / engine, runs / "alone"
    exact = "-" not in engine
    for mine, theirs in zip(lines_of(run), lines_of(alone), strict=True):
        assert mine["loss_mean"] == pytest.approx(theirs["loss_mean"], abs=1e-5 if exact else 1e-2)
        assert mine["grad_norm"] is not None
    if exact:
        for name, weight in model_of(alone).items():
            assert np.abs(model_of(run)[name] - weight).max() < (1e-2 if name.endswith("key.bias") else 1e-5), name
    (line,) = [json.loads(text) for text in (run / "skipped.jsonl").read_text().splitlines()]
    manifest = Manifest.read(shards)
    stream = Stream(manifest.rows("train"), 0, 6, 36)
    tweets = stream.slice(2, 0, 1)[1]
    assert line["step"] == 3 and line["tweets"] == tweets.tolist()
    assert line["ids"] == open_split(shards, manifest, "train").column("id", tweets)


@pytest.mark.dist
def test_more_than_the_budget_ends_the_run_on_all_ranks(runs: Path) -> None:
    outcome = json.loads((runs / "launches.outcomes").read_text())[-1]
    assert "1 of the last 4 steps had a loss or a gradient that is not finite (steps 3; " in outcome
    assert "max_skipped_steps=0" in outcome and not (runs / "budget/run.json").exists()


def test_the_budget_is_of_the_last_thousand_steps(shards: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(shards)
    stream = Stream(manifest.rows("train"), 0, 6, 6 * 5000)
    file = JsonLines(tmp_path / "skipped.jsonl", True)
    skipped = SkippedSteps(stream, open_split(shards, manifest, "train"), 2, file)
    broken = {10, 500, 1400, 1900}
    for step in range(2000):
        skipped.add(step, torch.tensor(float("inf") if step in broken else 1.0))
        if step % 100 == 99:
            assert skipped.read() == [other + 1 for other in sorted(broken) if step - 100 < other <= step]
    with pytest.raises(UserError, match=r"3 of the last 1,000 steps .* \(steps 1401, 1901, 2001; "):
        skipped.add(2000, torch.tensor(float("nan")))
        skipped.read()
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize("more", [["stop_after_steps=2"], ["validation.every_steps=2", "validation.patience=1"]])
def test_a_skipped_step_is_told_where_no_line_of_metrics_follows(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    step_of, losses = DDPEngine.train_step, iter([1.0, 2.0])

    def train_step(self: DDPEngine, step: Step, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, norm = step_of(self, step, *rest)
        return loss, norm * math.inf if step.index == 1 else norm

    monkeypatch.setattr(DDPEngine, "train_step", train_step)
    monkeypatch.setattr(Validation, "loss", lambda *_: next(losses))
    train(config_of(shards, tmp_path / "run", "batch_size=6", "max_steps=9", "log.every_steps=9", *more))
    assert "step 2 was skipped" in capsys.readouterr().out
    assert [line["step"] for line in lines_of(tmp_path / "run", "skipped.jsonl")] == [2]


def test_validations_that_are_no_numbers_choose_no_model(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Validation, "loss", lambda *_: math.nan)
    run = tmp_path / "run"
    train(config_of(shards, run, "batch_size=6", "max_steps=2"))
    assert "model of step 2:" in capsys.readouterr().out

    def no_json(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    lines = (run / "validation.jsonl").read_text().splitlines()
    assert all(json.loads(line, parse_constant=no_json)["validation_loss"] is None for line in lines)
    record = json.loads((run / "run.json").read_text(), parse_constant=no_json)
    assert record["best_step"] is record["validation_loss"] is record["start_validation_loss"] is None

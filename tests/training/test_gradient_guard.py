"""Gradients that are not finite or exactly zero: all ranks treat a step alike, whatever the engine, and report it."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.data.batches import Step
from bert_tweets.data.permutation import Stream
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.training.gradient_guard import GradientGuard, GradientProblem
from bert_tweets.training.messages import remedy_for_zero_gradients
from bert_tweets.training.metrics import JsonLines
from bert_tweets.training.trainer import train
from bert_tweets.training.validate import Validation
from tests.processes import run
from tests.training.runs import config_of, lines_of, model_of, short_tweets, words_of

pytestmark = pytest.mark.xdist_group("ranks")

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
    """Runs whose third step has a NaN loss on rank 1 of two, and one with a budget of 0."""
    folder = tmp_path_factory.mktemp("runs")
    launches = [words_of(shards, folder / name, *MORE, *more) for name, more in ENGINES.items()]
    launches.append(words_of(shards, folder / "budget", *MORE, "max_nonfinite_steps=0"))
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
def test_all_ranks_skip_the_step_and_continue(runs: Path, shards: Path, engine: str) -> None:
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
def test_exceeding_the_budget_ends_the_run_on_all_ranks(runs: Path) -> None:
    outcome = json.loads((runs / "launches.outcomes").read_text())[-1]
    assert "1 of the last 4 steps had a loss or a gradient that is not finite (steps 3; " in outcome
    assert "max_nonfinite_steps=0" in outcome and not (runs / "budget/run.json").exists()


def guard_of(shards: Path, file: Path, budget: int = 2) -> GradientGuard:
    manifest = Manifest.read(shards)
    stream = Stream(manifest.rows("train"), 0, 6, 6 * 5000)
    split = open_split(shards, manifest, "train")
    return GradientGuard(stream, split, budget, JsonLines(file, True), "use model.compile=false")


def add(guard: GradientGuard, step: int, norm: float, masked_tokens: int = 9) -> None:
    guard.add(Step(step, [], masked_tokens, 100, 6, 128), torch.tensor(norm))


def test_the_budget_applies_to_the_last_thousand_steps(shards: Path, tmp_path: Path) -> None:
    guard = guard_of(shards, tmp_path / "skipped.jsonl")
    broken = {10, 500, 1400, 1900}
    for step in range(2000):
        add(guard, step, math.inf if step in broken else 1.0)
        if step % 100 == 99:
            reported = [problem.step + 1 for problem in guard.read() if problem.is_skipped]
            assert reported == [other + 1 for other in sorted(broken) if step - 100 < other <= step]
    with pytest.raises(UserError, match=r"3 of the last 1,000 steps .* \(steps 1401, 1901, 2001; "):
        add(guard, 2000, math.nan)
        list(guard.read())
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 5


@given(
    norms=st.lists(st.sampled_from([0.0, 1e-30, 1.0, math.inf]), min_size=1, max_size=12),
    masked=st.lists(st.booleans(), min_size=12, max_size=12),
    reads=st.sets(st.integers(0, 11)),
)
def test_a_zero_gradient_is_a_warning_and_two_in_a_row_are_an_error(
    shards: Path, tmp_path_factory: pytest.TempPathFactory, norms: list[float], masked: list[bool], reads: set[int]
) -> None:
    """Whenever norms are read; a step without masked tokens has no gradient, and does not count."""
    guard = guard_of(shards, tmp_path_factory.mktemp("guard") / "skipped.jsonl", budget=99)
    counted = [(step, norm) for step, (norm, real) in enumerate(zip(norms, masked, strict=False)) if real]
    in_a_row = [one for (_, before), (one, norm) in pairwise(counted) if before == norm == 0]
    zeros = [step for step, norm in counted if norm == 0]
    problems: list[GradientProblem] = []
    try:
        for step, norm in enumerate(norms):
            add(guard, step, norm if masked[step] or norm else 0.0, 9 * masked[step])
            if step in reads:
                problems += guard.read()
        problems += guard.read()
    except UserError as error:
        assert in_a_row and str(error).startswith(f"the gradients of step {in_a_row[0] + 1} and of the step before it ")
        assert "use model.compile=false" in str(error)
    else:
        assert not in_a_row and [problem.step for problem in problems if not problem.is_skipped] == zeros


def test_a_run_with_zero_gradients_leaves_no_checkpoint_and_no_model(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = PackedMaskedLM.forward
    monkeypatch.setattr(PackedMaskedLM, "forward", lambda self, *given: forward(self, *given) * 0.0)
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"are exactly zero: the model is not being trained; the weights of"):
        train(config_of(shards, run, "batch_size=6", "max_steps=9", "checkpoint.every_steps=2"))
    assert not list((run / "checkpoints").glob("step-*")) and not (run / "model").exists()
    run = tmp_path / "one"
    train(config_of(shards, run, "batch_size=6", "max_steps=1"))
    assert "warning: step 1 trained nothing: its gradient is exactly zero" in capsys.readouterr().err


def test_the_remedy_fits_the_settings() -> None:
    assert "model.compile=false" in remedy_for_zero_gradients(True, "bf16")
    assert "precision=bf16" in remedy_for_zero_gradients(False, "fp16")
    assert "another model" in remedy_for_zero_gradients(False, "fp32")


@pytest.mark.parametrize("more", [["stop_after_steps=2"], ["validation.every_steps=2", "validation.patience=1"]])
def test_a_skipped_step_is_reported_although_no_line_of_metrics_follows(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    step_of, losses = DDPEngine.train_step, iter([1.0, 2.0])

    def train_step(self: DDPEngine, step: Step, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, norm = step_of(self, step, *rest)
        return loss, norm * math.inf if step.index == 1 else norm

    monkeypatch.setattr(DDPEngine, "train_step", train_step)
    monkeypatch.setattr(Validation, "loss", lambda *_: next(losses))
    train(config_of(shards, tmp_path / "run", "batch_size=6", "max_steps=9", "log.every_steps=9", *more))
    assert "step 2 was skipped" in capsys.readouterr().err
    assert [line["step"] for line in lines_of(tmp_path / "run", "skipped.jsonl")] == [2]


def test_nan_validations_choose_no_model(
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

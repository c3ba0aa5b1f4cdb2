"""Which checkpoint a run resumes from, and which it rejects; one process trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForMaskedLM

from bert_tweets import verify
from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import add_checksum, verify_checksum
from bert_tweets.common.output_folder import to_json
from bert_tweets.config import TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer, save
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.model.loading import load_model, tokenizer_folder
from bert_tweets.model.vocab_padding import fit_vocabulary, names_by_token, pad_vocabulary
from bert_tweets.training import checkpoint
from tests.helpers import make_shards
from tests.training.runs import assert_same, config_of, flip, lines_of, names_in, short_tweets, train_run


def test_the_newest_checkpoints_are_kept(short_shards: Path, whole: Path, half: Path) -> None:
    assert names_in(half) == {"step-00000006", "step-00000007", "latest"}
    assert (half / "checkpoints/latest").read_text() == "step-00000007\n"
    assert names_in(whole) == {"step-00000006", "step-00000009", "latest"}


def test_a_resumed_run_removes_the_lines_of_later_steps(short_shards: Path, run: Path, whole: Path) -> None:
    # As left by a run that was killed after its last checkpoint, in the middle of a line.
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 8, "loss": 1.0}) + '\n{"step": 1')
    with (run / "validation.jsonl").open("a") as file:
        file.write(json.dumps({"step": 8, "validation_loss": 1.0}) + "\n")
    train_run(short_shards, run)
    assert_same(run, whole)


def test_a_damaged_checkpoint_is_skipped_and_reported(
    short_shards: Path, run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(run / "checkpoints/step-00000007/moments.safetensors", 4321)
    train_run(short_shards, run)
    printed = capsys.readouterr()
    assert "step-00000007/moments.safetensors: its checksum does not match" in printed.err
    assert (
        "resuming after step 6" in printed.out
        and "deleted, because the run resumes from an earlier step: step-00000007" in printed.out
    )
    assert_same(run, whole)


def test_a_run_starts_from_scratch_if_every_checkpoint_is_damaged(
    short_shards: Path, run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints/step-00000007/checkpoint.json").write_text("{}")
    (run / "checkpoints/step-00000006/weights.safetensors").unlink()
    train_run(short_shards, run)
    printed = capsys.readouterr()
    assert "every checkpoint is damaged" in printed.err and "starting from scratch" in printed.out
    assert_same(run, whole)


def test_a_run_without_a_checkpoint_starts_from_scratch(
    short_shards: Path, run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "checkpoints")
    train_run(short_shards, run)
    assert "started but not finished; starting from scratch" in capsys.readouterr().out
    assert_same(run, whole)


def test_resume_never_starts_from_scratch(
    short_shards: Path, run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_run(short_shards, run, "resume=never")
    assert "resuming" not in capsys.readouterr().out
    assert_same(run, whole)


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/step-00000007"])
def test_resume_takes_a_run_or_a_checkpoint(
    short_shards: Path, run: Path, whole: Path, tmp_path: Path, place: str
) -> None:
    train_run(short_shards, tmp_path / "other", f"resume={run / place}")
    assert (tmp_path / "other/run.json").is_file()
    assert [line["step"] for line in lines_of(tmp_path / "other")] == [8, 9]
    assert lines_of(tmp_path / "other") == lines_of(whole)[3:]


def test_resume_takes_an_older_checkpoint(short_shards: Path, run: Path, whole: Path) -> None:
    train_run(short_shards, run, f"resume={run / 'checkpoints/step-00000006'}")
    assert_same(run, whole)


@pytest.mark.parametrize("place", ["nowhere", "checkpoints/step-00000008", "model"])
def test_a_path_without_a_checkpoint_is_rejected(short_shards: Path, run: Path, place: str) -> None:
    with pytest.raises(UserError, match="is not a checkpoint, nor a run that has one"):
        train_run(short_shards, run, f"resume={run / place}")


def test_a_damaged_checkpoint_that_was_named_is_rejected(short_shards: Path, run: Path) -> None:
    damaged = run / "checkpoints/step-00000007"
    flip(damaged / "weights.safetensors", 99)
    with pytest.raises(UserError, match=r"every checkpoint there is damaged; .*weights\.safetensors"):
        train_run(short_shards, run, f"resume={damaged}")


@pytest.mark.parametrize(
    "more", ["seed=3", "batch_size=3", "optimizer.learning_rate=1e-4", "max_steps=10", "masking.probability=0.2"]
)
def test_the_folder_of_another_run_is_rejected(short_shards: Path, run: Path, more: str) -> None:
    with pytest.raises(UserError, match=more.split("=")[0]):
        train_run(short_shards, run, more)


def test_the_checkpoint_of_another_run_is_rejected(short_shards: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"belongs to another run: seed \(0 there, 3 now\)"):
        train_run(short_shards, tmp_path / "other", "seed=3", f"resume={run}")
    assert not (tmp_path / "other").exists()


def test_other_tweets_and_another_recipe_are_rejected(run: Path, tmp_path: Path) -> None:
    other = make_shards(tmp_path / "data", [f"word {number}" for number in range(90)], validation_fraction=0.5)
    with pytest.raises(UserError, match="the recipe's tokenizer"):
        train_run(other, run)


def test_settings_that_do_not_change_the_run_may_change(short_shards: Path, run: Path, whole: Path) -> None:
    train_run(
        short_shards,
        run,
        "data.num_workers=0",
        "checkpoint.keep=1",
        "engine.timeout_seconds=99",
        "tokens_per_device=4096",
    )
    assert names_in(run) == {"step-00000009", "latest"}
    assert_same(run, whole)


def test_early_stopping_comes_at_the_same_step(short_shards: Path, tmp_path: Path) -> None:
    rising = ("max_steps=40", "validation.every_steps=2", "validation.patience=3", "optimizer.learning_rate=3e-2")
    rising += ("optimizer.allow_high_learning_rate=true", "schedule.name=constant", "checkpoint.every_steps=0")
    train_run(short_shards, tmp_path / "whole", *rising)
    summary = json.loads((tmp_path / "whole/run.json").read_text())
    assert summary["stopped_early"] and summary["best_step"] < summary["steps"] < 40
    # After the best step, and between the validations that are not better.
    for steps in (summary["best_step"], 3):
        train_run(short_shards, tmp_path / "resumed", *rising, f"stop_after_steps={steps}")
        assert not (tmp_path / "resumed/run.json").exists()
    train_run(short_shards, tmp_path / "resumed", *rising)
    assert_same(tmp_path / "resumed", tmp_path / "whole")


def test_the_file_latest_is_not_needed(short_shards: Path, run: Path, whole: Path) -> None:
    (run / "checkpoints/latest").unlink()
    train_run(short_shards, run)
    assert_same(run, whole)


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/step-00000007"])
def test_verify_reads_every_byte(run: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    verify.stage([str(run / place)])
    assert "checkpoint(s)" in capsys.readouterr().out
    folder = run / "checkpoints/step-00000007"
    flip(folder / "weights.safetensors", 4000)
    with pytest.raises(UserError, match=r"is damaged; .*\n.*step-00000007/weights\.safetensors"):
        verify.stage([str(run / place)])
    flip(folder / "weights.safetensors", 4000)
    (folder / "model.bin").touch()
    with pytest.raises(UserError, match=r"step-00000007/model\.bin: does not belong to it"):
        verify.stage([str(run / place)])


def test_a_finished_run_is_left_alone(short_shards: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_run(short_shards, run)
    before = (run / "run.json").read_bytes()
    train_run(short_shards, run)
    assert "this run is finished" in capsys.readouterr().out and (run / "run.json").read_bytes() == before


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_every_flipped_bit_is_found_and_its_file_named(half: Path, draw: st.DataObject) -> None:
    folder = half / "checkpoints/step-00000007"
    files = sorted(folder.iterdir())
    file = draw.draw(st.sampled_from(files))
    bit = draw.draw(st.integers(0, 8 * file.stat().st_size - 1))
    flip(file, bit)
    try:
        with pytest.raises(checkpoint.Damaged, match=file.name):
            checkpoint.check(folder)
        with pytest.raises(checkpoint.Damaged, match=file.name):
            checkpoint.read_checkpoint(folder)
    finally:
        flip(file, bit)


@pytest.mark.parametrize("kept", [0, 1, 0.5, 0.999])
def test_every_truncated_file_is_found_and_named(half: Path, kept: float) -> None:
    folder = half / "checkpoints/step-00000007"
    for file in folder.iterdir():
        data = file.read_bytes()
        file.write_bytes(data[: int(kept) if kept in (0, 1) else int(len(data) * kept)])
        try:
            with pytest.raises(checkpoint.Damaged, match=file.name):
                checkpoint.read_checkpoint(folder)
        finally:
            file.write_bytes(data)


def test_a_shard_that_changes_during_training_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_shards = short_tweets(tmp_path / "data")
    shard = next((short_shards / "train").glob("*.arrow"))
    step_of = DDPEngine.train_step

    def train_step(self: DDPEngine, step, *rest):  # type: ignore[no-untyped-def]
        if step.index == 4:
            flip(shard, 8 * 3000)
        return step_of(self, step, *rest)

    monkeypatch.setattr(DDPEngine, "train_step", train_step)
    with pytest.raises(UserError, match=shard.name):
        train_run(short_shards, tmp_path / "run")
    # Nothing derived from the changed tweets is kept.
    assert names_in(tmp_path / "run") == {"step-00000003", "latest"}
    assert not (tmp_path / "run/model").exists()


def test_a_checkpoint_of_another_format_is_rejected_and_kept(short_shards: Path, run: Path) -> None:
    path = run / "checkpoints/step-00000007/checkpoint.json"
    path.write_bytes(to_json(add_checksum({**verify_checksum(path.read_bytes()), "format_version": 1})))
    with pytest.raises(UserError, match="format version 1, this program reads 2; resume with the version of"):
        train_run(short_shards, run)
    assert names_in(run) == {"step-00000006", "step-00000007", "latest"}


@pytest.mark.parametrize(("resume", "how"), [("auto", "rerun the same command"), ("never", "run it with resume=auto")])
def test_a_run_that_stops_says_how_to_resume_it(
    short_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], resume: str, how: str
) -> None:
    train_run(short_shards, tmp_path / "run", f"resume={resume}", "stop_after_steps=1")
    assert f"; {how} (without stop_after_steps, to the end) to resume" in capsys.readouterr().out


@pytest.mark.parametrize("launcher", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_command_that_a_launcher_restarts_resumes(
    short_shards: Path,
    run: Path,
    whole: Path,
    launcher: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(launcher, "1")
    train_run(short_shards, run, "resume=never")
    assert "resuming after step 7" in capfd.readouterr().out
    assert_same(run, whole)


def test_an_unreadable_checkpoint_is_neither_skipped_nor_deleted(
    short_shards: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def refused(self: Path) -> bytes:
        if self.name == "weights.safetensors" and "step-00000007" in str(self):
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(UserError, match=r"step-00000007/weights\.safetensors: cannot be read \(Permission denied\)"):
        train_run(short_shards, run)
    assert names_in(run) == {"step-00000006", "step-00000007", "latest"}


def test_latest_names_the_newest_checkpoint_left(run: Path) -> None:
    checkpoints = run / "checkpoints"
    assert checkpoint.delete_after(checkpoints, 6) == ["step-00000007"]
    assert (checkpoints / "latest").read_text() == "step-00000006\n"
    checkpoint.delete_after(checkpoints, -1)
    assert names_in(run) == set()


def test_weights_fit_a_vocabulary_that_is_padded_elsewhere(half: Path, short_shards: Path) -> None:
    """As on a GPU, where the vocabulary is padded to a multiple of 64."""
    config: TrainConfig = config_of(short_shards, half)
    model = load_model(config.model, Manifest.read(short_shards), 0).model
    size = pad_vocabulary(model, 64)
    padded = int(model.config.vocab_size)
    assert padded > size and padded % 64 == 0
    saved = checkpoint.read_checkpoint(half / "checkpoints/step-00000007").tensors["weights"]
    fitted = fit_vocabulary(saved, names_by_token(model), padded)
    assert {name: weight.shape for name, weight in fitted.items()} == {
        name: weight.shape for name, weight in model.named_parameters()
    }
    back = fit_vocabulary(fitted, names_by_token(model), size)
    assert all(torch.equal(back[name], weight) for name, weight in saved.items())
    bias = next(weight for name, weight in fitted.items() if name.endswith("predictions.bias"))
    assert np.all(bias[size:].numpy() == -1e4)


def test_a_run_with_an_unused_weight_can_be_resumed(short_shards: Path, tmp_path: Path) -> None:
    """Such as the second output bias of a BERT with untied tables."""
    tokenizer = load_tokenizer(str(tokenizer_folder(short_shards)))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    untied = BertConfig(vocab_size=len(tokenizer), **sizes, tie_word_embeddings=False)
    BertForMaskedLM(untied).save_pretrained(tmp_path / "model")
    save(tokenizer, tmp_path / "model")
    more = f"model.name={tmp_path / 'model'}"
    train_run(short_shards, tmp_path / "whole", more)
    for step in (2, 5):
        train_run(short_shards, tmp_path / "run", more, f"stop_after_steps={step}")
    train_run(short_shards, tmp_path / "run", more)
    assert_same(tmp_path / "run", tmp_path / "whole")

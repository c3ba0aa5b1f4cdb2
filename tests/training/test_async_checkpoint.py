"""Asynchronous checkpoints, and failures to write them; one process trains."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.training import checkpoint, run_folder
from bert_tweets.training.watchdog import Watchdog
from tests.processes import wait_for
from tests.training.runs import assert_same, train_run


@pytest.mark.parametrize("step", [3, 9])
def test_a_failed_write_costs_only_that_checkpoint(
    short_shards: Path,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    write = checkpoint.write_checkpoint

    def fails_once(checkpoints: Path, record: checkpoint.Record, *rest):  # type: ignore[no-untyped-def]
        if record.step == step:
            raise OSError(28, "No space left on device")
        return write(checkpoints, record, *rest)

    monkeypatch.setattr(checkpoint, "write_checkpoint", fails_once)
    train_run(short_shards, tmp_path / "run")
    assert "No space left on device" in capsys.readouterr().err
    assert_same(tmp_path / "run", whole)


def test_a_blocked_checkpoint_folder_costs_only_the_checkpoints(short_shards: Path, run: Path, whole: Path) -> None:
    shutil.rmtree(run / run_folder.CHECKPOINTS)
    (run / run_folder.CHECKPOINTS).touch()
    train_run(short_shards, run)
    assert_same(run, whole)


def test_a_stopping_run_fails_if_its_checkpoint_was_not_written(
    short_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoint, "write_checkpoint", fails)
    with pytest.raises(UserError, match=r"the last checkpoint was not written: MemoryError\(\)"):
        train_run(short_shards, tmp_path / "run", "stop_after_steps=2")


def test_a_step_waits_only_for_the_copy_and_one_write_is_in_flight(
    short_shards: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, step_of, happened = checkpoint.write_checkpoint, DDPEngine.train_step, []

    def slowly(checkpoints: Path, record: checkpoint.Record, *rest: Any) -> Any:
        happened.append(f"begin {record.step}")
        # The copied weights are not those that training continues to update.
        if record.step == 3:
            wait_for(lambda: "step 6" in happened)
        written = write(checkpoints, record, *rest)
        happened.append(f"end {record.step}")
        return written

    def train_step(self: DDPEngine, step: Any, *rest: Any) -> Any:
        happened.append(f"step {step.index + 1}")
        return step_of(self, step, *rest)

    monkeypatch.setattr(checkpoint, "write_checkpoint", slowly)
    monkeypatch.setattr(DDPEngine, "train_step", train_step)
    train_run(short_shards, tmp_path / "run", "stop_after_steps=7")
    assert happened.index("step 6") < happened.index("end 3") < happened.index("begin 6")
    assert happened.index("end 6") < happened.index("begin 7") and happened[-1] == "end 7"
    monkeypatch.setattr(checkpoint, "write_checkpoint", write)
    train_run(short_shards, tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_a_slow_disk_does_not_trigger_the_watchdog(
    short_shards: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, ended = checkpoint.write_checkpoint, []

    def slowly(*arguments: Any) -> Any:
        time.sleep(2.5)
        return write(*arguments)

    monkeypatch.setattr(checkpoint, "write_checkpoint", slowly)
    monkeypatch.setattr(Watchdog, "_end", lambda self: ended.append(self._step))
    train_run(short_shards, tmp_path / "run", "engine.timeout_seconds=2")
    # Before step 3, which has the first checkpoint, a busy machine may take two seconds for a step.
    assert not [step for step in ended if step >= 3]
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("place", ["/proc/run", "/sys/run"])
def test_an_output_that_cannot_be_written_is_a_user_error(short_shards: Path, place: str) -> None:
    with pytest.raises(UserError, match=place):
        train_run(short_shards, Path(place))

"""Saving behind the back of training, and what happens where it cannot; one process trains."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.training import checkpoint
from bert_tweets.training.watchdog import Watchdog
from tests.processes import wait_for
from tests.training.runs import assert_same, go_on


@pytest.mark.parametrize("step", [3, 9])
def test_a_checkpoint_that_cannot_be_written_costs_that_checkpoint_alone(
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
    go_on(short_shards, tmp_path / "run")
    assert "No space left on device" in capsys.readouterr().err
    assert_same(tmp_path / "run", whole)


def test_no_place_for_checkpoints_costs_them_alone(short_shards: Path, run: Path, whole: Path) -> None:
    shutil.rmtree(run / checkpoint.FOLDER)
    (run / checkpoint.FOLDER).touch()
    go_on(short_shards, run)
    assert_same(run, whole)


def test_who_leaves_never_says_that_it_saved_where_it_did_not(
    short_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoint, "write_checkpoint", fails)
    with pytest.raises(UserError, match=r"the last checkpoint was not written: MemoryError\(\)"):
        go_on(short_shards, tmp_path / "run", "stop_after_steps=2")


def test_a_step_waits_for_the_snapshot_alone_and_one_save_is_in_flight(
    short_shards: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, step_of, happened = checkpoint.write_checkpoint, DDPEngine.train_step, []

    def slowly(checkpoints: Path, record: checkpoint.Record, *rest: Any) -> Any:
        happened.append(f"begin {record.step}")
        # The weights of the snapshot are not those that training goes on in.
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
    go_on(short_shards, tmp_path / "run", "stop_after_steps=7")
    assert happened.index("step 6") < happened.index("end 3") < happened.index("begin 6")
    assert happened.index("end 6") < happened.index("begin 7") and happened[-1] == "end 7"
    monkeypatch.setattr(checkpoint, "write_checkpoint", write)
    go_on(short_shards, tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_a_slow_disk_is_no_step_that_stands_still(
    short_shards: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, ended = checkpoint.write_checkpoint, []

    def slowly(*arguments: Any) -> Any:
        time.sleep(2.5)
        return write(*arguments)

    monkeypatch.setattr(checkpoint, "write_checkpoint", slowly)
    monkeypatch.setattr(Watchdog, "_end", lambda self: ended.append(self._step))
    go_on(short_shards, tmp_path / "run", "engine.timeout_seconds=2")
    # Before step 3, whose checkpoint is the first, a busy machine may take two seconds for a step.
    assert not [step for step in ended if step >= 3]
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("place", ["/proc/run", "/sys/run"])
def test_a_place_that_cannot_be_written_is_one_line(short_shards: Path, place: str) -> None:
    with pytest.raises(UserError, match=place):
        go_on(short_shards, Path(place))

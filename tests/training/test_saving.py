"""Saving behind the back of training, and what happens where it cannot; one process trains."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.errors import UserError
from bert_tweets.training import checkpoint
from bert_tweets.training.loop import train
from bert_tweets.training.watchdog import Watchdog
from tests.training.runs import assert_same, config_of, short_tweets

MORE = ["batch_size=6", "max_steps=9", "log.every_steps=2", "validation.every_steps=4", "checkpoint.every_steps=3"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_tweets(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config_of(shards, folder, *MORE))
    return folder


@pytest.fixture(scope="module")
def half(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped behind step 7; its checkpoints are of steps 6 and 7."""
    folder = tmp_path_factory.mktemp("half") / "run"
    train(config_of(shards, folder, *MORE, "stop_after_steps=7"))
    return folder


@pytest.fixture
def run(half: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return Path(shutil.copytree(half, tmp_path / "run"))


def go_on(shards: Path, run: Path, *more: str) -> None:
    train(config_of(shards, run, *MORE, *more))


def names_in(run: Path) -> set[str]:
    return {path.name for path in (run / checkpoint.FOLDER).iterdir()}


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("step", [3, 9])
def test_a_checkpoint_that_cannot_be_written_costs_that_checkpoint_alone(
    shards: Path,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    write = checkpoint.write

    def fails_once(checkpoints: Path, record: checkpoint.Record, *rest):  # type: ignore[no-untyped-def]
        if record.step == step:
            raise OSError(28, "No space left on device")
        return write(checkpoints, record, *rest)

    monkeypatch.setattr(checkpoint, "write", fails_once)
    go_on(shards, tmp_path / "run")
    assert "No space left on device" in capsys.readouterr().err
    assert_same(tmp_path / "run", whole)


def test_no_place_for_checkpoints_costs_them_alone(shards: Path, run: Path, whole: Path) -> None:
    shutil.rmtree(run / checkpoint.FOLDER)
    (run / checkpoint.FOLDER).touch()
    go_on(shards, run)
    assert_same(run, whole)


def test_who_leaves_never_says_that_it_saved_where_it_did_not(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoint, "write", fails)
    with pytest.raises(UserError, match=r"the last checkpoint was not written: MemoryError\(\)"):
        go_on(shards, tmp_path / "run", "stop_after_steps=2")


def test_a_step_waits_for_the_snapshot_alone_and_one_save_is_in_flight(
    shards: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, step_of, happened = checkpoint.write, DDPEngine.train_step, []

    def slowly(checkpoints: Path, record: checkpoint.Record, *rest: Any) -> Any:
        happened.append(f"begin {record.step}")
        # The weights of the snapshot are not those that training goes on in.
        time.sleep(0.5)
        written = write(checkpoints, record, *rest)
        happened.append(f"end {record.step}")
        return written

    def train_step(self: DDPEngine, step: Any, *rest: Any) -> Any:
        happened.append(f"step {step.index + 1}")
        return step_of(self, step, *rest)

    monkeypatch.setattr(checkpoint, "write", slowly)
    monkeypatch.setattr(DDPEngine, "train_step", train_step)
    go_on(shards, tmp_path / "run", "stop_after_steps=7")
    assert happened.index("step 6") < happened.index("end 3") < happened.index("begin 6")
    assert happened.index("end 6") < happened.index("begin 7") and happened[-1] == "end 7"
    monkeypatch.setattr(checkpoint, "write", write)
    go_on(shards, tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_a_slow_disk_is_no_step_that_stands_still(
    shards: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, ended = checkpoint.write, []

    def slowly(*arguments: Any) -> Any:
        time.sleep(2.5)
        return write(*arguments)

    monkeypatch.setattr(checkpoint, "write", slowly)
    monkeypatch.setattr(Watchdog, "_end", lambda self: ended.append(self._step))
    go_on(shards, tmp_path / "run", "engine.timeout_seconds=2")
    assert not ended
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("place", ["/proc/run", "/sys/run"])
def test_a_place_that_cannot_be_written_is_one_line(shards: Path, place: str) -> None:
    with pytest.raises(UserError, match=place):
        go_on(shards, Path(place))

"""train.log: what a run logged, over all of its launches."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.common.logs import EVERY_RANK, log_to_file
from bert_tweets.common.output_folder import MARKER
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.training import run_folder
from tests.training.runs import MORE, config_of, train_run

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) bert_tweets\.[\w.]+: (.*)")


def messages_of(log: Path) -> list[str]:
    found = [LINE.fullmatch(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [match[2] for match in found if match]


def test_each_launch_appends_its_messages(short_shards: Path, run: Path) -> None:
    train_run(short_shards, run)
    text = (run / run_folder.LOG).read_text(encoding="utf-8")
    assert all(LINE.fullmatch(line) for line in text.splitlines())
    saved, resumed, model = (
        text.index(part) for part in ("checkpoint saved after step 7 of 9", "resuming after step 7", "model of step")
    )
    assert saved < resumed < model


def test_what_ends_a_run_is_in_its_log_but_not_twice_on_the_console(
    short_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(DDPEngine, "train_step", fail)
    for error in (UserError("the disk is on fire"), RuntimeError("out of memory")):
        with pytest.raises(type(error), match=str(error)):
            train_run(short_shards, tmp_path / "run")
    log = tmp_path / "run" / run_folder.LOG
    assert {"the disk is on fire", "rank 0 failed"} <= set(messages_of(log))
    assert "RuntimeError: out of memory" in log.read_text()
    printed = capsys.readouterr()
    assert "on fire" not in printed.out + printed.err and "rank 0 failed" not in printed.err


def test_other_ranks_write_only_what_concerns_them_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    logger = logging.getLogger("bert_tweets.training.watchdog")
    with log_to_file(tmp_path / "log"):
        logger.warning("said by every rank")
        logger.error("rank 1 hangs", extra=EVERY_RANK)
    assert messages_of(tmp_path / "log") == ["rank 1 hangs"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_only_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_file(Path("/dev/full")):
        logging.getLogger("bert_tweets").info("lost")
    assert "Traceback" not in capsys.readouterr().err


def test_a_log_file_does_not_make_a_folder_somebody_elses(short_shards: Path, tmp_path: Path) -> None:
    config = config_of(short_shards, tmp_path / "run", *MORE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / run_folder.LOG).touch()
    with pytest.raises(UserError, match="holds other files"):
        run_folder.run_state(config)
    (tmp_path / "run" / MARKER).touch()
    assert run_folder.run_state(config) == "unfinished"

"""Logging: what the command line prints, what a run's log file holds, and silence for users of the library."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bert_tweets.common.logs import EVERY_RANK, log_to_console, log_to_file

LOGGER = logging.getLogger("bert_tweets.somewhere")


def test_information_goes_to_stdout_and_warnings_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_console()
    log_to_console()
    LOGGER.info("step 1")
    LOGGER.warning("a high rate")
    LOGGER.error("no step finished")
    LOGGER.debug("hidden")
    printed = capsys.readouterr()
    assert printed.out == "step 1\n"
    assert printed.err == "warning: a high rate\nerror: no step finished\n"


def test_other_ranks_print_only_what_every_rank_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_to_console()
    monkeypatch.setenv("RANK", "1")
    LOGGER.warning("of all ranks alike")
    LOGGER.warning("of rank 1", extra=EVERY_RANK)
    assert capsys.readouterr().err == "warning: of rank 1\n"


def test_a_log_file_has_times_levels_and_modules_and_is_appended_to(tmp_path: Path) -> None:
    for number in (1, 2):
        with log_to_file(tmp_path / "train.log"):
            LOGGER.info(f"start {number}")
        LOGGER.info("afterwards")
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(
            rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z INFO bert_tweets\.somewhere: start {number}", line
        )


def test_users_of_the_library_see_only_warnings() -> None:
    program = (
        "import logging, bert_tweets.common.executors; logger = logging.getLogger('bert_tweets.x');"
        "logger.info('hidden'); logger.warning('shown');"
        "assert not logging.getLogger('bert_tweets').handlers"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "shown\n")

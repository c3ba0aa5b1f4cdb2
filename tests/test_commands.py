"""Stages as subprocesses: signals reach them, and they import from the right places."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bert_tweets import __version__
from tests.processes import ROOT, wait_for

# Takes its time to save, as training does.
STAGE = """
import signal, sys, time
from pathlib import Path
def save(*_):
    time.sleep(0.6)
    Path("saved").touch()
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, save)
Path("begun").touch()
time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_that_is_asked_to_stop_has_the_time_to_save(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from bert_tweets.common import subprocesses as s; s.run_command([sys.executable, 'stage.py'])",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    wait_for((tmp_path / "begun").exists, 20)
    # A terminal sends Ctrl-C to all of its foreground, a scheduler SIGTERM to one process.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert process.wait(timeout=20) == 75
    assert (tmp_path / "saved").exists()


def test_a_stage_imports_nothing_from_the_working_folder(tmp_path: Path) -> None:
    work, script = tmp_path / "work", tmp_path / "bert-tweets"
    (work / "bert_tweets").mkdir(parents=True)
    (work / "bert_tweets" / "__init__.py").write_text("raise ImportError('another version')\n")
    script.write_text(
        "from bert_tweets.common import subprocesses as s; s.run_command(s.command('cli', ['--version']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == __version__, done.stderr

"""Signals to a launcher reach the ranks, and leave them time. Torch is real here, training a stand-in that waits."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch.starting import clone_with, slurm_job, slurm_script, start

WAITS = """
import os, signal, sys, time

def say(text):
    # In one piece, and in the middle of whatever a signal breaks into.
    os.write(1, (text + "\\n").encode())

def leave(number, _):
    say(f"rank {os.environ['RANK']} saves on {signal.Signals(number).name}")
    time.sleep(1)
    say(f"rank {os.environ['RANK']} saved")
    sys.exit(3)

for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, leave)
say("ready")
time.sleep(100)
"""
pytestmark = pytest.mark.dist


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return clone_with(tmp_path / "clone", {"bert_tweets/__init__.py": "", "bert_tweets/train.py": WAITS})


def said_after(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Sends a signal when both ranks are ready; all that is said until the last of them has left."""
    assert process.stdout is not None
    ready = 0
    for line in process.stdout:
        ready += line == "ready\n"
        if ready == 2:
            break
    process.send_signal(number)
    # A rank that went on would hold the pipe open.
    said = process.stdout.read()
    assert process.wait(timeout=30) != 0
    for rank in (0, 1):
        assert f"rank {rank} saves on {number.name}" in said and f"rank {rank} saved" in said
    return said


def test_a_signal_to_the_script_reaches_the_ranks(clone: Path) -> None:
    said_after(start(["bash", "launch/run.sh"], clone, NPROC_PER_NODE="2"), signal.SIGTERM)


def test_slurm_warns_and_the_job_is_requeued(clone: Path, tmp_path: Path, slurm: dict[str, str]) -> None:
    job = slurm_job()
    said = said_after(start(["bash", slurm_script(tmp_path)], clone, **job, **slurm), signal.SIGUSR1)
    assert "requeued" in said
    assert Path(slurm["SCONTROL_LOG"]).read_text().splitlines()[-1] == f"requeue {job['SLURM_JOB_ID']}"


def test_slurms_script_wants_to_be_submitted_from_the_clone(tmp_path: Path) -> None:
    lost = start(["bash", slurm_script(tmp_path)], tmp_path)
    said = lost.communicate(timeout=30)[0]
    assert lost.returncode == 2 and said.startswith("error: ") and said.count("\n") == 1

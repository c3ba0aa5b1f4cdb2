"""Graceful shutdown, and a watchdog that nothing stops."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bert_tweets.distributed.world import World
from bert_tweets.training import checkpoint, run_folder, signals, watchdog
from tests.processes import ROOT, wait_for
from tests.training.runs import short_tweets, words_of

ALONE = World(0, 0, 1, 1, torch.device("cpu"))
SLOW = str(Path(__file__).parent / "slow_train.py")


@pytest.mark.parametrize("first", [[], [signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]])
def test_ctrl_c_twice_stops_at_once_whatever_came_before(
    first: list[signal.Signals], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_ONE_PRESS_SECONDS", 0.05)
    with signals.GracefulShutdown(log=False) as shutdown:
        for number in [*first, signal.SIGINT, signal.SIGINT]:
            os.kill(os.getpid(), number)
        # Both at once: one press of the keys.
        assert shutdown()
        time.sleep(0.06)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.dist
@pytest.mark.timeout(100)
@pytest.mark.parametrize("to", [os.pipe, pty.openpty])
def test_a_run_saves_although_nobody_reads_its_output(tmp_path: Path, to: Callable[[], tuple[int, int]]) -> None:
    """As with `2>&1 | tee log`, whose tee Ctrl-C ends too, or after a terminal was closed."""
    run = tmp_path / "run"
    words = words_of(short_tweets(tmp_path / "data"), run, "batch_size=6", "max_steps=400", "log.every_steps=1")
    reader, writer = to()
    process = subprocess.Popen(
        [sys.executable, SLOW, "0.1", *words],
        stdout=writer,
        stderr=writer,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(writer)
    wait_for(lambda: (run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").read_text())
    os.close(reader)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 75
    assert len(checkpoint.found_in(run / run_folder.CHECKPOINTS)) == 1


def test_the_watchdog_continues_if_its_file_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_TICK_SECONDS", 0.01)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with watchdog.Watchdog(tmp_path, ALONE, 60) as dog:
        monkeypatch.setattr(os, "pwrite", full)
        dog.beat(1)
        time.sleep(0.1)
        assert dog._thread.is_alive()


def test_the_watchdog_ends_a_process_whose_output_is_closed(tmp_path: Path) -> None:
    program = (
        "import time, sys, torch; from pathlib import Path; from bert_tweets.training import watchdog as w\n"
        "from bert_tweets.distributed.world import World\n"
        "w._WRITING_SECONDS = 0.0\n"
        "with w.Watchdog(Path(sys.argv[1]), World(0, 0, 1, 1, torch.device('cpu')), 0.1): time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.PIPE, env=environment, cwd=ROOT
    )
    assert process.stderr
    process.stderr.close()
    assert process.wait(timeout=40) == watchdog.EXIT_CODE

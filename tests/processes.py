"""Running commands the way a user does, with a time-out on each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(
    arguments: Sequence[str], processes: int = 0, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python with these arguments, under torchrun where `processes` are given; output is captured."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        settings.pop(name, None)
    return subprocess.run(
        [sys.executable, *torchrun, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=settings,
        check=False,
    )


def stage(name: str, *words: str, processes: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a stage; it must succeed."""
    done = run(["-m", f"bert_tweets.{name}", *words], processes, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def failure(name: str, *words: str, processes: int = 0) -> str:
    """Runs a stage that must fail as a user's mistake does: exit code 2 and one line. Returns the line."""
    done = run(["-m", f"bert_tweets.{name}", *words], processes)
    # torchrun prints a traceback of its own; none may lead through our code.
    assert f'File "{ROOT}/bert_tweets' not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.returncode == (1 if processes else 2)
    return lines[0]

"""Stages as subprocesses: their command lines, which are printed exactly as they run."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import without_secrets
from .terminal import print_line

logger = logging.getLogger(__name__)

_PACKAGE = "bert_tweets."


def command(stage: str, words: Sequence[str], processes: int = 1) -> list[str]:
    """Command line of a stage, under torchrun for several processes."""
    module = ["-m", f"{_PACKAGE}{stage}", *words]
    if processes == 1:
        return [sys.executable, *module]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *torchrun, *module]


def stage_of(arguments: Sequence[str]) -> str:
    return next(word for word in arguments if word.startswith(_PACKAGE)).removeprefix(_PACKAGE)


def shell_line(arguments: Sequence[str]) -> str:
    """A command line as a user would type it, without secrets in URLs."""
    if list(arguments[1:3]) == ["-m", "torch.distributed.run"]:
        arguments = ["torchrun", *arguments[3:]]
    elif arguments[0] == sys.executable:
        arguments = ["python", *arguments[1:]]
    return without_secrets(shlex.join(arguments))


def run_command(arguments: Sequence[str]) -> None:
    """Print a command and run it; SIGTERM is passed on to it, and it gets the time to save.

    Raises:
        SystemExit: the command failed and has printed why; the exit code is its own.
        KeyboardInterrupt: Ctrl-C was pressed, although the command finished.
    """
    logger.info(f"\n$ {shell_line(arguments)}")
    process, interrupted = subprocess.Popen(arguments, env=_environment()), False
    # Ctrl-C in a terminal reaches the command as well; a signal to this process does not.
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
    try:
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                interrupted = True
    finally:
        signal.signal(signal.SIGTERM, before)
    code = process.returncode
    if not code and interrupted:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def run_quietly(arguments: Sequence[str]) -> None:
    """Run a command without its output; if it fails, print it and raise SystemExit with the command's exit code."""
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, env=_environment())
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        print_line("\n".join(errors) or done.stdout + done.stderr, sys.stderr)
        raise SystemExit(done.returncode if done.returncode > 0 else 128 - done.returncode)


def _environment() -> dict[str, str]:
    """The environment of a stage's process, which imports from the same places as this one.

    `python -m` would look into the working folder first: a `random.py` there, or a checkout of another version, would
    shadow the right module.
    """
    from_here = {"", str(Path.cwd())} & set(sys.path)
    return {**os.environ} if from_here else {**os.environ, "PYTHONSAFEPATH": "1"}

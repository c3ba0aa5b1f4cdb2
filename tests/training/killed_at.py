"""Training that is killed at one of its writes: killed_at.py FIRST STEP KEY=VALUE...

A child process per STEPth write, from the FIRST one on: it is killed (SIGKILL) when it is about to flush, rename or
remove a file; the next child resumes, and so on until one finishes. Prints how many were killed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from bert_tweets.config import TrainConfig, parser
from bert_tweets.training.trainer import train


def train_until(write: int, config: TrainConfig) -> None:
    """Train in a child that kills itself at a write."""
    made = 0

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            if made == write:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    os.fsync = counted(os.fsync)
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
    os.rmdir = counted(os.rmdir)
    train(config)


def main() -> None:
    first, step = int(sys.argv[1]), int(sys.argv[2])
    config = parser.load(TrainConfig, sys.argv[3:])
    write, killed = first, 0
    while True:
        child = os.fork()
        if child == 0:
            # The threads of torch do not survive a fork; a child that has not used them yet has its own.
            train_until(write, config)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            print(f"killed {killed} times, then ended with {os.waitstatus_to_exitcode(status)}")
            sys.exit(os.waitstatus_to_exitcode(status))
        killed += 1
        write += step


if __name__ == "__main__":
    main()

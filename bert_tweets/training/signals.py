"""Graceful shutdown: signals after which a run saves a checkpoint and exits."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from . import messages

logger = logging.getLogger(__name__)

# Slurm sends the signal of its option `--signal`, usually USR1; torchrun passes TERM on.
_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
# A terminal sends Ctrl-C to every process, and torchrun passes it on to its ranks: one press may arrive twice.
_ONE_PRESS_SECONDS = 1.0
# From prctl.h: the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


class GracefulShutdown:
    """A context in which those signals are recorded; calling it returns whether one came.

    A second Ctrl-C stops at once. A rank whose torchrun is killed gets SIGTERM (on Linux): nobody would be left to end
    the other ranks when one fails, or to print their output.

    Args:
        log: whether this rank logs the signal.
    """

    def __init__(self, log: bool):
        self.log, self.signal = log, ""
        self._pressed: float | None = None
        self._previous: dict[str, Any] = {}

    def __call__(self) -> bool:
        return bool(self.signal)

    def __enter__(self) -> GracefulShutdown:
        # Python allows it in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                if hasattr(signal, name):
                    self._previous[name] = signal.signal(getattr(signal, name), self._handle)
        if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._previous.items():
            signal.signal(getattr(signal, name), handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name, now = signal.Signals(number).name, time.monotonic()
        if name == "SIGINT":
            if self._pressed is not None and now - self._pressed > _ONE_PRESS_SECONDS:
                raise KeyboardInterrupt
            self._pressed = now if self._pressed is None else self._pressed
        if not self.signal:
            self.signal = name
            if self.log:
                # Python forbids printing in the middle of another print.
                with suppress(RuntimeError):
                    logger.warning(messages.signal_received(name))

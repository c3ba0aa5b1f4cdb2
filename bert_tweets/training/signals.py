"""Being asked to stop: signals that a run answers by saving at the next step and leaving."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)


# Slurm's warning is what `--signal` says, USR1 as a rule; torchrun hands on TERM.
_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
# A terminal sends Ctrl-C to every process, and torchrun hands it on to its ranks: it may come twice for one.
_ONE_PRESS_SECONDS = 1.0


# Of prctl.h: the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


class StopRequest:
    """A context in which those signals are taken note of; called, says whether one came.

    Ctrl-C a second time stops at once. A rank whose torchrun is killed is asked to stop, too (on Linux): nobody would
    be there to end the others when one fails, or to tell the user that they go on.

    Args:
        speaks: whether this rank says that it was asked.
    """

    def __init__(self, speaks: bool):
        self.speaks = speaks
        self.signal = ""
        self._pressed: float | None = None
        self._before: dict[str, Any] = {}

    def __call__(self) -> bool:
        return bool(self.signal)

    def __enter__(self) -> StopRequest:
        # Python lets no other thread do it.
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                if hasattr(signal, name):
                    self._before[name] = signal.signal(getattr(signal, name), self._take)
        if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, handler in self._before.items():
            signal.signal(getattr(signal, name), handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        name, now = signal.Signals(number).name, time.monotonic()
        if name == "SIGINT":
            if self._pressed is not None and now - self._pressed > _ONE_PRESS_SECONDS:
                raise KeyboardInterrupt
            self._pressed = now if self._pressed is None else self._pressed
        if not self.signal:
            self.signal = name
            if self.speaks:
                again = "; Ctrl-C again stops at once" if name == "SIGINT" else ""
                # Python forbids it in the middle of another line.
                with suppress(RuntimeError):
                    logger.warning(f"{name}: saving a checkpoint after the next step, then exiting{again}")

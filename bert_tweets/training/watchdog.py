"""The watchdog: a step that does not end ends the run, and every rank's stack is written down first."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from bert_tweets.common.logs import EVERY_RANK
from bert_tweets.common.output_folder import output_errors
from bert_tweets.distributed.world import World

logger = logging.getLogger(__name__)

FOLDER = "stacks"
# EX_SOFTWARE of sysexits.h.
EXIT_CODE = 70
_TICK_SECONDS = 0.5
_WRITING_SECONDS = 2.0
_HEADER_BYTES = 64
_OWN_SPACE = Path("/proc/self/ns/pid")


class Watchdog:
    """A context in which `beat` is to be called at least every so many seconds; else this process ends.

    Before, it has each rank of its machine write its stack into a file. One that was stopped (SIGSTOP) is woken for
    that: a signal handler in C writes it, whatever Python does.

    Args:
        run: folder of the run; the stacks go to `stacks/rank-00000.txt` and so on, headed by the step.
        world: the ranks.
        seconds: that a step may take.
    """

    def __init__(self, run: Path, world: World, seconds: float):
        self.folder, self.world, self.seconds = run / FOLDER, world, seconds
        self.path = self.folder / f"rank-{world.rank:05d}.txt"
        self._step, self._beaten = 0, time.monotonic()
        self._ended = threading.Event()

    def beat(self, step: int) -> None:
        """The run is alive, and has done so many steps."""
        self._step, self._beaten = step, time.monotonic()

    def __enter__(self) -> Watchdog:
        # Of containers with one host name each has processes of its own.
        space = _OWN_SPACE.stat().st_ino if _OWN_SPACE.exists() else 0
        here = zlib.crc32(f"{os.uname().nodename} {space}".encode())
        everyone = self.world.gather([os.getpid(), here])()
        self._neighbours = [pid for pid, machine in everyone if machine == here]
        with output_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            self._file = self.path.open("wb")
        self._head()
        self._file.seek(_HEADER_BYTES)
        faulthandler.register(signal.SIGUSR2, self._file, all_threads=True)
        self.beat(self._step)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        faulthandler.unregister(signal.SIGUSR2)
        told = self._file.tell() > _HEADER_BYTES
        self._file.close()
        # Where nothing was to be told the folder goes, with the last rank.
        with suppress(OSError):
            if not told:
                self.path.unlink()
            self.folder.rmdir()

    def _watch(self) -> None:
        told = -1
        while not self._ended.wait(_TICK_SECONDS):
            if self._step != told:
                told = self._step
                # Without room for it on the disk, watching goes on.
                with suppress(OSError):
                    self._head()
            if time.monotonic() - self._beaten > self.seconds:
                self._end()

    def _head(self) -> None:
        text = f"rank {self.world.rank}, {self._step} steps done at {time.strftime('%H:%M:%S')}"
        os.pwrite(self._file.fileno(), f"{text:<{_HEADER_BYTES - 1}}\n".encode(), 0)

    def _end(self) -> None:
        text = (
            f"rank {self.world.rank}: no step finished in {self.seconds:g} s after step {self._step} "
            f"(engine.timeout_seconds); what every rank was doing is in {self.folder}"
        )
        try:
            logger.error(text, extra=EVERY_RANK)
            for pid in self._neighbours:
                with suppress(OSError):
                    os.kill(pid, signal.SIGUSR2)
                    os.kill(pid, signal.SIGCONT)
            time.sleep(_WRITING_SECONDS)
        finally:
            os._exit(EXIT_CODE)

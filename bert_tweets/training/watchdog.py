"""The watchdog: a step that does not finish ends the run, after every rank's stack was written."""

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

from bert_tweets.common.logs import EVERY_RANK
from bert_tweets.common.output_folder import output_errors
from bert_tweets.distributed.world import World

from .run_folder import STACKS

logger = logging.getLogger(__name__)

# EX_SOFTWARE of sysexits.h.
EXIT_CODE = 70
_TICK_SECONDS = 0.5
_WRITING_SECONDS = 2.0
_HEADER_BYTES = 64
_PID_NAMESPACE = Path("/proc/self/ns/pid")


class Watchdog:
    """A context in which `beat` must be called at least every so many seconds; otherwise this process ends.

    First, each rank of its machine writes its stack to a file, by a signal handler in C that works whatever Python
    does. A rank that was stopped (SIGSTOP) is woken for that.

    Args:
        run: folder of the run; the stacks go to `stacks/rank-00000.txt` and so on, with the step as header.
        seconds: longest time that a step may take.
    """

    def __init__(self, run: Path, world: World, seconds: float):
        self.folder, self.world, self.seconds = run / STACKS, world, seconds
        self.path = self.folder / f"rank-{world.rank:05d}.txt"
        self._step, self._last_beat = 0, time.monotonic()
        self._ended = threading.Event()

    def beat(self, step: int) -> None:
        """Record that the run is alive, with so many steps taken."""
        self._step, self._last_beat = step, time.monotonic()

    def __enter__(self) -> Watchdog:
        # Containers with the same host name have different process ids.
        space = _PID_NAMESPACE.stat().st_ino if _PID_NAMESPACE.exists() else 0
        here = zlib.crc32(f"{os.uname().nodename} {space}".encode())
        everyone = self.world.gather([os.getpid(), here])()
        self._neighbours = [pid for pid, machine in everyone if machine == here]
        with output_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            self._file = self.path.open("wb")
        self._write_header()
        self._file.seek(_HEADER_BYTES)
        faulthandler.register(signal.SIGUSR2, self._file, all_threads=True)
        self.beat(self._step)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        faulthandler.unregister(signal.SIGUSR2)
        has_stack = self._file.tell() > _HEADER_BYTES
        self._file.close()
        # Remove the file if no stack was written; the last rank removes the folder.
        with suppress(OSError):
            if not has_stack:
                self.path.unlink()
            self.folder.rmdir()

    def _watch(self) -> None:
        written = -1
        while not self._ended.wait(_TICK_SECONDS):
            if self._step != written:
                written = self._step
                # Keep watching even if the disk is full.
                with suppress(OSError):
                    self._write_header()
            if time.monotonic() - self._last_beat > self.seconds:
                self._end()

    def _write_header(self) -> None:
        text = f"rank {self.world.rank}, {self._step} steps done at {time.strftime('%H:%M:%S')}"
        os.pwrite(self._file.fileno(), f"{text:<{_HEADER_BYTES - 1}}\n".encode(), 0)

    def _end(self) -> None:
        text = (
            f"rank {self.world.rank}: no step finished in {self.seconds:g} s after step {self._step} "
            f"(engine.timeout_seconds); the stacks of all ranks are in {self.folder}"
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

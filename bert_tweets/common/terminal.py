"""What people see in a terminal: lines, tables and progress bars."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

logger = logging.getLogger(__name__)


@contextmanager
def ignore_output_errors(stream: TextIO) -> Iterator[None]:
    """Ignore failures to write to `stream` in the block, and discard what is written to it afterwards.

    For work that continues without a reader: Ctrl-C also ends the `tee` in a pipe, a terminal is closed, a disk is
    full.
    """
    try:
        yield
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def print_line(text: str, stream: TextIO) -> None:
    """Print one line; see `ignore_output_errors`."""
    with ignore_output_errors(stream):
        print(text, file=stream, flush=True)


def console(width: int | None = None) -> Console:
    """A rich console on standard output that prints text as it stands: `:mask:` in a tweet is not an emoji.

    Args:
        width: in characters, where standard output is not a terminal; None: rich's own.
    """
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False, emoji=False)


class ProgressBar:
    """A progress bar with the remaining time in a terminal; elsewhere a log line now and then.

    A context manager; call it to advance.

    Args:
        what: the work, in a word or two.
        total, done: number of items (None if it is not known), and of those that are done at the start.
        every_seconds: least time between two log lines.
        tenths: also log a line after each tenth of `total`.
        shown: False: show nothing, as on all ranks but one.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        done: int = 0,
        every_seconds: float = 30.0,
        tenths: bool = False,
        shown: bool = True,
    ):
        self.what, self.total, self.done = what, total, done
        self.every_seconds, self.tenths, self.shown = every_seconds, tenths, shown
        self._note, self._start = "", done
        self._began = self._logged = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> ProgressBar:
        self._began = self._logged = time.monotonic()
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn(self.what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(
                *columns,
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                # Log lines appear above the bar; those of a pipe stay in it.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._bar.add_task("", total=self.total, completed=self.done)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            with ignore_output_errors(sys.stderr):
                self._bar.stop()

    def __call__(self, count: int = 1, note: str = "") -> None:
        """Advance by `count` items; `note` replaces the text next to the bar."""
        before, self.done = self.done, self.done + count
        self._note = note or self._note
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self.done, description=self._note)
        elif self.shown and self._is_due(before):
            self._logged = time.monotonic()
            logger.info(self._line())

    def _is_due(self, before: int) -> bool:
        tenth = self.tenths and self.total and self.done * 10 // self.total > before * 10 // self.total
        return bool(tenth) or time.monotonic() - self._logged >= self.every_seconds

    def _line(self) -> str:
        parts = [f"{self.what}: {self.done:,}" + (f" of {self.total:,}" if self.total else "")]
        parts += [self._note] if self._note else []
        seconds = time.monotonic() - self._began
        if self.total and self._start < self.done < self.total:
            left = seconds * (self.total - self.done) / (self.done - self._start)
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"

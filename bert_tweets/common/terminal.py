"""Progress for people who watch a terminal; nothing where nobody does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def unheard(stream: TextIO) -> Iterator[None]:
    """Lets what the block says to a stream fail; all that follows is then for nobody.

    For what goes on without a reader: Ctrl-C ends the `tee` behind a pipe too, a terminal is closed, a disk is full.
    """
    try:
        yield
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say(text: str, stream: TextIO) -> None:
    """A line for people, where there are any, see `unheard`."""
    with unheard(stream):
        print(text, file=stream, flush=True)


def console(width: int | None = None) -> Console:
    """Standard output for tables and text. What it is given it prints: `:mask:` in a tweet is no emoji there.

    Args:
        width: in characters, where nobody watches a terminal; None: rich's own.
    """
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False, emoji=False)


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal; hands out the function that advances it.

    Args:
        what: is being done, in one word.
        total: where it ends, if that is known.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)

"""Log handlers: what the command line prints of the package's log records, and a run's log file."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .terminal import print_line

PACKAGE = "bert_tweets"
# `logger.warning(text, extra=EVERY_RANK)`: shown whichever rank it comes from. All else is shown by rank 0 alone.
EVERY_RANK = {"every_rank": True}
# For text that the console shows in another way, such as the message of an exception.
FILE_ONLY = {"file_only": True}


def _is_shown(record: logging.LogRecord) -> bool:
    return os.environ.get("RANK", "0") == "0" or getattr(record, "every_rank", False)


class ConsoleHandler(logging.Handler):
    """Prints log records as the command line does.

    Information is printed unchanged to standard output; warnings and errors go to standard error, prefixed with their
    level. The streams are looked up for each record, so that a progress bar and a test's capture see them.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.addFilter(_is_shown)
        self.addFilter(lambda record: not getattr(record, "file_only", False))

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            print_line(f"{record.levelname.lower()}: {record.getMessage()}", sys.stderr)
        else:
            print_line(record.getMessage(), sys.stdout)


def log_to_console() -> None:
    """Have the package's log records printed from now on; calling it again changes nothing."""
    logger = logging.getLogger(PACKAGE)
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())


class _LogFile(logging.FileHandler):
    """A log file that never makes a run fail: on a full disk its lines are lost."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore an error of a write."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append the package's log records to a file during the block, a line each: UTC time, level, module, message."""
    handler = _LogFile(path, encoding="utf-8")
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(_is_shown)
    logger = logging.getLogger(PACKAGE)
    level = logger.level
    logger.setLevel(level or logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()

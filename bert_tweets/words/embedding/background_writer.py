"""A thread that writes results while the model computes the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

# Maximum number of pending calls: each holds some thousand vectors.
_MOST_PENDING = 2


class BackgroundWriter:
    """Runs calls in another thread, in order; leaving the block waits for all.

    An exception of a call is raised by a later `submit`, or at the end of the block.
    """

    def __enter__(self) -> BackgroundWriter:
        self._thread = ThreadPoolExecutor(1, "background-writer")
        self._pending: deque[Future[None]] = deque()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()

    def submit(self, call: Callable[..., None], *arguments: Any) -> None:
        """Queue a call; wait first if too many are pending."""
        if len(self._pending) == _MOST_PENDING:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(call, *arguments))

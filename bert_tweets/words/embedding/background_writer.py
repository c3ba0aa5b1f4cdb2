"""Behind: work that a thread does in order while the main one goes on, such as writing what the model has made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

# Calls that may wait: each holds some thousand vectors.
_MOST_WAITING = 2


class Behind:
    """Calls made one after the other, in the order in which they are handed in; leaving the block waits for all.

    What a call raises is raised by a later `do`, or at the end.
    """

    def __enter__(self) -> Behind:
        self._thread = ThreadPoolExecutor(1, "behind")
        self._waiting: deque[Future[None]] = deque()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._waiting:
                future.result()

    def do(self, call: Callable[..., None], *arguments: Any) -> None:
        """Hands in a call; waits where too many already do."""
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(call, *arguments))

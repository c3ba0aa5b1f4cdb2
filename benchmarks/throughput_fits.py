"""The largest number of tokens per step that fits into a GPU's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.worker_group import FailedError

ROUND = 1024
# The search ends when the smallest failing size is less than this factor above the largest that fits.
CLOSE = 1.03


def largest_that_fits(
    step: Callable[[int], dict[str, Any]], start: int, memory: int, tries: int = 5
) -> tuple[dict[str, Any], str]:
    """Bisect, starting where a straight line through two smaller steps reaches the memory limit.

    Args:
        step: runs a step of about this many tokens and returns its turn; raises `FailedError` if they do not fit.
        start: number of tokens that certainly fits.
        memory: device memory in bytes.
        tries: number of steps after the first two; each may have to be compiled.

    Returns:
        Columns of a row, and the reason if they are empty.
    """
    low, too_many = 0, 0
    best: dict[str, Any] = {}
    peaks: list[tuple[int, int]] = []
    reason = ""
    tokens = start
    for attempt in range(2 + tries):
        try:
            turn = step(tokens)
            peaks.append((tokens, turn["peak_memory_bytes"]))
            low, best = tokens, turn
        except FailedError as failure:
            too_many, reason = tokens, str(failure)
        if too_many and low and too_many < CLOSE * low:
            break
        tokens = _rounded(_next(attempt, start, low, too_many, peaks, memory))
        if tokens in (low, too_many):
            break
    if not best:
        return {}, reason
    columns = {
        "tokens_that_fit": sum(best["tokens"]) // len(best["tokens"]),
        "positions_that_fit": sum(best["positions"]) // len(best["positions"]),
        "tokens_that_do_not_fit": too_many or None,
        "failure": reason,
        "peak_memory_bytes": best["peak_memory_bytes"],
    }
    return columns, ""


def _next(attempt: int, start: int, low: int, too_many: int, peaks: list[tuple[int, int]], memory: int) -> float:
    if attempt == 0:
        return start / 2 if too_many else 2 * start
    if too_many:
        return (low or too_many / 4) / 2 + too_many / 2
    if attempt == 1 and len(peaks) == 2 and peaks[1][1] > peaks[0][1]:
        (few, small), (many, large) = peaks
        slope = (large - small) / (many - few)
        return max(1.1 * low, many + (0.96 * memory - large) / slope)
    return 1.06 * low


def _rounded(tokens: float) -> int:
    return max(1, round(tokens / ROUND)) * ROUND

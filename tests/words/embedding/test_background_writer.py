"""Calls run in another thread, in order, all of them, and their exceptions are raised."""

from __future__ import annotations

import threading

import pytest

from bert_tweets.words.embedding.background_writer import BackgroundWriter


def test_calls_run_in_order_in_another_thread() -> None:
    done: list[tuple[int, bool]] = []
    with BackgroundWriter() as writer:
        for number in range(20):
            writer.submit(lambda n: done.append((n, threading.current_thread() is threading.main_thread())), number)
    assert done == [(number, False) for number in range(20)]


@pytest.mark.parametrize("after", [0, 5])
def test_an_exception_of_a_call_is_raised(after: int) -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), BackgroundWriter() as writer:
        writer.submit(fail)
        for _ in range(after):
            writer.submit(lambda: None)


def test_an_exception_of_the_block_hides_that_of_a_call() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(KeyError), BackgroundWriter() as writer:
        writer.submit(fail)
        raise KeyError("ours")

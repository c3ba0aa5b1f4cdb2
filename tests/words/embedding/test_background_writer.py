"""Work that is done behind is done in order, whole, and its troubles are ours."""

from __future__ import annotations

import threading

import pytest

from bert_tweets.words.embedding.background_writer import Behind


def test_calls_are_made_in_order_by_another_thread() -> None:
    done: list[tuple[int, bool]] = []
    with Behind() as behind:
        for number in range(20):
            behind.do(lambda n: done.append((n, threading.current_thread() is threading.main_thread())), number)
    assert done == [(number, False) for number in range(20)]


@pytest.mark.parametrize("after", [0, 5])
def test_what_a_call_raises_is_raised(after: int) -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Behind() as behind:
        behind.do(fail)
        for _ in range(after):
            behind.do(lambda: None)


def test_our_own_trouble_is_not_hidden_by_its() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(KeyError), Behind() as behind:
        behind.do(fail)
        raise KeyError("ours")

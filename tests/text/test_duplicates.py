"""Copies are told by hash; the earliest stays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.text import duplicates


@given(st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=12))
def test_each_hash_is_seen_for_the_first_time_once(calls):
    seen, known = duplicates.Seen(), set()
    for call in calls:
        expected = []
        for value in call:
            expected.append(value not in known)
            known.add(value)
        assert seen.first_time(np.array(call, dtype=np.uint64)).tolist() == expected


def test_memory_is_eight_bytes_a_hash_in_few_runs():
    seen = duplicates.Seen()
    for start in range(0, 100_000, 1000):
        seen.first_time(np.arange(start, start + 1000, dtype=np.uint64))
    assert len(seen._runs) < 20
    assert sum(run.nbytes for run in seen._runs) == 800_000


def test_the_split_depends_on_text_and_seed_alone_and_has_the_share_asked_for():
    hashes = duplicates.hash_keys(pa.array([f"tweet {number}" for number in range(20_000)]))
    held = duplicates.held_out(hashes, 1, 0.1)
    assert 0.09 < held.mean() < 0.11
    assert (duplicates.held_out(hashes[::-1], 1, 0.1)[::-1] == held).all()
    other = duplicates.held_out(hashes, 2, 0.1)
    assert 0.005 < (other & held).mean() < 0.015
    assert not duplicates.held_out(hashes, 1, 0.0).any()

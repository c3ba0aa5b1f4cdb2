"""Sharing: every part goes to one rank, in order, and ranks need not say how many there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.distributed.work_split import ALL_WORK, WorkSplit

PARTS = st.lists(st.integers(0, 9), max_size=12)


def taken(share: WorkSplit, parts: list[int]) -> list[tuple[int, int]]:
    """The (unit, part) pairs of a rank, in its order, as a stage goes through them."""
    return [(unit, part) for unit in share.chunks(len(parts)) for part in share.parts_of(unit, len(parts), parts[unit])]


@given(parts=PARTS, ranks=st.integers(1, 20))
def test_ranks_take_every_part_once_and_in_order(parts: list[int], ranks: int) -> None:
    everything = [(unit, part) for unit, count in enumerate(parts) for part in range(count)]
    assert [pair for rank in range(ranks) for pair in taken(WorkSplit(rank, ranks), parts)] == everything
    assert taken(ALL_WORK, parts) == everything
    # What no rank makes would be missing where ranks are put together.
    assert sorted({unit for rank in range(ranks) for unit in WorkSplit(rank, ranks).chunks(len(parts))}) == list(
        range(len(parts))
    )


@given(units=st.integers(1, 40), parts=st.integers(1, 9), ranks=st.integers(1, 20))
def test_even_units_are_shared_evenly(units: int, parts: int, ranks: int) -> None:
    counts = [len(taken(WorkSplit(rank, ranks), [parts] * units)) for rank in range(ranks)]
    assert max(counts) - min(counts) <= 1


@given(units=st.integers(0, 10**6), ranks=st.integers(1, 1024))
def test_a_rank_makes_few_units_of_others(units: int, ranks: int) -> None:
    for rank in (0, ranks // 2, ranks - 1):
        assert len(WorkSplit(rank, ranks).chunks(units)) <= units / ranks + 2


@given(count=st.integers(0, 10**9), ranks=st.integers(1, 1024))
def test_equal_things_are_dealt_whole(count: int, ranks: int) -> None:
    ends = [WorkSplit(rank, ranks).range_for(count) for rank in (0, ranks - 1)]
    assert ends[0].start == 0 and ends[1].stop == count
    rank = ranks // 3
    assert WorkSplit(rank, ranks).range_for(count).stop == (
        WorkSplit(rank + 1, ranks).range_for(count).start if rank + 1 < ranks else count
    )

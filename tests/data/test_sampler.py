"""The sampler: shares that lose nothing and weigh alike, and a state of a few integers that opens anywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.data.permutation import Stream
from bert_tweets.data.sampler import Sampler, deal, dealing_group, state_of

Ints = npt.NDArray[np.int64]


class Counting:
    """Generated lengths that count how many are looked up."""

    def __init__(self) -> None:
        self.asked = 0

    def lengths_of(self, indices: Ints) -> Ints:
        self.asked += indices.size
        return 4 + indices * 7919 % 100


@given(world_size=st.integers(1, 5000))
def test_groups_are_neighbours_and_include_every_rank_once(world_size: int) -> None:
    groups = [dealing_group(rank, world_size) for rank in range(world_size)]
    assert all(rank in group for rank, group in enumerate(groups))
    distinct = sorted(set(groups), key=lambda group: group.start)
    assert [rank for group in distinct for rank in group] == list(range(world_size))
    sizes = [len(group) for group in distinct]
    assert max(sizes) <= 8 and max(sizes) - min(sizes) <= 1


@given(
    lengths=st.lists(st.integers(1, 512), max_size=120),
    hands=st.integers(1, 8),
    steps=st.integers(1, 3),
    data=st.data(),
)
def test_dealing_loses_nothing_and_is_fair(lengths: list[int], hands: int, steps: int, data: st.DataObject) -> None:
    """Hands that hold as many tweets differ by less than the longest tweet has more than the shortest."""
    table = np.array([data.draw(st.permutations(lengths)) for _ in range(steps)], np.int64).reshape(steps, len(lengths))
    dealt = [deal(table, hand, hands) for hand in range(hands)]
    for step in range(steps):
        assert sorted(np.concatenate([mine[step] for mine in dealt])) == list(range(len(lengths)))
        assert all((np.diff(mine[step]) > 0).all() for mine in dealt)
        sums = [int(table[step, mine[step]].sum()) for mine in dealt]
        counts = [mine.shape[1] for mine in dealt]
        assert max(counts) - min(counts) <= 1
        if lengths and max(counts) == min(counts):
            assert max(sums) - min(sums) <= max(lengths) - min(lengths)


@given(hands=st.integers(1, 8), passes=st.integers(1, 20))
def test_dealing_is_serpentine(hands: int, passes: int) -> None:
    """So that lengths which fall evenly are shared to the token."""
    lengths = np.random.default_rng(passes).permutation(np.arange(1, 1 + 2 * passes * hands))[None]
    assert len({int(lengths[0, deal(lengths, hand, hands)[0]].sum()) for hand in range(hands)}) == 1


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 200),
    batch_size=st.integers(1, 80),
    length=st.integers(1, 500),
    block_size=st.sampled_from([0, 1, 7, 64]),
    world_size=st.sampled_from([1, 2, 3, 4, 8, 9, 17]),
)
def test_the_ranks_share_the_stream(rows: int, batch_size: int, length: int, block_size: int, world_size: int) -> None:
    stream = Stream(rows, 5, batch_size, length, block_size, 3 if block_size else 0)
    for step in range(stream.steps):
        expected = np.stack(stream.slice(step, 0, 1))
        shares = [Sampler(stream, Counting(), rank, world_size).share(step, step + 1) for rank in range(world_size)]
        together = np.concatenate([np.concatenate(share) for share in shares], axis=1)
        assert np.array_equal(together[:, np.lexsort(together)], expected[:, np.lexsort(expected)])
        sizes = [share[1].shape[1] for share in shares]
        assert max(sizes) - min(sizes) <= 2  # of one in the stream, of one in the deal


def test_steps_made_at_once_equal_steps_made_one_by_one() -> None:
    stream = Stream(1000, 2, 64, 6400)
    for rank in range(3):
        sampler = Sampler(stream, Counting(), rank, 3)
        together = np.stack(sampler.share(40, 50))
        alone = [np.stack(sampler.share(step, step + 1)) for step in range(40, 50)]
        assert np.array_equal(together, np.concatenate(alone, axis=1))


def test_ranks_of_256_tweets_weigh_within_two_percent() -> None:
    """On lengths that are spread as widely as those of tweets are."""

    class Tweets:
        def lengths_of(self, indices: Ints) -> Ints:
            drawn = np.random.default_rng(0).gamma(3, 8, 10_000)
            return np.clip(drawn, 4, 128).astype(np.int64)[indices]

    stream = Stream(10_000, 0, 8 * 256, 10**9)
    for step in range(20):
        tokens = [
            Tweets().lengths_of(Sampler(stream, Tweets(), rank, 8).share(step, step + 1)[1]).sum() for rank in range(8)
        ]
        assert max(abs(count / np.mean(tokens) - 1) for count in tokens) < 0.02


@pytest.mark.parametrize("world_size", [1, 2, 8, 1000])
def test_all_steps_cost_the_same_and_no_rank_reads_lengths_outside_its_group(world_size: int) -> None:
    stream = Stream(10**9, 0, 64 * world_size, 10**12)
    for step in (10, 10**7):
        lengths = Counting()
        _, tweets = Sampler(stream, lengths, world_size // 2, world_size).share(step, step + 1)
        assert tweets.shape == (1, 64)
        assert lengths.asked == (64 * min(8, world_size) if world_size > 1 else 0)


@given(
    seed=st.integers(0, 2**63 - 1), step=st.integers(0, 10**9), batch_size=st.integers(1, 10**6), blocks=st.booleans()
)
def test_a_run_resumes_with_the_step_of_its_state(seed: int, step: int, batch_size: int, blocks: bool) -> None:
    stream = Stream(10**9, seed, batch_size, batch_size * 10**9, *((8192, 64) if blocks else ()))
    state = state_of(stream, step, "fingerprint")
    assert state.step(stream, "fingerprint") == step


def test_a_run_resumes_with_another_batch_size_that_divides_its_position() -> None:
    stream = Stream(1000, 1, 48, 10_000)
    assert state_of(stream, 10, "").step(replace(stream, batch_size=96), "") == 5
    with pytest.raises(UserError, match=r"480 tweets.*batch_size=100"):
        state_of(stream, 10, "").step(replace(stream, batch_size=100), "")
    end = state_of(stream, stream.steps, "")
    assert end.position == 10_000 and end.step(stream, "") == stream.steps


@pytest.mark.parametrize(
    ("changes", "data", "named"),
    [
        ({}, "others", "fingerprint was shards and is now others"),
        ({"seed": 2}, "shards", "seed was 1 and is now 2"),
        ({"rows": 7}, "shards", "training tweets was 1000 and is now 7"),
        (
            {"block_size": 64, "shuffle_blocks": 4},
            "shards",
            r"block_size \(0: data\.shuffle=full\) was 0 and is now 64",
        ),
    ],
)
def test_a_state_of_another_stream_is_rejected_by_name(changes: dict[str, int], data: str, named: str) -> None:
    stream = Stream(1000, 1, 50, 10_000)
    with pytest.raises(UserError, match=named) as caught:
        state_of(stream, 3, "shards").step(replace(stream, **changes), data)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)

"""The order: a permutation each epoch, cut into steps and shares that lose and repeat nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.config import DataConfig
from bert_tweets.data.permutation import Stream, permute, permute_blocks, stream_of


@given(rows=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
def test_every_tweet_occurs_once_per_epoch(rows: int, seed: int, epoch: int) -> None:
    order = permute(np.arange(rows), rows, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(rows))


def test_any_position_of_a_huge_epoch_is_computed_directly() -> None:
    rows = 10**12
    positions = np.random.default_rng(0).integers(0, rows, 1000)
    together = permute(positions, rows, 3, 1)
    assert ((together >= 0) & (together < rows)).all()
    assert together[17] == permute(positions[17:18], rows, 3, 1)[0]
    assert len(np.unique(together)) == len(np.unique(positions))


def test_orders_of_epochs_and_seeds_look_unrelated() -> None:
    rows = 10_000
    identity = np.arange(rows)
    orders = [identity, *(permute(identity, rows, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0)))]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
            assert (one == other).sum() < 12


def test_the_order_is_the_same_in_every_version() -> None:
    """A change here would change every run that anybody resumes."""
    assert permute(np.arange(6), 1000, 42, 3).tolist() == [272, 158, 390, 948, 576, 39]
    assert permute(np.arange(6), 500, 42, 3).tolist() == [487, 78, 198, 396, 288, 255]


@settings(deadline=None)
@given(
    rows=st.integers(1, 3000),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
    block_size=st.integers(1, 400),
    shuffle_blocks=st.integers(1, 12),
)
def test_every_tweet_comes_once_an_epoch_of_blocks(
    rows: int, seed: int, epoch: int, block_size: int, shuffle_blocks: int
) -> None:
    order = permute_blocks(np.arange(rows), rows, seed, epoch, block_size, shuffle_blocks)
    assert np.array_equal(np.sort(order), np.arange(rows))
    some = np.arange(0, rows, 7)
    assert np.array_equal(permute_blocks(some, rows, seed, epoch, block_size, shuffle_blocks), order[some])


def test_a_window_reads_few_blocks_and_mixes_them_well() -> None:
    rows, block_size, shuffle_blocks = 100_000, 500, 8
    window = np.arange(3 * block_size * shuffle_blocks, 4 * block_size * shuffle_blocks)
    tweets = permute_blocks(window, rows, 1, 2, block_size, shuffle_blocks)
    runs = 1 + (np.diff(np.sort(tweets)) > 1).sum()
    assert runs <= shuffle_blocks
    # A batch out of the window comes from all of its blocks.
    place = np.searchsorted(np.sort(tweets), tweets[:100]) // block_size
    assert len(np.unique(place)) == shuffle_blocks
    assert abs(np.corrcoef(window, tweets)[0, 1]) < 0.05
    assert (np.diff(tweets) == 1).sum() < 10


def test_each_epoch_has_other_blocks_and_other_tweets_at_the_end() -> None:
    rows, last = 1000, np.arange(960, 1000)
    ends = [set(permute_blocks(last, rows, 0, epoch, 64, 1).tolist()) for epoch in range(4)]
    assert all(not one & other for i, one in enumerate(ends) for other in ends[:i])


def test_any_position_of_a_huge_epoch_of_blocks_is_computed_directly() -> None:
    rows = 10**12 + 7
    positions = np.random.default_rng(0).integers(0, rows, 1000)
    together = permute_blocks(positions, rows, 3, 1, 8192, 64)
    assert ((together >= 0) & (together < rows)).all()
    assert together[17] == permute_blocks(positions[17:18], rows, 3, 1, 8192, 64)[0]
    assert len(np.unique(together)) == len(np.unique(positions))


def test_the_order_of_blocks_is_the_same_in_every_version() -> None:
    """A change here would change every run that anybody resumes."""
    assert permute_blocks(np.arange(0, 1000, 150), 1000, 42, 3, 64, 4).tolist() == KNOWN_BLOCKS


def test_the_settings_choose_the_order() -> None:
    blocks = DataConfig(shuffle="block", block_size=16, shuffle_blocks=2)
    stream = stream_of(100, 0, 10, 3, None, blocks)
    assert stream == Stream(100, 0, 10, 30, 16, 2)
    assert stream_of(100, 0, 10, 3, None, DataConfig()) == Stream(100, 0, 10, 30)
    everything = stream.tweets(np.arange(200))
    assert np.array_equal(everything[0], np.repeat([0, 1], 100))
    assert np.array_equal(np.sort(everything[1][:100]), np.arange(100))
    assert not np.array_equal(everything[1][:100], everything[1][100:])


@settings(max_examples=60)
@given(
    rows=st.integers(1, 50),
    batch_size=st.integers(1, 60),
    epochs=st.floats(0.1, 4),
    world_size=st.sampled_from([1, 2, 3, 4, 8]),
)
def test_the_shares_of_all_ranks_are_the_stream(rows: int, batch_size: int, epochs: float, world_size: int) -> None:
    stream = stream_of(rows, 5, batch_size, None, epochs)
    alone = [stream.slice(step, 0, 1) for step in range(stream.steps)]
    for step, (epoch, tweets) in enumerate(alone):
        shares = [stream.slice(step, rank, world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate([share[0] for share in shares]), epoch)
        assert np.array_equal(np.concatenate([share[1] for share in shares]), tweets)
        sizes = [len(share[1]) for share in shares]
        assert max(sizes) - min(sizes) <= 1
    assert sum(len(tweets) for _, tweets in alone) == stream.length == max(1, round(epochs * rows))
    everything = np.concatenate([epoch * rows + tweets for epoch, tweets in alone])
    assert len(np.unique(everything)) == len(everything)


def test_each_epoch_has_its_own_order() -> None:
    stream = Stream(rows=500, seed=42, batch_size=500, length=1000)
    first, second = (stream.slice(step, 0, 1)[1] for step in range(2))
    assert first[:6].tolist() == permute(np.arange(6), 500, 42, 0).tolist()
    assert second[:6].tolist() == permute(np.arange(6), 500, 42, 1).tolist()
    for one, other in ((first, second), (first, np.arange(500)), (second, np.arange(500))):
        assert (one == other).mean() < 0.05


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
def test_a_step_may_straddle_two_epochs(world_size: int) -> None:
    stream = Stream(rows=10, seed=0, batch_size=8, length=40)
    epochs = np.concatenate([stream.slice(1, rank, world_size)[0] for rank in range(world_size)])
    assert epochs.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


# Every 150th position of 1,000, in blocks of 64, windows of 4, under seed 42 in epoch 3.
KNOWN_BLOCKS = [3, 774, 869, 897, 314, 523, 733]

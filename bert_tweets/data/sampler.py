"""The sampler: the tweets of each rank and step, and the few integers that describe the state of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bert_tweets.common.arrays import Ints
from bert_tweets.common.errors import UserError

from .permutation import Stream

# Maximum number of ranks among which tweets are dealt: a rank looks up the lengths of all their tweets.
_LARGEST_GROUP = 8


class Lengths(Protocol):
    """An object that knows the lengths of tweets, such as a `Split`."""

    def lengths_of(self, indices: Ints) -> Ints: ...


@dataclass(frozen=True)
class SamplerState:
    """The position of a run in its stream, from which it can resume at any number of ranks.

    Attributes:
        seed: key of the order.
        position: number of tweets of the stream that were used.
        rows: number of tweets in an epoch.
        block_size, shuffle_blocks: order within an epoch, see `Stream`.
        data: fingerprint of the manifest.
    """

    seed: int
    position: int
    rows: int
    block_size: int
    shuffle_blocks: int
    data: str

    def step(self, stream: Stream, data: str) -> int:
        """The step with which a run of this stream, over shards with the fingerprint `data`, resumes.

        Raises:
            UserError: it is another stream (the message names the first difference), or none of its steps begins where
                the saved run stopped.
        """
        other = state_of(stream, 0, data)
        for name in ("data", "rows", "seed", "block_size", "shuffle_blocks"):
            saved, now = getattr(self, name), getattr(other, name)
            if saved != now:
                raise UserError(
                    f"cannot resume: {_FIELD_TEXTS[name]} was {saved} and is now {now}; "
                    "resume with the original value, or start a new run"
                )
        if self.position % stream.batch_size and self.position != stream.length:
            raise UserError(
                f"cannot resume: the run stopped after {self.position} tweets, which is not a multiple of "
                f"batch_size={stream.batch_size}; resume with a batch_size that divides it"
            )
        return -(-self.position // stream.batch_size)


_FIELD_TEXTS = {
    "data": "the shards' fingerprint",
    "rows": "the number of training tweets",
    "seed": "seed",
    "block_size": "data.block_size (0: data.shuffle=full)",
    "shuffle_blocks": "data.shuffle_blocks (0: data.shuffle=full)",
}


def state_of(stream: Stream, step: int, data: str) -> SamplerState:
    """The state before a step, in constant time; `data` is the fingerprint of the manifest."""
    position = min(step * stream.batch_size, stream.length)
    return SamplerState(stream.seed, position, stream.rows, stream.block_size, stream.shuffle_blocks, data)


def dealing_group(rank: int, world_size: int) -> range:
    """The group of at most eight neighbouring ranks among which tweets are dealt; group sizes differ by at most one."""
    groups = -(-world_size // _LARGEST_GROUP)
    group = ((rank + 1) * groups - 1) // world_size
    return range(group * world_size // groups, (group + 1) * world_size // groups)


def deal(lengths: Ints, hand: int, hands: int) -> Ints:
    """Deal tweets by length, longest first, in serpentine order among the hands.

    Hands differ by at most one tweet. Hands with equally many tweets differ by at most (longest - shortest) tokens:
    what one pass deals too much, the next, in the other direction, takes back.

    Args:
        lengths: int64 [steps, tweets]; each step is dealt separately.
        hand, hands: number of this hand, and of hands in total.

    Returns:
        int64 [steps, tweets of this hand], indices into `lengths`, ascending within a step.
    """
    rounds = np.arange(-(-lengths.shape[1] // hands))
    taken = rounds * hands + np.where(rounds % 2, hands - 1 - hand, hand)
    # Tweets have few tokens, and 16-bit integers are sorted by counting.
    longest_first = np.argsort((2**16 - 1 - lengths).astype(np.uint16), axis=1, kind="stable")
    return np.sort(longest_first[:, taken[taken < lengths.shape[1]]], axis=1)


@dataclass(frozen=True)
class Sampler:
    """The tweets of one rank, step by step; each rank computes its own, without communication.

    Attributes:
        stream: tweets of all ranks.
        lengths: lengths of the tweets; used only if there are several ranks.
        rank, world_size: this rank, and number of ranks.
    """

    stream: Stream
    lengths: Lengths
    rank: int = 0
    world_size: int = 1

    def share(self, first: int, last: int) -> tuple[Ints, Ints]:
        """This rank's tweets of the steps [first, last), which have one size.

        Returns:
            Epochs and tweet indices, int64 [steps, tweets] each, in the order of the stream.
        """
        group = dealing_group(self.rank, self.world_size)
        positions = self.stream.positions(first, last, group[0], len(group), self.world_size)
        epochs, tweets = self.stream.tweets(positions)
        if len(group) == 1:
            return epochs, tweets
        dealt = deal(self.lengths.lengths_of(tweets), self.rank - group[0], len(group))
        return np.take_along_axis(epochs, dealt, axis=1), np.take_along_axis(tweets, dealt, axis=1)

"""The sampler: which tweets a rank takes for a step, and the few integers that say where a run stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bert_tweets.common.errors import UserError

from .permutation import Stream

Ints = npt.NDArray[np.int64]

# Tweets are dealt among so many ranks at most: a rank looks up the lengths of all of them.
_LARGEST_GROUP = 8


class Lengths(Protocol):
    """Anything that knows the lengths of tweets, such as a `Split`."""

    def lengths_of(self, indices: Ints) -> Ints: ...


@dataclass(frozen=True)
class SamplerState:
    """Where a run stands in its stream: enough to go on at any number of ranks.

    Attributes:
        seed: key of the order.
        position: tweets of the stream that were taken.
        rows: tweets of an epoch.
        block_size, shuffle_blocks: order within an epoch, see `Stream`.
        data: fingerprint of the manifest.
    """

    seed: int
    position: int
    rows: int
    block_size: int
    shuffle_blocks: int
    data: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(record: dict[str, Any]) -> SamplerState:
        """The state that `to_json` wrote.

        Raises:
            UserError: a field is missing, unknown, or of another type.
        """
        kinds = {f.name: str if f.name == "data" else int for f in fields(SamplerState)}
        if set(record) != set(kinds) or any(type(record[name]) is not kind for name, kind in kinds.items()):
            raise UserError("the saved state of the sampler is damaged; resume from another checkpoint")
        return SamplerState(**record)

    def step(self, stream: Stream, data: str) -> int:
        """The step that a run of this stream goes on with.

        Args:
            stream: of the run that resumes.
            data: fingerprint of its manifest.

        Raises:
            UserError: it is another stream; the line names the first difference. Or its steps are cut so that none
                begins where the saved run stopped.
        """
        other = state_of(stream, 0, data)
        for name in ("data", "rows", "seed", "block_size", "shuffle_blocks"):
            saved, now = getattr(self, name), getattr(other, name)
            if saved != now:
                raise UserError(
                    f"cannot resume: {_CALLED[name]} was {saved} and is {now} now; "
                    "resume with what the run began with, or begin another run"
                )
        if self.position % stream.batch_size and self.position != stream.length:
            raise UserError(
                f"cannot resume: the run stopped after {self.position} tweets, which is no whole number of steps of "
                f"batch_size={stream.batch_size}; resume with a batch_size that divides it"
            )
        return -(-self.position // stream.batch_size)


_CALLED = {
    "data": "the shards' fingerprint",
    "rows": "the number of training tweets",
    "seed": "seed",
    "block_size": "data.block_size (0: data.shuffle=full)",
    "shuffle_blocks": "data.shuffle_blocks (0: data.shuffle=full)",
}


def state_of(stream: Stream, step: int, data: str) -> SamplerState:
    """The state before a step, in constant time.

    Args:
        stream: of the run.
        step: the next one to take.
        data: fingerprint of the manifest.
    """
    position = min(step * stream.batch_size, stream.length)
    return SamplerState(stream.seed, position, stream.rows, stream.block_size, stream.shuffle_blocks, data)


def dealing_group(rank: int, world_size: int) -> range:
    """The neighbouring ranks, at most eight, among which tweets are dealt; groups are even to one rank."""
    groups = -(-world_size // _LARGEST_GROUP)
    group = ((rank + 1) * groups - 1) // world_size
    return range(group * world_size // groups, (group + 1) * world_size // groups)


def deal(lengths: Ints, hand: int, hands: int) -> Ints:
    """Deals tweets by length: the longest first, to and fro among the hands.

    Hands differ by one tweet at most, and where all hold as many, by no more tokens than the longest tweet has more
    than the shortest: what one pass gives too much, the next, in the other direction, takes back.

    Args:
        lengths: int64 [steps, tweets], each step dealt apart.
        hand, hands: which of how many.

    Returns:
        int64 [steps, tweets of this hand], places in `lengths`, ascending within a step.
    """
    rounds = np.arange(-(-lengths.shape[1] // hands))
    taken = rounds * hands + np.where(rounds % 2, hands - 1 - hand, hand)
    # Tweets have few tokens: 16 bits are sorted by counting.
    longest_first = np.argsort((2**16 - 1 - lengths).astype(np.uint16), axis=1, kind="stable")
    return np.sort(longest_first[:, taken[taken < lengths.shape[1]]], axis=1)


@dataclass(frozen=True)
class Sampler:
    """A rank's tweets, step by step; each rank computes its own alone.

    Attributes:
        stream: the tweets of all ranks.
        lengths: of the tweets; asked only where there are several ranks.
        rank, world_size: this rank's place.
    """

    stream: Stream
    lengths: Lengths
    rank: int = 0
    world_size: int = 1

    def share(self, first: int, last: int) -> tuple[Ints, Ints]:
        """This rank's tweets of the steps [first, last), which are of one size.

        Returns:
            epochs and tweet indices, int64 [steps, tweets] each, in the order of the stream.
        """
        group = dealing_group(self.rank, self.world_size)
        positions = self.stream.positions(first, last, group[0], len(group), self.world_size)
        epochs, tweets = self.stream.tweets(positions)
        if len(group) == 1:
            return epochs, tweets
        dealt = deal(self.lengths.lengths_of(tweets), self.rank - group[0], len(group))
        return np.take_along_axis(epochs, dealt, axis=1), np.take_along_axis(tweets, dealt, axis=1)

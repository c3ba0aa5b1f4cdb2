"""The loader: steps of packed micro-batches, made ahead on threads, the same at any number of ranks.

Ranks are two integers here, and what ranks must agree on is a function handed in: this room knows of no
process group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from ..config import DataConfig
from ..errors import UserError
from .batches import MicroBatch, Step, take_rows, to_micro_batch
from .manifest import Manifest
from .masking import Masking
from .order import Stream
from .packing import pack
from .shards import Split

# Starts to gather one list of integers from every rank; calling the result waits for all of them, by rank.
Gather = Callable[[list[int]], Callable[[], list[list[int]]]]


def gather_alone(values: list[int]) -> Callable[[], list[list[int]]]:
    """The gathering of a world of one."""
    return lambda: [values]


@dataclass(frozen=True)
class Layout:
    """How packed rows become micro-batches.

    Attributes:
        row_length: tokens of a row.
        tokens_per_device: token capacity of a micro-batch.
        pad_id: token of empty places.
        row_multiple, masked_multiple: counts are rounded up to these, so that a device sees few shapes.
    """

    row_length: int
    tokens_per_device: int
    pad_id: int
    row_multiple: int = 1
    masked_multiple: int = 1

    @property
    def rows(self) -> int:
        """Rows of a micro-batch at most."""
        return max(1, self.tokens_per_device // self.row_length)


def row_length_of(data: DataConfig, manifest: Manifest) -> int:
    """Tokens of a packed row: what was asked for, else the shards' max_length.

    Raises:
        UserError: the longest tweet would not fit.
    """
    if data.row_length and data.row_length < manifest.max_length:
        raise UserError(
            f"data.row_length={data.row_length}: shorter than the shards' longest tweet "
            f"({manifest.max_length}); leave it out, or prepare with a smaller max_length"
        )
    return data.row_length or manifest.max_length


@dataclass(frozen=True)
class _Share:
    """A rank's share of a step, packed but not yet cut: cutting waits for what the other ranks hold."""

    batch: MicroBatch
    masked_by_row: torch.Tensor
    tokens: int
    tweets: int

    def counts(self) -> list[int]:
        return [len(self.batch.input_ids), int(self.masked_by_row.sum()), self.tokens, self.tweets]


class StepLoader:
    """Makes the steps of one rank.

    Args:
        split: the training tweets.
        stream: their order, cut into steps.
        masking: draws the masks; used here for their counts alone.
        layout: shape of the micro-batches.
        rank, world_size: this rank's place.
        gather: tells each rank what the others hold, see `Gather`.
        workers: threads that pack steps ahead; 0 packs each when it is due.
        pin: hand out page-locked memory.
    """

    def __init__(
        self,
        split: Split,
        stream: Stream,
        masking: Masking,
        layout: Layout,
        rank: int = 0,
        world_size: int = 1,
        gather: Gather = gather_alone,
        workers: int = 0,
        pin: bool = False,
    ):
        self.split, self.stream, self.masking, self.layout = split, stream, masking, layout
        self.rank, self.world_size, self.gather = rank, world_size, gather
        self.workers, self.pin = workers, pin

    def steps(self, first: int = 0) -> Iterator[Step]:
        """The steps from `first` to the end of the stream."""
        waiting: tuple[int, _Share, Callable[[], list[list[int]]]] | None = None
        for index, share in self._shares(first):
            # The next step's counts travel while this step is computed.
            following = (index, share, self.gather(share.counts()))
            if waiting:
                yield self._cut(*waiting)
            waiting = following
        if waiting:
            yield self._cut(*waiting)

    def _shares(self, first: int) -> Iterator[tuple[int, _Share]]:
        indices = range(first, self.stream.steps)
        if not self.workers:
            yield from ((index, self._share(index)) for index in indices)
            return
        ahead: deque[tuple[int, Future[_Share]]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        try:
            for index in indices:
                ahead.append((index, pool.submit(self._share, index)))
                if len(ahead) > self.workers + 1:
                    due, share = ahead.popleft()
                    yield due, share.result()
            while ahead:
                due, share = ahead.popleft()
                yield due, share.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _share(self, index: int) -> _Share:
        epochs, tweets = self.stream.slice(index, self.rank, self.world_size)
        gathered = self.split.gather(tweets)
        batch = to_micro_batch(pack(gathered, self.layout.row_length, self.layout.pad_id), tweets, epochs)
        masked = self.masking.select(batch).sum(dim=1)
        return _Share(batch, masked, len(gathered.input_ids), len(tweets))

    def _cut(self, index: int, share: _Share, wait: Callable[[], list[list[int]]]) -> Step:
        by_rank = np.array(wait(), dtype=np.int64)
        most_rows = max(1, int(by_rank[:, 0].max()))
        count = -(-most_rows // self.layout.rows)
        rows = -(-most_rows // count)
        padded = min(_round_up(rows, self.layout.row_multiple), max(rows, self.layout.rows))
        micro_batches = []
        for first in range(0, rows * count, rows):
            masked = max(1, int(share.masked_by_row[first : first + rows].sum()))
            masked = _round_up(masked, self.layout.masked_multiple)
            batch = take_rows(share.batch, first, first + rows, padded, self.layout.pad_id, masked)
            micro_batches.append(batch.pin() if self.pin else batch)
        _, masked_tokens, tokens, tweets = by_rank.sum(axis=0).tolist()
        positions = padded * count * self.world_size * self.layout.row_length
        return Step(index, micro_batches, masked_tokens, tokens, tweets, positions)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple

"""The loader: steps of packed micro-batches, made ahead of time in threads, the same at any number of ranks.

Ranks are two integers here, and communication between ranks is a function argument: this room knows no process group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from bert_tweets.common.arrays import Ints
from bert_tweets.corpus.shards.reader import Split

from .batches import MicroBatch, Step, split_rows, take_rows
from .layout import Layout
from .masking import Masking
from .packing import Placement, best_fit, lay_out
from .permutation import Stream
from .sampler import Sampler, SamplerState, state_of

_TWEETS_AT_ONCE = 8192

# Starts to gather one list of integers from every rank; calling the result waits for all of them, ordered by rank.
Gather = Callable[[list[int]], Callable[[], list[list[int]]]]


def no_stop_request() -> bool:
    """Default of `StepLoader`: no stop is requested."""
    return False


def gather_alone(values: list[int]) -> Callable[[], list[list[int]]]:
    """`Gather` for a single rank."""
    return lambda: [values]


@dataclass(frozen=True)
class _Share:
    """A rank's share of a step, packed, but not yet split into micro-batches: that needs the counts of all ranks."""

    index: int
    batch: MicroBatch
    masked_by_row: Ints
    tokens: int
    tweets: int

    def counts(self) -> list[int]:
        return [len(self.batch.input_ids), int(self.masked_by_row.sum()), self.tokens, self.tweets]


class StepLoader:
    """Make the steps of one rank.

    Several steps are made at once, so that thousands of tweets share the overhead of numpy calls.

    Args:
        split, stream: tweets, and their order, divided into steps.
        masking: only its counts are used here.
        gather: gathers counts from all ranks.
        workers: number of threads that make steps ahead of time; 0: each step is made when it is needed.
        pin: whether to use page-locked memory.
        data: fingerprint of the manifest, part of the state.
        asked: returns whether this rank was asked to stop. Gathered with the counts, so that all ranks stop after the
            same step, at the latest the one after the next.
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
        data: str = "",
        asked: Callable[[], bool] = no_stop_request,
    ):
        self.split, self.stream, self.masking, self.layout = split, stream, masking, layout
        self.sampler = Sampler(stream, split, rank, world_size)
        self.world_size, self.gather = world_size, gather
        self.workers, self.pin, self.data, self.asked = workers, pin, data, asked

    def state(self, step: int) -> SamplerState:
        """The state from which a run resumes with this step, at any world size, see `SamplerState.step`."""
        return state_of(self.stream, step, self.data)

    def steps(self, first: int = 0) -> Iterator[Step]:
        """The steps from `first` to the end of the stream."""
        waiting: tuple[_Share, Callable[[], list[list[int]]]] | None = None
        for share in self._shares(first):
            # The counts of the next step are communicated while this step is computed.
            following = (share, self.gather([*share.counts(), self.asked()]))
            if waiting:
                yield self._split(*waiting)
            waiting = following
        if waiting:
            yield self._split(*waiting)

    def _shares(self, first: int) -> Iterator[_Share]:
        if not self.workers:
            for run in self._runs(first):
                yield from self._make(run)
            return
        ahead: deque[Future[list[_Share]]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        try:
            for run in self._runs(first):
                ahead.append(pool.submit(self._make, run))
                if len(ahead) > self.workers + 1:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _runs(self, first: int) -> Iterator[range]:
        """Ranges of steps that are made at once, all of one size; short at first, so that the first step is fast."""
        whole, size = self.stream.whole_steps, 1
        most = max(1, _TWEETS_AT_ONCE * self.sampler.world_size // self.stream.batch_size)
        while first < self.stream.steps:
            last = min(first + size, whole) if first < whole else self.stream.steps
            yield range(first, last)
            first, size = last, min(2 * size, most)

    def _make(self, run: range) -> list[_Share]:
        epochs, tweets = self.sampler.share(run.start, run.stop)
        steps, each = tweets.shape
        # Read in the order in which they are stored.
        order = np.argsort(tweets, axis=None)
        gathered = self.split.gather(tweets.ravel()[order])
        lengths = np.empty(tweets.size, np.int64)
        lengths[order] = gathered.lengths
        placement = best_fit(lengths, self.layout.row_length, [each] * steps)
        segments = np.tile(np.arange(1, each + 1), steps)
        in_order = Placement(placement.row[order], placement.start[order], placement.row_ends)
        rows = lay_out(gathered, segments[order], in_order, self.layout.row_length, self.layout.pad_id)

        of_step = np.repeat(np.arange(steps) * each - 1, np.diff(placement.row_ends, prepend=0))
        masked = self.masking.count_by_row(rows, rows.segment_ids + of_step[:, None], tweets.ravel(), epochs.ravel())
        # Entry 0 of each step stands for padding.
        epochs, tweets = (np.pad(values, ((0, 0), (1, 0))) for values in (epochs, tweets))
        batches = split_rows(rows, placement.row_ends, tweets, epochs)
        by_step = np.split(masked, placement.row_ends[:-1])
        tokens = lengths.reshape(steps, each).sum(axis=1).tolist()
        return [_Share(*share, each) for share in zip(run, batches, by_step, tokens, strict=True)]

    def _split(self, share: _Share, wait: Callable[[], list[list[int]]]) -> Step:
        by_rank = np.array(wait(), dtype=np.int64)
        count, rows = self.layout.split(max(1, int(by_rank[:, 0].max())))
        micro_batches = []
        for first in range(0, rows * count, rows):
            places = self.layout.places(int(share.masked_by_row[first : first + rows].sum()))
            batch = take_rows(share.batch, first, first + rows, rows, self.layout.pad_id, places)
            batch = batch.with_room_for(self.layout.fixed.tweets) if self.layout.fixed else batch
            micro_batches.append(batch.pin() if self.pin else batch)
        _, masked_tokens, tokens, tweets, asked = by_rank.sum(axis=0).tolist()
        positions = rows * count * self.world_size * self.layout.row_length
        return Step(share.index, micro_batches, masked_tokens, tokens, tweets, positions, asked > 0)

"""Run a model over the tweets of some words, and pool the states at their tokens to vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bert_tweets.common.arrays import Floats, Ints, ranges
from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards.reader import Tweets
from bert_tweets.data.batches import MicroBatch, take_rows, to_micro_batch
from bert_tweets.data.layout import Layout
from bert_tweets.data.packing import pack
from bert_tweets.distributed.work_split import ALL_WORK, WorkSplit
from bert_tweets.engine.precision import autocast
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.words.occurrences.find import Corpus, Occurrences, tweet_chunks

Item = TypeVar("Item")
Array = npt.NDArray[Any]


def resolve_layers(layers: list[int], num_layers: int, name: str) -> list[int]:
    """The layers that the setting `layers` selects, counted from 0 (the embeddings), ascending, each once.

    Negative ones count from the end; an empty list selects the last four, or as many as there are.

    Raises:
        UserError: there is no such layer.
    """
    wrong = [layer for layer in layers if not -(num_layers + 1) <= layer <= num_layers]
    if wrong:
        raise UserError(
            f"layers={wrong[0]}: {name} has {num_layers} layers; give 0 (the embeddings) to {num_layers}, "
            f"or -1 (the last) to {-num_layers - 1}"
        )
    if not layers:
        return list(range(max(1, num_layers - 3), num_layers + 1))
    return sorted({layer % (num_layers + 1) for layer in layers})


def layer_labels(layers: list[int], layer_pooling: str) -> list[str]:
    """Names of an occurrence's vectors: `mean(9,10,11,12)`, or with `layer_pooling=none` `9`, `10`, …"""
    return list(map(str, layers)) if layer_pooling == "none" else [f"mean({','.join(map(str, layers))})"]


@dataclass(frozen=True)
class TokenPositions:
    """The tokens to read values at, for some occurrences ordered by tweet.

    Attributes:
        tweet: int64 [occurrences], index of each one's tweet.
        counts: int64 [occurrences], number of its tokens; 0: it is skipped.
        positions: int64 [sum of counts], position of each token in its tweet.
    """

    tweet: Ints
    counts: Ints
    positions: Ints

    def first_only(self) -> TokenPositions:
        """Only the first token of each occurrence."""
        begins = (np.cumsum(self.counts) - self.counts)[self.counts > 0]
        return TokenPositions(self.tweet, np.minimum(self.counts, 1), self.positions[begins])


@dataclass(frozen=True)
class Readout:
    """What is read at the tokens of an occurrence.

    Attributes:
        read: reads values at some places of a micro-batch's flattened rows: Tensor [places, ...] on the device.
        reduce: reduces the values of an occurrence's tokens to one row: values on the CPU, [tokens, ...], and number of
            tokens of each occurrence, int64 [occurrences], to an array [occurrences, ...].
        missing: the row of an occurrence that is skipped, or another rank's: NaN, or -1 in an array of integers.
    """

    read: Callable[[MicroBatch, Tensor], Tensor]
    reduce: Callable[[Tensor, Ints], Array]
    missing: Array


@dataclass(frozen=True)
class Extractor:
    """A model, and how it is run over tweets.

    The vector of an occurrence is made in this order: states of its tokens at each layer; their mean over the layers
    (`layer_pooling=mean`) or no mean (`none`); then the mean, first or maximum over its tokens. Postprocessing
    comes after that.

    Attributes:
        module: the model on the device, in evaluation mode.
        layers: the layers to read, see `resolve_layers`.
        layout: size of the micro-batches.
        precision: fp32 or bf16.
        layer_pooling: mean: one vector over all layers; none: one of each layer.
        pooling: over an occurrence's tokens: mean, first, or max (of each dimension).
        has_trained_head: whether the model came with its masked-LM head.
    """

    module: PackedMaskedLM
    layers: list[int]
    layout: Layout
    precision: str
    device: torch.device
    layer_pooling: str = "mean"
    pooling: str = "mean"
    has_trained_head: bool = True

    @property
    def width(self) -> int:
        return int(self.module.model.config.hidden_size)

    @property
    def labels(self) -> list[str]:
        """Names of an occurrence's vectors; the last one is of the highest layer."""
        return layer_labels(self.layers, self.layer_pooling)

    def vectors(
        self, corpus: Corpus, occurrences: Occurrences, share: WorkSplit = ALL_WORK
    ) -> Iterator[tuple[slice, Floats]]:
        """Run each tweet with a found occurrence once; see `run`.

        Returns:
            Slices of the occurrences, in order, with their vectors, float32 [occurrences of the slice, labels, width];
            NaN if an occurrence is not found, or is in another rank's share.
        """
        tokens = TokenPositions(occurrences.places.tweet, occurrences.subword_counts, occurrences.subword_positions)
        if self.pooling == "first":
            tokens = tokens.first_only()
        missing = np.full((len(self.labels), self.width), np.nan, np.float32)
        readout = Readout(self._layer_states, partial(pool_subwords, pooling=self.pooling), missing)
        return self.run(corpus.gather, tokens, readout, share)

    def run(
        self, gather: Callable[[Ints], Tweets], tokens: TokenPositions, readout: Readout, share: WorkSplit = ALL_WORK
    ) -> Iterator[tuple[slice, Array]]:
        """Run tweets through the model, some thousand at a time, and reduce what is read at each occurrence's tokens.

        `gather` returns the tokens of some tweets, by index; `share` is the share of the micro-batches to run.

        Returns:
            Slices of the occurrences, in order, with their rows, [occurrences of the slice, ...].
        """
        chunks, ends = list(tweet_chunks(tokens.tweet)), np.append(0, np.cumsum(tokens.counts))
        for number in share.chunks(len(chunks)):
            rows = chunks[number]
            positions = tokens.positions[ends[rows.start] : ends[rows.stop]]
            some = TokenPositions(tokens.tweet[rows], tokens.counts[rows], positions)
            values = np.repeat(readout.missing[None], len(some.tweet), axis=0)
            if some.counts.any():
                for which, reduced in self._run_chunk(
                    gather, some, readout, partial(share.parts_of, number, len(chunks))
                ):
                    values[which] = reduced
            yield rows, values

    def _run_chunk(
        self, gather: Callable[[Ints], Tweets], tokens: TokenPositions, readout: Readout, mine: Callable[[int], range]
    ) -> Iterator[tuple[Ints, Array]]:
        """Which occurrences, and their rows, a micro-batch at a time; `mine` selects from so many micro-batches."""
        used = np.flatnonzero(tokens.counts)
        tweets, home = np.unique(tokens.tweet[used], return_inverse=True)
        rows = pack(gather(tweets), self.layout.row_length, self.layout.pad_id)
        begins = np.flatnonzero((rows.segment_ids > 0) & (rows.position_ids == 0))
        tweet_start = np.empty(len(tweets), np.int64)
        tweet_start[rows.segment_ids.ravel()[begins] - 1] = begins
        start, counts = tweet_start[home], tokens.counts[used]
        size = self.layout.rows * self.layout.row_length
        # In the order of the packed rows, so that a micro-batch's occurrences are a slice, each one's tokens together.
        order = np.argsort(start, kind="stable")
        token = ranges((np.cumsum(counts) - counts)[order], counts[order])
        counts = counts[order]
        place = np.repeat(start[order], counts) + tokens.positions[token]
        ends = np.append(0, np.cumsum(counts))

        batch = to_micro_batch(rows, tweets, np.zeros_like(tweets))
        of_batches = mine(-(-rows.rows // self.layout.rows))
        bounds = np.searchsorted(start[order], np.arange(of_batches.start, of_batches.stop + 1) * size)

        def launched() -> Iterator[tuple[slice, AsyncCopy]]:
            for number, (first, last) in zip(of_batches, pairwise(bounds.tolist()), strict=True):
                top = number * self.layout.rows
                bottom = min(top + self.layout.rows, rows.rows)
                micro_batch = take_rows(batch, top, bottom, bottom - top, self.layout.pad_id, 1)
                here = place[ends[first] : ends[last]] - number * size
                yield slice(first, last), self._launch(micro_batch, torch.from_numpy(here), readout.read)

        for which, copy in prefetch_one(launched()):
            yield used[order[which]], readout.reduce(copy.wait(), counts[which])

    @torch.inference_mode()
    def _launch(self, batch: MicroBatch, places: Tensor, read: Callable[[MicroBatch, Tensor], Tensor]) -> AsyncCopy:
        with autocast(self.device, self.precision):
            moved = places.to(self.device, non_blocking=True)
            return AsyncCopy(read(batch.to(self.device), moved))

    def _layer_states(self, batch: MicroBatch, places: Tensor) -> Tensor:
        """The layers, or their mean, at some places of the flattened rows; float32 [places, labels, width]."""
        states = self.module.layers_at(batch, places, self.layers)
        if self.layer_pooling == "mean":
            states = states.mean(dim=0, keepdim=True)
        return states.transpose(0, 1)


class AsyncCopy:
    """A copy of a tensor to the CPU that does not stall its device."""

    def __init__(self, values: Tensor):
        self._values = values.to("cpu", non_blocking=True)
        self._done = None
        if values.is_cuda:
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def wait(self) -> Tensor:
        if self._done is not None:
            self._done.synchronize()
        return self._values


def prefetch_one(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each after the next one was requested, so that using one overlaps with making the next."""
    ready: list[Item] = []
    for item in items:
        yield from ready
        ready = [item]
    yield from ready


def pool_subwords(states: Tensor, counts: Ints, pooling: str) -> Floats:
    """Pool the states of each occurrence's tokens to a vector: float32 [occurrences, labels, width].

    On the CPU, which adds in a fixed order: on a GPU the last bits would change from run to run.

    Args:
        states: float32 [tokens, labels, width].
        counts: int64 [occurrences], number of tokens of each, at least one.
        pooling: mean, first (only the first token is given), or max.
    """
    if int(counts.sum()) == len(counts):
        return states.numpy()
    reduced = torch.segment_reduce(states, "max" if pooling == "max" else "mean", lengths=torch.from_numpy(counts))
    return reduced.numpy()


class Centroids:
    """Means of vectors by word, accumulated chunk by chunk."""

    def __init__(self, words: int, width: int):
        self._sums = torch.zeros(words, width, dtype=torch.float64)
        self.counts = np.zeros(words, np.int64)

    def add(self, word: Ints, vectors: Floats) -> None:
        """Add vectors, float32 [rows, width], of words, int64 [rows]."""
        # Seven times as fast as numpy's add.at.
        self._sums.index_add_(0, torch.from_numpy(word), torch.from_numpy(vectors).double())
        self.counts += np.bincount(word, minlength=len(self.counts))

    def means(self) -> Floats:
        """float32 [words, width]; NaN for a word without a vector."""
        with np.errstate(invalid="ignore"):
            return (self._sums.numpy() / self.counts[:, None]).astype(np.float32)

"""Vectors of occurrences: pooled over a word's pieces, of the mean over the chosen layers or of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bert_tweets.common.arrays import ranges
from bert_tweets.common.errors import UserError
from bert_tweets.data.batches import MicroBatch, take_rows, to_micro_batch
from bert_tweets.data.layout import Layout
from bert_tweets.data.packing import pack
from bert_tweets.distributed.work_split import ALL_WORK, WorkSplit
from bert_tweets.engine.precision import autocast
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.words.occurrences.find import FOUND, Corpus, Occurrences

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Thing = TypeVar("Thing")


def resolve_layers(asked: list[int], layers: int, name: str) -> list[int]:
    """The layers that `layers=` means, counted from 0 (the embeddings), in order, each once.

    Args:
        asked: negative ones count from the end; none: the last four, or as many as there are.
        layers: of the model, embeddings not counted.
        name: of the model, for the message.

    Raises:
        UserError: there is no such layer.
    """
    wrong = [layer for layer in asked if not -(layers + 1) <= layer <= layers]
    if wrong:
        raise UserError(
            f"layers={wrong[0]}: {name} has {layers} layers; give 0 (the embeddings) to {layers}, "
            f"or -1 (the last) to {-layers - 1}"
        )
    if not asked:
        return list(range(max(1, layers - 3), layers + 1))
    return sorted({layer % (layers + 1) for layer in asked})


def layer_labels(layers: list[int], layer_pooling: str) -> list[str]:
    """The layers as they are written beside a vector: `mean(9,10,11,12)`, or with `layer_pooling=none` `9`, `10`, …"""
    return list(map(str, layers)) if layer_pooling == "none" else [f"mean({','.join(map(str, layers))})"]


@dataclass(frozen=True)
class Reader:
    """A model, and how it is run over the tweets.

    An occurrence's vector is made in this order: the states of its pieces at each layer; their mean over the layers
    (`layer_pooling=mean`), or no mean (`none`); then the pieces' mean, first or largest values. A correction comes
    after.

    Attributes:
        module: on the device, in evaluation mode.
        layers: the layers that are read, see `resolve_layers`.
        layout: of the micro-batches.
        precision: fp32 or bf16.
        device: where the module is.
        layer_pooling: mean: one vector of all layers; none: one of each layer.
        pooling: of a word's pieces: mean, first, or max (the largest value of each dimension).
        has_trained_head: the model came with its masked-LM head.
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
        """Of the vectors of an occurrence; that of the highest layer is the last."""
        return layer_labels(self.layers, self.layer_pooling)

    def vectors(
        self, corpus: Corpus, occurrences: Occurrences, share: WorkSplit = ALL_WORK
    ) -> Iterator[tuple[slice, Floats]]:
        """Runs each tweet with a found occurrence once, some thousand tweets at a time.

        Args:
            corpus: the tweets.
            occurrences: in them.
            share: of the micro-batches.

        Returns:
            Slices of the occurrences, in order, with their vectors, float32 [occurrences of the slice, labels, width];
            NaN where an occurrence is not found, or is in another rank's share.
        """
        ends = np.cumsum(occurrences.piece_counts)
        chunks = list(occurrences.chunks())
        for number in share.chunks(len(chunks)):
            rows = chunks[number]
            first_piece = int(ends[rows.start] - occurrences.piece_counts[rows.start])
            pieces = occurrences.pieces[first_piece : int(ends[rows.stop - 1])]
            found = np.flatnonzero(occurrences.status[rows] == FOUND)
            vectors = np.full((rows.stop - rows.start, len(self.labels), self.width), np.nan, np.float32)
            if len(found):
                tweet, counts = occurrences.places.tweet[rows][found], occurrences.piece_counts[rows][found]
                if self.pooling == "first":
                    pieces, counts = pieces[np.cumsum(counts) - counts], np.ones_like(counts)
                mine = partial(share.parts_of, number, len(chunks))
                for which, values in self._vectors(corpus, tweet, counts, pieces, mine):
                    vectors[found[which]] = values
            yield rows, vectors

    def _vectors(
        self, corpus: Corpus, tweet: Ints, counts: Ints, pieces: Ints, mine: Callable[[int], range]
    ) -> Iterator[tuple[Ints, Floats]]:
        """Which occurrences, and their vectors, a micro-batch at a time.

        Args:
            corpus: the tweets.
            tweet, counts: int64 [occurrences], the tweet and the number of pieces of each.
            pieces: int64 [sum of counts], of all of them, by their positions in the tweet.
            mine: which micro-batches of so many are run.
        """
        tweets, home = np.unique(tweet, return_inverse=True)
        rows = pack(corpus.gather(tweets), self.layout.row_length, self.layout.pad_id)
        begins = np.flatnonzero((rows.segment_ids > 0) & (rows.position_ids == 0))
        tweet_start = np.empty(len(tweets), np.int64)
        tweet_start[rows.segment_ids.ravel()[begins] - 1] = begins
        start = tweet_start[home]
        size = self.layout.rows * self.layout.row_length
        # In the order of the packed rows, so that a micro-batch's occurrences are a slice, each one's pieces together.
        order = np.argsort(start, kind="stable")
        piece = ranges((np.cumsum(counts) - counts)[order], counts[order])
        counts = counts[order]
        place = np.repeat(start[order], counts) + pieces[piece]
        piece_ends = np.concatenate([[0], np.cumsum(counts)])

        batch = to_micro_batch(rows, tweets, np.zeros_like(tweets))
        of_batches = mine(-(-rows.rows // self.layout.rows))
        bounds = np.searchsorted(start[order], np.arange(of_batches.start, of_batches.stop + 1) * size)

        def states() -> Iterator[tuple[slice, Waiting]]:
            for number, (first, last) in zip(of_batches, pairwise(bounds.tolist()), strict=True):
                top = number * self.layout.rows
                bottom = min(top + self.layout.rows, rows.rows)
                micro_batch = take_rows(batch, top, bottom, bottom - top, self.layout.pad_id, 1)
                here = place[piece_ends[first] : piece_ends[last]] - number * size
                yield slice(first, last), self._states(micro_batch, torch.from_numpy(here))

        for which, waiting in one_ahead(states()):
            yield order[which], pooled(waiting.wait(), counts[which], self.pooling)

    @torch.inference_mode()
    def _states(self, batch: MicroBatch, places: Tensor) -> Waiting:
        """The layers, or their mean, at some places of the flattened rows; float32 [places, labels, width]."""
        with autocast(self.device, self.precision):
            moved = places.to(self.device, non_blocking=True)
            states = self.module.layers_at(batch.to(self.device), moved, self.layers)
        if self.layer_pooling == "mean":
            states = states.mean(dim=0, keepdim=True)
        return Waiting(states.transpose(0, 1))


class Waiting:
    """A tensor on its way to the CPU, while its device goes on.

    Args:
        values: on any device.
    """

    def __init__(self, values: Tensor):
        self._values = values.to("cpu", non_blocking=True)
        self._there = None
        if values.is_cuda:
            self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._there.record()

    def wait(self) -> Tensor:
        if self._there is not None:
            self._there.synchronize()
        return self._values


def one_ahead(things: Iterable[Thing]) -> Iterator[Thing]:
    """The same things, each after the next one has been begun: what is done with one, and the next, overlap."""
    waiting: list[Thing] = []
    for thing in things:
        yield from waiting
        waiting = [thing]
    yield from waiting


def pooled(states: Tensor, counts: Ints, pooling: str) -> Floats:
    """A vector an occurrence.

    On the CPU, which adds in order: on a GPU the last bits would change from run to run.

    Args:
        states: float32 [pieces, labels, width].
        counts: int64 [occurrences], pieces of each, one at least.
        pooling: mean, first (of which the one piece is there), or max.

    Returns:
        float32 [occurrences, labels, width].
    """
    if int(counts.sum()) == len(counts):
        return states.numpy()
    reduced = torch.segment_reduce(states, "max" if pooling == "max" else "mean", lengths=torch.from_numpy(counts))
    return reduced.numpy()


class Centroids:
    """Means of vectors by word, summed as they come.

    Args:
        words: how many.
        width: of a vector.
    """

    def __init__(self, words: int, width: int):
        self._sums = torch.zeros(words, width, dtype=torch.float64)
        self.counts = np.zeros(words, np.int64)

    def add(self, word: Ints, vectors: Floats) -> None:
        """Takes vectors [rows, width] of words [rows]."""
        # Seven times as fast as numpy's add.at.
        self._sums.index_add_(0, torch.from_numpy(word), torch.from_numpy(vectors).double())
        self.counts += np.bincount(word, minlength=len(self.counts))

    def means(self) -> Floats:
        """float32 [words, width]; NaN for a word without a vector."""
        with np.errstate(invalid="ignore"):
            return (self._sums.numpy() / self.counts[:, None]).astype(np.float32)

"""Vectors of occurrences: the mean over a word's pieces of the mean over the chosen layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from ..data.batches import MicroBatch, take_rows, to_micro_batch
from ..data.loader import Layout
from ..data.packing import pack
from ..data.sharing import ALL, Share
from ..engine.precision import autocast
from ..errors import UserError
from ..model.masked_lm import PackedMaskedLM
from .occurrences import FOUND, Corpus, Occurrences

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


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


def layer_label(layers: list[int]) -> str:
    """The layers as they are written beside a vector: `mean(9,10,11,12)`."""
    return f"mean({','.join(map(str, layers))})"


@dataclass(frozen=True)
class Reader:
    """A model, and how it is run over the tweets.

    Attributes:
        module: on the device, in evaluation mode.
        layers: the layers whose mean is taken, see `resolve_layers`.
        layout: of the micro-batches.
        precision: fp32 or bf16.
        device: where the module is.
    """

    module: PackedMaskedLM
    layers: list[int]
    layout: Layout
    precision: str
    device: torch.device

    @property
    def width(self) -> int:
        return int(self.module.model.config.hidden_size)

    def vectors(self, corpus: Corpus, occurrences: Occurrences, share: Share = ALL) -> Iterator[tuple[slice, Floats]]:
        """Runs each tweet with a found occurrence once, some thousand tweets at a time.

        Args:
            corpus: the tweets.
            occurrences: in them.
            share: of the micro-batches.

        Returns:
            Slices of the occurrences, in order, with their vectors, float32 [occurrences of the slice, width];
            NaN where an occurrence is not found, or is in another rank's share.
        """
        ends = np.cumsum(occurrences.piece_counts)
        chunks = list(occurrences.chunks())
        for number in share.units(len(chunks)):
            rows = chunks[number]
            first_piece = int(ends[rows.start] - occurrences.piece_counts[rows.start])
            pieces = occurrences.pieces[first_piece : int(ends[rows.stop - 1])]
            found = np.flatnonzero(occurrences.status[rows] == FOUND)
            vectors = np.full((rows.stop - rows.start, self.width), np.nan, np.float32)
            if len(found):
                tweet, counts = occurrences.places.tweet[rows][found], occurrences.piece_counts[rows][found]
                mine = partial(share.within, number, len(chunks))
                vectors[found] = self._vectors(corpus, tweet, counts, pieces, mine)
            yield rows, vectors

    @torch.inference_mode()
    def _vectors(self, corpus: Corpus, tweet: Ints, counts: Ints, pieces: Ints, mine: Callable[[int], range]) -> Floats:
        """float32 [occurrences, width], from the tweet and number of pieces of each, and all their pieces.

        Only of the micro-batches that are `mine` of so many; NaN elsewhere.
        """
        tweets, home = np.unique(tweet, return_inverse=True)
        rows = pack(corpus.gather(tweets), self.layout.row_length, self.layout.pad_id)
        begins = np.flatnonzero((rows.segment_ids > 0) & (rows.position_ids == 0))
        tweet_start = np.empty(len(tweets), np.int64)
        tweet_start[rows.segment_ids.ravel()[begins] - 1] = begins
        owner = np.repeat(np.arange(len(tweet)), counts)
        place = tweet_start[home[owner]] + pieces
        # In the order of the packed rows, so that a micro-batch's pieces are a slice.
        order = np.argsort(place, kind="stable")
        owner, place = owner[order], place[order]

        batch = to_micro_batch(rows, tweets, np.zeros_like(tweets))
        vectors = np.full((len(tweet), self.width), np.nan, np.float32)
        firsts = range(0, rows.rows, self.layout.rows)
        run = mine(len(firsts))
        for first in firsts[run.start : run.stop]:
            last = min(first + self.layout.rows, rows.rows)
            micro_batch = take_rows(batch, first, last, last - first, self.layout.pad_id, 1)
            bounds = np.array([first, last]) * self.layout.row_length
            here = slice(*np.searchsorted(place, bounds).tolist())
            states = self._states(micro_batch, torch.from_numpy(place[here] - bounds[0]))
            occurrence, group = np.unique(owner[here], return_inverse=True)
            # On the CPU, which adds in order: on a GPU the last bits would change from run to run.
            sums = torch.zeros(len(occurrence), self.width)
            sums.index_add_(0, torch.from_numpy(group), states.cpu())
            vectors[occurrence] = sums.numpy() / counts[occurrence, None].astype(np.float32)
        return vectors

    def _states(self, batch: MicroBatch, places: torch.Tensor) -> torch.Tensor:
        """The mean over the chosen layers at some places of the flattened rows; float32 [places, width]."""
        with autocast(self.device, self.precision):
            states = self.module.hidden_states(batch.to(self.device))
        at = places.to(self.device)
        return torch.stack([states[layer].flatten(0, 1)[at].float() for layer in self.layers]).mean(dim=0)


class Centroids:
    """Means of vectors by word, summed as they come.

    Args:
        words: how many.
        width: of a vector.
    """

    def __init__(self, words: int, width: int):
        self._sums = np.zeros((words, width), np.float64)
        self.counts = np.zeros(words, np.int64)

    def add(self, word: Ints, vectors: Floats) -> None:
        """Takes vectors [rows, width] of words [rows]."""
        np.add.at(self._sums, word, vectors)
        self.counts += np.bincount(word, minlength=len(self.counts))

    def means(self) -> Floats:
        """float32 [words, width]; NaN for a word without a vector."""
        with np.errstate(invalid="ignore"):
            return (self._sums / self.counts[:, None]).astype(np.float32)

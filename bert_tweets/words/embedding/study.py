"""A study: what all models are asked, and what each of them answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.words.occurrences.control_words import ControlWord
from bert_tweets.words.occurrences.find import Corpus, Occurrences
from bert_tweets.words.occurrences.matching import Asked
from bert_tweets.words.store.vector_space import Vectors

from .drift import Side
from .neighbours import Background

Floats = npt.NDArray[np.float32]
Neighbours = list[tuple[str, float]]

# What rows call the models; further training seeds are `model.2`, `model.3`.
MODEL, BASE = "model", "base"


@dataclass(frozen=True)
class Study:
    """What all models are asked.

    Attributes:
        corpus: the tweets of both splits.
        words: the asked words.
        controls: ordinary words, numbered on from the asked ones.
        background: the words that neighbours are chosen from.
        occurrences: of the asked words and the controls.
        background_occurrences: of the background's words, by their number there.
        matches: int64 [words and controls], places of each in all tweets, before `max_occurrences`.
        tokenizer: of the tweets.
    """

    corpus: Corpus
    words: list[Asked]
    controls: list[ControlWord]
    background: Background
    occurrences: Occurrences
    background_occurrences: Occurrences
    matches: npt.NDArray[np.int64]
    tokenizer: Any

    @property
    def embedded(self) -> list[Asked | ControlWord]:
        """Asked words, then controls."""
        return [*self.words, *self.controls]


@dataclass(frozen=True)
class Answer:
    """One model's.

    Attributes:
        name: folder or hub name of the model.
        layers: as `layer` says of the rows.
        centroids: of asked words and controls, in one space, NaN where one was not found.
        neighbours: of each, (word, cosine), nearest first.
        distances: of each, see `distance_ranks`.
    """

    name: str
    layers: list[str]
    centroids: Vectors
    neighbours: list[Neighbours]
    distances: list[Floats | None]

    @property
    def side(self) -> Side:
        return Side([[word for word, _ in ranked] for ranked in self.neighbours], self.distances)

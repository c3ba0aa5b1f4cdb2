"""A study: the words and occurrences that every model embeds, and the result of one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bert_tweets.common.arrays import Floats, Ints
from bert_tweets.words.occurrences.control_words import ControlWord
from bert_tweets.words.occurrences.find import Corpus, Occurrences
from bert_tweets.words.occurrences.matching import ChosenWord
from bert_tweets.words.store.summary import Neighbour
from bert_tweets.words.store.vector_space import Vectors

from .neighbours import Background

# Roles: values of the column `model`; further training seeds are `model.2`, `model.3`.
MODEL, BASE = "model", "base"


@dataclass(frozen=True)
class Study:
    """The words and occurrences that every model embeds.

    Attributes:
        corpus: the tweets of both splits.
        words: the chosen words.
        control_words: the control words, numbered after the chosen words.
        occurrences: occurrences of chosen words and control words.
        background_occurrences: occurrences of the background words, by their number there.
        matches: int64 [chosen words and control words], number of places in all tweets, before `max_occurrences`.
    """

    corpus: Corpus
    words: list[ChosenWord]
    control_words: list[ControlWord]
    background: Background
    occurrences: Occurrences
    background_occurrences: Occurrences
    matches: Ints
    tokenizer: Any

    @property
    def embedded(self) -> list[ChosenWord | ControlWord]:
        """Chosen words, then control words."""
        return [*self.words, *self.control_words]


@dataclass(frozen=True)
class ModelResult:
    """The result of one model.

    Attributes:
        name: folder or hub name of the model.
        centroids: mean vectors of chosen words and control words; NaN if a word was not found.
        neighbours: nearest background words of each word.
        distance_ranks: of each word, see `drift.distance_ranks`.
    """

    name: str
    layers: list[str]
    centroids: Vectors
    neighbours: list[list[Neighbour]]
    distance_ranks: list[Floats | None]

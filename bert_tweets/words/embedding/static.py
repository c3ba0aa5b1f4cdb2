"""Static input vectors: what a model has of a word before it sees any context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import ranges
from bert_tweets.words.occurrences.find import FOUND, Corpus, Occurrences

Floats = npt.NDArray[np.float32]
Tokens = tuple[int, ...]


def usual_tokens(corpus: Corpus, occurrences: Occurrences, words: int) -> list[Tokens]:
    """The token ids that each word's found occurrences are written with most often; none for a word not found.

    A word may be written in several ways (its case, what a phrase has between its words); of ways that are equally
    frequent the one with the smaller ids counts.

    Args:
        corpus: the tweets.
        occurrences: in them.
        words: how many; occurrences of later numbers do not count.
    """
    counted: list[Counter[Tokens]] = [Counter() for _ in range(words)]
    ends = np.cumsum(occurrences.piece_counts)
    for rows in occurrences.chunks():
        chosen = np.flatnonzero((occurrences.status[rows] == FOUND) & (occurrences.places.word[rows] < words))
        if not len(chosen):
            continue
        counts = occurrences.piece_counts[rows][chosen]
        tweets, home = np.unique(occurrences.places.tweet[rows][chosen], return_inverse=True)
        tokens = corpus.gather(tweets)
        begins = (np.cumsum(tokens.lengths) - tokens.lengths)[home]
        pieces = occurrences.pieces[ranges(ends[rows][chosen] - counts, counts)]
        # A row an occurrence: its word, then its tokens, then -1.
        table = np.full((len(chosen), 1 + int(counts.max())), -1, np.int64)
        table[:, 0] = occurrences.places.word[rows][chosen]
        owner = np.repeat(np.arange(len(chosen)), counts)
        column = ranges(np.ones_like(counts), counts)
        table[owner, column] = tokens.input_ids[np.repeat(begins, counts) + pieces]
        distinct, times = np.unique(table, axis=0, return_counts=True)
        for (word, *ids), count in zip(distinct.tolist(), times.tolist(), strict=True):
            counted[word][tuple(token for token in ids if token >= 0)] += count
    return [min(ways, key=lambda ids: (-ways[ids], ids)) if ways else () for ways in counted]


def static_vectors(matrix: Floats, tokens: Sequence[Tokens]) -> Floats:
    """The mean of the rows of a model's input embedding matrix for each word; NaN for a word without tokens.

    Neither positions nor the embeddings' LayerNorm have a part in it; no correction is applied.

    Args:
        matrix: float32 [vocabulary, width].
        tokens: ids of each word.

    Returns:
        float32 [words, width].
    """
    vectors = np.full((len(tokens), matrix.shape[1]), np.nan, np.float32)
    for word, ids in enumerate(tokens):
        if ids:
            vectors[word] = matrix[list(ids)].mean(axis=0, dtype=np.float64)
    return vectors

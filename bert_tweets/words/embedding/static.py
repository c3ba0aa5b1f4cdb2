"""Static input vectors: the rows of a model's input embedding matrix for a word, before any context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bert_tweets.common.arrays import Floats, ranges
from bert_tweets.words.occurrences.find import Corpus, Occurrences, tweet_chunks

Tokens = tuple[int, ...]


def most_common_tokens(corpus: Corpus, occurrences: Occurrences, words: int) -> list[Tokens]:
    """The token ids that each word's found occurrences have most often; empty for a word that was not found.

    A word may have several tokenisations (case, spaces within a phrase); of equally frequent ones the one with the
    smaller ids counts. Occurrences of words with numbers from `words` on are ignored.
    """
    counted: list[Counter[Tokens]] = [Counter() for _ in range(words)]
    ends = np.cumsum(occurrences.subword_counts)
    for rows in tweet_chunks(occurrences.places.tweet):
        chosen = np.flatnonzero((occurrences.subword_counts[rows] > 0) & (occurrences.places.word[rows] < words))
        if not len(chosen):
            continue
        counts = occurrences.subword_counts[rows][chosen]
        tweets, home = np.unique(occurrences.places.tweet[rows][chosen], return_inverse=True)
        tokens = corpus.gather(tweets)
        begins = (np.cumsum(tokens.lengths) - tokens.lengths)[home]
        positions = occurrences.subword_positions[ranges(ends[rows][chosen] - counts, counts)]
        # A row per occurrence: its word, then its tokens, then -1.
        table = np.full((len(chosen), 1 + int(counts.max())), -1, np.int64)
        table[:, 0] = occurrences.places.word[rows][chosen]
        owner = np.repeat(np.arange(len(chosen)), counts)
        column = ranges(np.ones_like(counts), counts)
        table[owner, column] = tokens.input_ids[np.repeat(begins, counts) + positions]
        distinct, times = np.unique(table, axis=0, return_counts=True)
        for (word, *ids), count in zip(distinct.tolist(), times.tolist(), strict=True):
            counted[word][tuple(token for token in ids if token >= 0)] += count
    return [min(ways, key=lambda ids: (-ways[ids], ids)) if ways else () for ways in counted]


def static_vectors(matrix: Floats, tokens: Sequence[Tokens]) -> Floats:
    """The mean of the rows of a model's input embeddings for each word: float32 [words, width], NaN without tokens.

    Positions, the embeddings' LayerNorm and corrections are not applied. `matrix` is float32 [vocabulary, width].
    """
    vectors = np.full((len(tokens), matrix.shape[1]), np.nan, np.float32)
    for word, ids in enumerate(tokens):
        if ids:
            vectors[word] = matrix[list(ids)].mean(axis=0, dtype=np.float64)
    return vectors

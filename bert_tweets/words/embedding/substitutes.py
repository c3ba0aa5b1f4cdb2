"""Substitutes: the words that the masked-LM head predicts in place of a word, if the word is masked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bert_tweets.common.arrays import Bools, Ints, ranges
from bert_tweets.corpus.shards.reader import Tweets
from bert_tweets.data.batches import MicroBatch
from bert_tweets.distributed.world import World
from bert_tweets.words.occurrences.find import Corpus, Occurrences

from .extractor import Extractor, Readout, TokenPositions
from .gather_ordered import gather_ordered

# How a vocabulary marks a token that begins a word; WordPiece marks a continuation instead.
_BEGINNINGS, _CONTINUATION = ("Ġ", "▁"), "##"


@dataclass(frozen=True)
class Substitutes:
    """The substitutes of each occurrence.

    Attributes:
        ids: int64 [occurrences, count], token ids, likeliest first; -1 if there is none.
        words: string [vocabulary], the word that each token is.
    """

    ids: Ints
    words: pa.Array

    def column(self, rows: Ints | slice) -> pa.Array:
        """list<string> [rows], null if an occurrence has none."""
        ids = self.ids[rows]
        there = ids >= 0
        present = there.any(axis=1)
        offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), pa.int32())
        taken = self.words.take(pa.array(ids[there]))
        return pa.ListArray.from_arrays(offsets, taken, mask=pa.array(~present))


def substitutes_of(
    reader: Extractor,
    corpus: Corpus,
    occurrences: Occurrences,
    num_chosen: int,
    count: int,
    tokenizer: Any,
    world: World,
    folder: Path,
) -> Substitutes:
    """Replace each occurrence of a chosen word by one [MASK], however many tokens it has, and take the likeliest words.

    This is the masking and ranking of Amrami and Goldberg 2018, "Word sense induction with neural biLM and symmetric
    patterns", proposed for language models before BERT. A word is a token of two letters or more that begins one:
    neither a continuation nor a special token. Every rank calls it, and runs its share. Control words, with numbers
    from `num_chosen` on, are skipped; `folder` is for intermediate files, on a disk that all ranks see.

    Returns:
        The substitutes on rank 0; on the others without any.
    """
    is_word, words = word_tokens(tokenizer, reader.module.model.get_output_embeddings().out_features)
    allowed = torch.from_numpy(is_word).to(reader.device)
    # One more than requested: the word itself may be among them.
    more = min(count + 1, int(is_word.sum()))

    def likeliest(batch: MicroBatch, places: Tensor) -> Tensor:
        return reader.module.likeliest(batch, places, allowed, more)

    readout = Readout(likeliest, lambda ids, _: ids.numpy(), np.full(more, -1))
    # Each occurrence has a tweet of its own, in which the word is masked.
    first = occurrences.first_positions(slice(0, len(occurrences)))
    included = (first >= 0) & (occurrences.places.word < num_chosen)
    tokens = TokenPositions(np.arange(len(first)), included.astype(np.int64), first[included])
    masked = partial(mask_words, corpus, occurrences, first, int(tokenizer.mask_token_id))
    mine = (
        (rows, without_original(ids, single_tokens(corpus, occurrences, first, rows)))
        for rows, ids in reader.run(masked, tokens, readout, world.work_split)
    )
    ids = np.full((len(occurrences), more), -1, np.int64)
    for rows, values in gather_ordered(mine, "substitutes", world, folder):
        ids[rows] = values
    return Substitutes(ids[:, :count], words)


def word_tokens(tokenizer: Any, size: int) -> tuple[Bools, pa.Array]:
    """Which tokens are words, bool [size], and the word of each, string [size], empty if it is not a word.

    `size` is the number of tokens of the model, which may be more than the tokenizer's.
    """
    known = min(len(tokenizer), size)
    tokens = tokenizer.convert_ids_to_tokens(list(range(known)))
    marked = any(token.startswith(_BEGINNINGS) for token in tokens)
    special = set(tokenizer.all_special_ids)
    words = [""] * size
    for number, token in enumerate(tokens):
        begins = token.startswith(_BEGINNINGS) if marked else not token.startswith(_CONTINUATION)
        if begins and number not in special:
            word = tokenizer.convert_tokens_to_string([token]).strip()
            words[number] = word if word.isalpha() and len(word) > 1 else ""
    return np.array([bool(word) for word in words]), pa.array(words, pa.string())


def mask_words(corpus: Corpus, occurrences: Occurrences, first: Ints, mask_id: int, rows: Ints) -> Tweets:
    """The tokens of the tweets of some found occurrences, with the word's tokens replaced by one mask token.

    `first` is int64 [occurrences], the position of the word's first token; `rows` are int64 indices of occurrences.
    """
    tweets, counts = corpus.gather(occurrences.places.tweet[rows]), occurrences.subword_counts[rows]
    at = np.cumsum(tweets.lengths) - tweets.lengths + first[rows]
    ids, keep = tweets.input_ids.copy(), np.ones(len(tweets.input_ids), np.bool_)
    ids[at] = mask_id
    keep[ranges(at + 1, counts - 1)] = False
    return Tweets(tweets.lengths - counts + 1, ids[keep], tweets.word_starts[keep])


def single_tokens(corpus: Corpus, occurrences: Occurrences, first: Ints, rows: slice) -> Ints:
    """The token id of each occurrence that is a single token; int64 [rows], -1 for the others."""
    single = np.flatnonzero(occurrences.subword_counts[rows] == 1)
    tweets = corpus.gather(occurrences.places.tweet[rows][single])
    tokens = np.full(rows.stop - rows.start, -1, np.int64)
    tokens[single] = tweets.input_ids[np.cumsum(tweets.lengths) - tweets.lengths + first[rows][single]]
    return tokens


def without_original(ids: Ints, original: Ints) -> Ints:
    """Move the original word's token to the end of its row.

    `ids` is int64 [rows, count], likeliest first; `original` int64 [rows], -1 if the word is not a single token.
    """
    order = np.argsort(ids == original[:, None], axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)

"""Substitutes: the words that the masked-LM head would put where a word stands, were the word hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from bert_tweets.common.arrays import ranges
from bert_tweets.corpus.shards.reader import Tweets
from bert_tweets.data.batches import MicroBatch
from bert_tweets.distributed.world import World
from bert_tweets.engine.precision import autocast
from bert_tweets.words.occurrences.find import FOUND, UNKNOWN, Corpus, Occurrences, Places

from .extractor import Floats, Reader, Waiting
from .gather_ordered import in_order

Ints = npt.NDArray[np.int64]

# How a vocabulary marks the token that a word begins with; a continuation is marked by WordPiece's own sign.
_BEGINNINGS, _CONTINUATION = ("Ġ", "▁"), "##"


@dataclass(frozen=True)
class Substitutes:
    """Of each occurrence, its substitutes.

    Attributes:
        ids: int64 [occurrences, count], tokens, likeliest first; -1 where there is none.
        words: string [vocabulary], the word that each token is.
    """

    ids: Ints
    words: pa.Array

    def column(self, rows: Ints) -> pa.Array:
        """list<string> [rows], null where an occurrence has none."""
        ids = self.ids[rows]
        there = ids >= 0
        present = there.any(axis=1)
        offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), pa.int32())
        taken = self.words.take(pa.array(ids[there]))
        return pa.ListArray.from_arrays(offsets, taken, mask=pa.array(~present))


def substitutes_of(
    reader: Reader,
    corpus: Corpus,
    occurrences: Occurrences,
    asked: int,
    count: int,
    tokenizer: Any,
    world: World,
    folder: Path,
) -> Substitutes:
    """Hides each asked occurrence behind a single [MASK], whatever its pieces, and takes the likeliest other words.

    Hidden and ranked so by Amrami and Goldberg 2018, "Word sense induction with neural biLM and symmetric patterns",
    for language models before BERT. A word is a token of two letters or more that begins one: neither a continuation
    nor a special token. Every rank calls it, and runs its share.

    Args:
        reader: of a model with a trained head.
        corpus: the tweets.
        occurrences: in them; those of words from number `asked` on (controls) are left out.
        asked: asked words.
        count: substitutes of an occurrence.
        tokenizer: of the shards.
        world: the ranks.
        folder: on a disk that all of them see.

    Returns:
        On rank 0; without any on the others.
    """
    is_word, words = word_tokens(tokenizer, reader.module.model.get_output_embeddings().out_features)
    hidden = Hidden(corpus, occurrences, int(tokenizer.mask_token_id))
    allowed = torch.from_numpy(is_word).to(reader.device)
    # One more than asked for: the word itself may be among them.
    more = min(count + 1, int(is_word.sum()))
    given = {name: getattr(reader, name) for name in ("module", "layers", "layout", "precision", "device")}
    likeliest = Likeliest(**given, allowed=allowed, count=more)
    ids = np.full((len(occurrences), more), -1, np.int64)
    # Of a corpus, tokens are all that is asked here.
    mine = likeliest.vectors(cast(Corpus, hidden), hidden.each(asked), world.work_split)
    others = ((rows, hidden.own_last(rows, values)) for rows, values in mine)
    for rows, values in in_order(others, "substitutes", world, folder):
        ids[rows] = np.nan_to_num(values[:, 0], nan=-1)
    return Substitutes(ids[:, :count], words)


def word_tokens(tokenizer: Any, size: int) -> tuple[npt.NDArray[np.bool_], pa.Array]:
    """Which tokens are words, bool [size], and how each is written, string [size]; none beyond the tokenizer's.

    Args:
        tokenizer: a fast tokenizer of `transformers`.
        size: tokens that the model knows.
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


class Hidden:
    """Tweets by occurrence, the word of each hidden.

    Args:
        corpus: the tweets.
        occurrences: in them.
        mask_id: what stands in place of a word.
    """

    def __init__(self, corpus: Corpus, occurrences: Occurrences, mask_id: int):
        self._corpus, self._occurrences, self._mask_id = corpus, occurrences, mask_id
        counts = occurrences.piece_counts
        self._first = np.full(len(occurrences), -1, np.int64)
        self._first[counts > 0] = occurrences.pieces[(np.cumsum(counts) - counts)[counts > 0]]
        # The token that each word is, of those that were gathered; -1 where it is several.
        self._own = np.full(len(occurrences), -1, np.int64)

    def each(self, asked: int) -> Occurrences:
        """Found occurrences of the first words, each in a tweet of its own: one token, the hidden one."""
        places, there = self._occurrences.places, self._occurrences.status == FOUND
        there &= places.word < asked
        tweet = np.arange(len(places))
        status = np.where(there, FOUND, UNKNOWN).astype(np.int8)
        alone = Places(places.word, tweet, places.start, places.end)
        counts = there.astype(np.int64)
        return replace(self._occurrences, places=alone, status=status, piece_counts=counts, pieces=self._first[there])

    def gather(self, indices: Ints) -> Tweets:
        """The tokens around the hidden words of some occurrences."""
        tweets = self._corpus.gather(self._occurrences.places.tweet[indices])
        counts = self._occurrences.piece_counts[indices]
        at = np.cumsum(tweets.lengths) - tweets.lengths + self._first[indices]
        self._own[indices] = np.where(counts == 1, tweets.input_ids[at], -1)
        ids, kept = tweets.input_ids.copy(), np.ones(len(tweets.input_ids), np.bool_)
        ids[at] = self._mask_id
        kept[ranges(at + 1, counts - 1)] = False
        return Tweets(tweets.lengths - counts + 1, ids[kept], tweets.word_starts[kept])

    def own_last(self, rows: slice, values: Floats) -> Floats:
        """Tokens of gathered occurrences, float32 [rows, 1, count], with the word itself behind the others."""
        order = np.argsort(values == self._own[rows][:, None, None], axis=2, kind="stable")
        return np.take_along_axis(values, order, axis=2)


@dataclass(frozen=True)
class Likeliest(Reader):
    """Reads the likeliest tokens where a Reader reads states; as float32, which holds ids up to 16 million exactly.

    Attributes:
        allowed: bool [vocabulary], tokens to choose from.
        count: of an occurrence.
    """

    allowed: Tensor | None = None
    count: int = 1

    @property
    def width(self) -> int:
        return self.count

    @property
    def labels(self) -> list[str]:
        return ["substitutes"]

    @torch.inference_mode()
    def _states(self, batch: MicroBatch, places: Tensor) -> Waiting:
        """Tokens at some places of the flattened rows; float32 [places, 1, count]."""
        assert self.allowed is not None
        with autocast(self.device, self.precision):
            moved = places.to(self.device, non_blocking=True)
            found = self.module.likeliest(batch.to(self.device), moved, self.allowed, self.count)
        return Waiting(found.float()[:, None])

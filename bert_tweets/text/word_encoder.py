"""Encoding by words: a tweet's tokens are those of its words, and a word met before is not encoded again.

Words are what stands between spaces. BERT's normaliser, its pre-tokenizer and WordPiece look at no more than that at
a time, so that the tokens are those of the whole text; other tokenizers are not encoded in this way. Tweets repeat
their words: a few percent of them are new to a corpus, and all else is a look-up over whole columns.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..arrays import ranges

Ints = npt.NDArray[np.int64]
# How many tokens each of some strings has, int64 [strings], and the tokens of all of them, int32 [tokens].
Runs = tuple[Ints, npt.NDArray[np.int32]]

_PUNCTUATION = r"[!-/:-@\[-`{-~]"
_ENCODED_AT_ONCE = 1024
# What is remembered, beyond which all of it is forgotten: memory must not grow with the input.
MOST_WORDS, MOST_CHARACTERS = 2**18, 2**23


def can_encode(backend: Any) -> bool:
    """Whether a tokenizer reads a text word by word: BERT's, without a token that reaches beyond a word.

    Args:
        backend: a `tokenizers.Tokenizer`.
    """
    parts = json.loads(backend.to_str())
    kinds = [(parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
    if (
        kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        or parts["model"]["continuing_subword_prefix"] != "##"
    ):
        return False
    reaching = any(
        token["lstrip"] or token["rstrip"] or token["single_word"] or token["normalized"] or " " in token["content"]
        for token in parts["added_tokens"]
        if not token["special"]
    )
    # One special token before a text and one behind.
    return not reaching and len(backend.encode("").ids) == 2


class WordEncoder:
    """Texts to tokens, special ones apart.

    Words are remembered, and so are their parts between punctuation, each mark a part of its own: `mask,` and `mask!`
    have the tokens of `mask`.

    Args:
        backend: a tokenizer that `can_encode` takes; without truncation and padding.
    """

    def __init__(self, backend: Any):
        self._backend = backend
        tokens = json.loads(backend.to_str())["added_tokens"]
        added = "".join(token["content"] for token in tokens if not token["special"])
        # A keycap emoji holds a mark of punctuation, and may not be taken apart.
        self._takes_apart = not set(added) & set(string.punctuation)
        self._parts = _Store(self._by_tokenizer)
        self._words = _Store(self._by_parts)

    def __call__(self, texts: pa.Array) -> Runs:
        """Tokens of some texts.

        Args:
            texts: string [texts], without nulls.

        Returns:
            int64 [texts], how many tokens each has; int32 [tokens], the tokens of all of them.
        """
        return _of_lists(pc.split_pattern(texts, " "), self._words)

    def _by_parts(self, words: pa.Array) -> Runs:
        apart = pc.replace_substring_regex(words, _PUNCTUATION, r" \0 ") if self._takes_apart else words
        return _of_lists(pc.split_pattern(apart, " "), self._parts)

    def _by_tokenizer(self, words: pa.Array) -> Runs:
        counts, ids = [], []
        # Few encodings at a time: many objects that live long cost the garbage collector more than they do.
        for first in range(0, len(words), _ENCODED_AT_ONCE):
            some = words.slice(first, _ENCODED_AT_ONCE).to_pylist()
            pieces = [found.ids for found in self._backend.encode_batch_fast(some, add_special_tokens=False)]
            counts.append(np.fromiter(map(len, pieces), np.int64, len(pieces)))
            ids.append(np.fromiter(chain.from_iterable(pieces), np.int32, int(counts[-1].sum())))
        return np.concatenate(counts), np.concatenate(ids)


class _Store:
    """Strings to runs of tokens, each asked for once and remembered.

    Args:
        encode: gives the runs of strings, string [strings].
    """

    _numbers: dict[str, int]
    _ids: npt.NDArray[np.int32]
    _starts: Ints
    _counts: Ints

    def __init__(self, encode: Callable[[pa.Array], Runs]):
        self._encode = encode
        self._forget()

    def __call__(self, strings: pa.Array) -> Runs:
        """The runs of strings, string [strings], that may repeat."""
        coded = strings.dictionary_encode()
        numbers = self._look_up(coded.dictionary)[coded.indices.to_numpy()]
        counts = self._counts[numbers]
        return counts, self._ids[ranges(self._starts[numbers], counts)]

    def _look_up(self, distinct: pa.Array) -> Ints:
        """The number of each string in the store; int64 [strings]."""
        if len(self._numbers) > MOST_WORDS or self._characters > MOST_CHARACTERS:
            self._forget()
        numbers, strings = self._numbers, distinct.to_pylist()
        new = [string for string in strings if string not in numbers]
        if new:
            counts, ids = self._encode(pa.array(new, pa.string()))
            self._starts = np.concatenate([self._starts, len(self._ids) + np.cumsum(counts) - counts])
            self._counts = np.concatenate([self._counts, counts])
            self._ids = np.concatenate([self._ids, ids])
            self._characters += sum(map(len, new))
            numbers.update(zip(new, range(len(numbers), len(numbers) + len(new)), strict=True))
        return np.fromiter(map(numbers.__getitem__, strings), np.int64, len(strings))

    def _forget(self) -> None:
        self._numbers, self._characters = {}, 0
        self._ids = np.empty(0, np.int32)
        self._starts, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)


def _of_lists(lists: pa.ListArray, store: _Store) -> Runs:
    """Of each list of strings the runs of all of them, one after the other."""
    counts, ids = store(lists.flatten())
    ends = np.concatenate([[0], np.cumsum(counts)])
    offsets = lists.offsets.to_numpy()
    return np.diff(ends[offsets - offsets[0]]), ids

"""Encoding by words: a tweet's tokens are those of its words, and a word met before is not encoded again.

Words are what stands between spaces. BERT's normaliser, its pre-tokenizer and WordPiece look at no more than that at
a time, so that the tokens are those of the whole text; other tokenizers are not encoded in this way. Tweets repeat
their words: a few percent of them are new to a corpus, and all else is a look-up over whole columns.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..arrays import ranges

Ints = npt.NDArray[np.int64]

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
    """Texts to tokens, special ones apart, through a growing store of words.

    Args:
        backend: a tokenizer that `can_encode` takes; without truncation and padding.
    """

    def __init__(self, backend: Any):
        self._backend = backend
        self._numbers: dict[str, int] = {}
        self._characters = 0
        self._ids = np.empty(0, np.int32)
        self._starts, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)

    def __call__(self, texts: pa.Array) -> tuple[Ints, npt.NDArray[np.int32]]:
        """Tokens of some texts.

        Args:
            texts: string [texts], without nulls.

        Returns:
            int64 [texts], how many tokens each has; int32 [tokens], the tokens of all of them.
        """
        split = pc.split_pattern(texts, " ")
        coded = split.flatten().dictionary_encode()
        words = self._look_up(coded.dictionary.to_pylist())[coded.indices.to_numpy()]
        counts = self._counts[words]
        ends = np.concatenate([[0], np.cumsum(counts)])
        offsets = split.offsets.to_numpy()
        lengths = np.diff(ends[offsets - offsets[0]])
        return lengths, self._ids[ranges(self._starts[words], counts)]

    def _look_up(self, words: list[str]) -> Ints:
        """The number of each word in the store; those that are new are encoded. int64 [words]."""
        if len(self._numbers) > MOST_WORDS or self._characters > MOST_CHARACTERS:
            self.__init__(self._backend)  # type: ignore[misc]
        numbers = self._numbers
        new = [word for word in words if word not in numbers]
        if new:
            pieces = [found.ids for found in self._backend.encode_batch_fast(new, add_special_tokens=False)]
            counts = np.fromiter(map(len, pieces), np.int64, len(pieces))
            ids = np.fromiter(chain.from_iterable(pieces), np.int32, int(counts.sum()))
            starts = len(self._ids) + np.cumsum(counts) - counts
            self._ids = np.concatenate([self._ids, ids])
            self._starts = np.concatenate([self._starts, starts])
            self._counts = np.concatenate([self._counts, counts])
            self._characters += sum(map(len, new))
            numbers.update(zip(new, range(len(numbers), len(numbers) + len(new)), strict=True))
        return np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))

"""Encode texts word by word, and cache the tokens of each word.

Words are separated by spaces. BERT's normaliser, pre-tokenizer and WordPiece never look beyond one word, so the tokens
are those of the whole text; other tokenizers are not encoded in this way. Tweets repeat their words: a few percent of
them are new, and the rest is a look-up over whole columns.
"""

from __future__ import annotations

import json
import string
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Bools, Ints, ranges

# Number of tokens of each string, int64 [strings], and the tokens of all of them, int32 [tokens].
Runs = tuple[Ints, npt.NDArray[np.int32]]

_PUNCTUATION = r"[!-/:-@\[-`{-~]"
# New words are encoded as texts of so many words, so many texts per call.
_WORDS_A_TEXT, _TEXTS_AT_ONCE = 64, 64
# Limits of the cache, above which it is emptied: memory must not grow with the input.
MOST_WORDS, MOST_CHARACTERS = 2**19, 2**24


def can_encode(backend: Any) -> bool:
    """Whether a `tokenizers.Tokenizer` works word by word: BERT's, without tokens that extend beyond a word."""
    parts = json.loads(backend.to_str())
    kinds = [(parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
    is_bert = kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
    if not is_bert or parts["model"]["continuing_subword_prefix"] != "##":
        return False
    reaching = any(
        token["lstrip"] or token["rstrip"] or token["single_word"] or token["normalized"] or " " in token["content"]
        for token in parts["added_tokens"]
        if not token["special"]
    )
    # One special token before a text and one after it.
    return not reaching and len(backend.encode("").ids) == 2


class WordEncoder:
    """Encode texts, without special tokens.

    Words are cached. A word with punctuation is split at its marks, and the parts are cached too: `mask,` and `mask!`
    share the tokens of `mask`.

    Args:
        backend: tokenizer that `can_encode` accepts, without truncation and padding.

    Attributes:
        begins_word: bool [vocabulary], whether a token is the first of a word.
    """

    _numbers: dict[str, int]
    _ids: npt.NDArray[np.int32]
    _starts: Ints
    _counts: Ints

    def __init__(self, backend: Any):
        self._backend = backend
        tokens = json.loads(backend.to_str())["added_tokens"]
        added = "".join(token["content"] for token in tokens if not token["special"])
        # A keycap emoji contains punctuation, and must not be split.
        self._splits_words = not set(added) & set(string.punctuation)
        self.begins_word = _word_beginnings(backend)
        self._forget()

    def __call__(self, texts: pa.Array) -> Runs:
        """Encode texts, string [texts], without nulls."""
        if len(self._numbers) > MOST_WORDS or self._characters > MOST_CHARACTERS:
            self._forget()
        return self._encode_lists(pc.split_pattern(texts, " "))

    def _encode_lists(self, lists: pa.ListArray) -> Runs:
        coded = lists.flatten().dictionary_encode()
        numbers = self._look_up(coded.dictionary)[coded.indices.to_numpy()]
        counts = self._counts[numbers]
        ends = np.concatenate([[0], np.cumsum(counts)])
        offsets = lists.offsets.to_numpy()
        return np.diff(ends[offsets - offsets[0]]), self._ids[ranges(self._starts[numbers], counts)]

    def _look_up(self, distinct: pa.Array) -> Ints:
        """Numbers of words in the cache, to which new ones are added; int64 [words]."""
        words = distinct.to_pylist()
        numbers = np.fromiter(map(self._numbers.get, words, repeat(-1)), np.int64, len(words))
        new = np.flatnonzero(numbers < 0)
        if len(new):
            self._encode_new(distinct.take(pa.array(new)))
            numbers[new] = [self._numbers[words[place]] for place in new.tolist()]
        return numbers

    def _encode_new(self, words: pa.Array) -> None:
        parts = pc.replace_substring_regex(words, _PUNCTUATION, r" \0 ") if self._splits_words else words
        # A single mark is not split further.
        has_parts = pc.and_(pc.not_equal(parts, words), pc.greater(pc.binary_length(words), 1))
        whole, others = words.filter(pc.invert(has_parts)), words.filter(has_parts)
        self._remember(whole, *self._by_tokenizer(whole))
        if len(others):
            self._remember(others, *self._encode_lists(pc.split_pattern(parts.filter(has_parts), " ")))

    def _remember(self, words: pa.Array, counts: Ints, ids: npt.NDArray[np.int32]) -> None:
        known = len(self._counts)
        self._numbers.update(zip(words.to_pylist(), range(known, known + len(words)), strict=True))
        self._starts = np.concatenate([self._starts, len(self._ids) + np.cumsum(counts) - counts])
        self._counts = np.concatenate([self._counts, counts])
        self._ids = np.concatenate([self._ids, ids])
        self._characters += int(pc.sum(pc.utf8_length(words), min_count=0).as_py())

    def _forget(self) -> None:
        self._numbers, self._characters = {}, 0
        self._ids = np.empty(0, np.int32)
        self._starts, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)

    def _by_tokenizer(self, words: pa.Array) -> Runs:
        """Encode words of ASCII letters and digits joined to texts, which takes half of the time; others one by one."""
        plain = pc.ascii_is_alnum(words)
        joined = self._in_joined_texts(words.filter(plain).to_pylist())
        if joined is None:
            return self._one_by_one(words.to_pylist())
        others = self._one_by_one(words.filter(pc.invert(plain)).to_pylist())
        is_plain = plain.to_numpy(zero_copy_only=False)
        counts = np.empty(len(words), np.int64)
        counts[is_plain], counts[~is_plain] = joined[0], others[0]
        ids = np.empty(int(counts.sum()), np.int32)
        of_plain = np.repeat(is_plain, counts)
        ids[of_plain], ids[~of_plain] = joined[1], others[1]
        return counts, ids

    def _in_joined_texts(self, words: list[str]) -> Runs | None:
        """Encode words joined to texts; None if the tokenizer splits a word, because it contains an added token."""
        texts = [" ".join(words[first : first + _WORDS_A_TEXT]) for first in range(0, len(words), _WORDS_A_TEXT)]
        _, ids = self._one_by_one(texts)
        # Every word has a token, so if there are as many first tokens as words, each word has one.
        begins = np.flatnonzero(self.begins_word[ids])
        return (np.diff(begins, append=len(ids)), ids) if len(begins) == len(words) else None

    def _one_by_one(self, texts: list[str]) -> Runs:
        counts, ids = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        # Few encodings at a time: many long-lived objects slow down garbage collection.
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            some = texts[first : first + _TEXTS_AT_ONCE]
            pieces = [found.ids for found in self._backend.encode_batch_fast(some, add_special_tokens=False)]
            counts.append(np.fromiter(map(len, pieces), np.int64, len(pieces)))
            ids.append(np.fromiter(chain.from_iterable(pieces), np.int32, int(counts[-1].sum())))
        return np.concatenate(counts), np.concatenate(ids)


def _word_beginnings(backend: Any) -> Bools:
    """Whether each token of a BERT tokenizer is the first of a word; bool [vocabulary].

    The token alone decides: `##` cannot begin a word, because BERT's pre-tokenizer makes a word of each `#`.
    """
    begins = np.ones(1 + max(backend.get_vocab().values()), dtype=np.bool_)
    vocabulary = json.loads(backend.to_str())["model"]["vocab"]
    begins[[number for token, number in vocabulary.items() if token.startswith("##") and token != "##"]] = False
    return begins

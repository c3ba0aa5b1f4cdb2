"""Sampling: a bounded sample of each word's places, the same whichever ranks look for them and whatever else is asked.

Every place draws a number that is a function of seed, word and place alone; a word keeps its smallest numbers (bottom-k
sampling, Cohen and Kaplan 2007). So parts of the tweets can be sampled by themselves, and then what they kept together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bert_tweets.common.hashing import mix

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BottomKSampler:
    """Draws numbers for the places of words, and keeps the smallest.

    Attributes:
        salts: uint64 [words], of seed and word, see `salts_of`.
        limit: places of a word in a group at most; 0: all.
    """

    salts: npt.NDArray[np.uint64]
    limit: int

    def kept(self, word: Ints, group: Ints, tweet: Ints, start: Ints) -> Ints:
        """Which places, given in order, are kept, in ascending order; int64, all arguments int64 [places].

        Args:
            word: number of each place's word.
            group: number of the group that the place is in.
            tweet, start: the place, in all tweets.
        """
        if not self.limit or not len(word):
            return np.arange(len(word))
        # An odd multiplier parts neighbours; `mix` does the rest.
        place = mix(tweet.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ self.salts[word])
        drawn = mix(place ^ (start.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)))
        # Stable: of equal numbers, which 64 bits seldom give, the earlier place is taken.
        order = np.lexsort((drawn, group, word))
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (np.diff(word[order]) != 0) | (np.diff(group[order]) != 0)
        first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
        return np.sort(order[np.arange(len(order)) - first < self.limit])


def salts_of(seed: int, keys: Sequence[str]) -> npt.NDArray[np.uint64]:
    """uint64 [keys], each a function of the seed and its key."""
    digests = (hashlib.sha256(f"{seed}\n{key}".encode()).digest() for key in keys)
    return np.frombuffer(b"".join(digest[:8] for digest in digests), "<u8").astype(np.uint64)

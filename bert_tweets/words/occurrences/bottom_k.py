"""A bounded sample of each word's places that depends neither on the number of ranks nor on the other words.

Each place gets a pseudo-random number that is a function of seed, word and place alone; a word keeps its smallest
numbers (bottom-k sampling, Cohen and Kaplan 2007). So shares of the tweets can be sampled separately, and then the
union of their samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Ints, run_starts
from bert_tweets.common.hashing import mix


@dataclass(frozen=True)
class BottomKSampler:
    """Assigns numbers to the places of words, and keeps the smallest.

    Attributes:
        salts: uint64 [words], made of seed and word; see `salts_of`.
        limit: maximum number of places of a word in a group; 0: no limit.
    """

    salts: npt.NDArray[np.uint64]
    limit: int

    def select(self, word: Ints, group: Ints, tweet: Ints, start: Ints) -> Ints:
        """Indices of the places to keep, ascending; `tweet` and `start` are a place's position in all tweets.

        All arrays are int64 [places].
        """
        if not self.limit or not len(word):
            return np.arange(len(word))
        # An odd multiplier separates neighbours; `mix` does the rest.
        place = mix(tweet.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ self.salts[word])
        drawn = mix(place ^ (start.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)))
        # Stable: of equal numbers, which 64 bits seldom give, the earlier place is taken.
        order = np.lexsort((drawn, group, word))
        starts = run_starts(word[order], group[order])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        return np.sort(order[rank < self.limit])


def salts_of(seed: int, keys: Sequence[str]) -> npt.NDArray[np.uint64]:
    """uint64 [keys], each a function of the seed and its key."""
    digests = (hashlib.sha256(f"{seed}\n{key}".encode()).digest() for key in keys)
    return np.frombuffer(b"".join(digest[:8] for digest in digests), "<u8").astype(np.uint64)

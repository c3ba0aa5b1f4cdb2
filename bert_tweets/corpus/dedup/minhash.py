"""Recognise equal and nearly equal tweets: hashes of their keys, and MinHash over shingles of words.

Every number here is a fixed function of the text, so that all versions of this program find the same.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Bools, Ints
from bert_tweets.common.hashing import mix

Hashes = npt.NDArray[np.uint64]

RECALL = 0.9
MOST_BANDS = 9
MOST_BAND_ROWS = 4
SKETCH_WORDS = 4
# The last byte of a sketch is the number of its shingles, at most LARGEST_SAMPLE.
SKETCH_BITS = 64 * SKETCH_WORDS - 8
LARGEST_SAMPLE = 128

_GOLDEN = 0x9E3779B97F4A7C15
# Rows that are processed together: their shingles fit into a CPU core's cache.
_BLOCK_ROWS = 2048
_HASH_BITS = 52


def hash_keys(keys: pa.Array) -> Hashes:
    """64-bit BLAKE2b of each text; uint64 [rows].

    Any two different texts in a corpus of n share a hash with probability n² / 2⁶⁵: 3 % for a billion.
    """
    digests = (hashlib.blake2b(key, digest_size=8).digest() for key in keys.cast(pa.binary()).to_pylist())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def is_first(ordered: npt.NDArray[Any]) -> Bools:
    """Whether each of the ordered values differs from the one before it; bool [values]."""
    first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


def in_validation_split(hashes: Hashes, seed: int, fraction: float) -> Bools:
    """Whether each text, uint64 [rows], is in the expected fraction of the distinct texts that is for validation.

    This depends only on text and seed, so that copies are in the same split.
    """
    offset = np.uint64((seed + 1) * _GOLDEN % 2**64)
    mixed = mix(hashes + offset)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53 < fraction


@dataclass(frozen=True)
class Keys:
    """Keys by which copies and near-duplicates are found.

    Attributes:
        exact: uint64 [rows], equal for equal texts.
        bands: uint64 [rows, bands]; near-duplicates probably share one. No columns: find copies only.
        sketch: uint64 [rows, words], from which `jaccard` estimates the similarity of two texts.
    """

    exact: Hashes
    bands: Hashes
    sketch: Hashes


def banding(threshold: float) -> tuple[int, int]:
    """Number of bands, and of MinHash values per band: the longest bands that find nine in ten pairs at the threshold.

    A pair with similarity s shares one of b bands of r values with probability 1 - (1 - sʳ)ᵇ (Leskovec, Rajaraman and
    Ullman, "Mining of Massive Datasets", section 3.4). The threshold is a Jaccard similarity, in (0, 1].
    """
    for band_rows in range(MOST_BAND_ROWS, 0, -1):
        shared = threshold**band_rows
        bands = 1 if shared > RECALL else math.ceil(math.log(1 - RECALL) / math.log(1 - shared))
        if bands <= MOST_BANDS or band_rows == 1:
            break
    return bands, band_rows


@dataclass(frozen=True)
class MinHash:
    """Make keys of near-duplicates: banded MinHash of a text's set of shingles (Broder 1997), and a sketch.

    Attributes:
        threshold: minimum Jaccard similarity of the shingle sets of near-duplicates, in (0, 1].
        shingle_words: number of consecutive words in a shingle; a shorter text is one shingle.
    """

    threshold: float
    shingle_words: int

    def __call__(self, keys: pa.Array, exact: Hashes | None = None) -> Keys:
        """Make the keys of texts.

        Args:
            keys: string [rows], from `cleaning.duplicate_key`: words separated by one space, no nulls.
            exact: uint64 [rows], their `hash_keys`; None: compute them.
        """
        exact = hash_keys(keys) if exact is None else exact
        bands, band_rows = banding(self.threshold)
        band_hashes = np.empty((len(keys), bands), dtype=np.uint64)
        sketches = np.empty((len(keys), SKETCH_WORDS), dtype=np.uint64)
        words, offsets = _words(keys)
        for first in range(0, len(keys), _BLOCK_ROWS):
            rows = slice(first, first + _BLOCK_ROWS)
            bounds = offsets[first : first + _BLOCK_ROWS + 1]
            shingles, starts = _distinct_shingles(words[bounds[0] : bounds[-1]], bounds - bounds[0], self.shingle_words)
            band_hashes[rows] = _bands(_minima(shingles, starts, bands * band_rows), band_rows)
            sketches[rows] = _odd_sketch(shingles, starts)
        return Keys(exact, band_hashes, sketches)


def jaccard(left: Hashes, right: Hashes) -> npt.NDArray[np.float64]:
    """Estimate the Jaccard similarity of pairs of texts from their sketches.

    The number of bits in which two odd sketches differ gives the size d of the symmetric difference of the sets
    (Mitzenmacher, Pagh and Pham 2014, "Efficient estimation for high similarities using odd sketches"), and J = (|A| +
    |B| - d) / (|A| + |B| + d). A tweet has few shingles, which rarely share a bit, so this is nearly exact, where 1-bit
    MinHash with as many bits is off by 0.05; texts of more than LARGEST_SAMPLE shingles are compared by a sample.

    Args:
        left, right: sketches, uint64 [pairs, words].

    Returns:
        float64 [pairs]. Equal sketches give exactly 1.
    """
    different = left ^ right
    different[:, -1] &= np.uint64(2**56 - 1)
    bits = np.bitwise_count(different).sum(axis=1, dtype=np.int64)
    left_size, right_size = ((side[:, -1] >> np.uint64(56)).astype(np.int64) for side in (left, right))
    both = left_size + right_size
    difference = np.minimum(np.maximum(_differences()[bits], np.abs(left_size - right_size)), both)
    estimate: npt.NDArray[np.float64] = (both - difference) / np.maximum(both + difference, 1)
    estimate[both == 0] = 1.0
    return estimate


@functools.cache
def _differences() -> Ints:
    """Size of the symmetric difference by the number of differing bits; int64 [SKETCH_BITS + 1].

    Whole numbers of the same parity as the number of bits: two elements on one bit remove two bits. If half of the bits
    or more differ, the size is only known to be large.
    """
    sizes = np.full(SKETCH_BITS + 1, 2 * LARGEST_SAMPLE, dtype=np.int64)
    for bits in range(SKETCH_BITS // 2):
        expected = -SKETCH_BITS / 2 * math.log(1 - 2 * bits / SKETCH_BITS)
        sizes[bits] = bits + 2 * round((expected - bits) / 2)
    return sizes


def _words(keys: pa.Array) -> tuple[Hashes, Ints]:
    """Hashes of the words of all texts, concatenated, and the offsets of texts; uint64 [words], int64 [rows + 1]."""
    split = pc.split_pattern(keys, " ")
    offsets = split.offsets.to_numpy().astype(np.int64)
    encoded = split.flatten().dictionary_encode()
    hashes = hash_keys(encoded.dictionary)[encoded.indices.to_numpy()]
    return hashes, offsets - offsets[0]


def _distinct_shingles(words: Hashes, offsets: Ints, shingle_words: int) -> tuple[Hashes, Ints]:
    """The set of shingles of each text, ascending: hashes of 52 bits, and the offset of each text's first one.

    Args:
        words: hashes of the words, uint64 [words].
        offsets: offsets of the texts, int64 [rows + 1], at most 2¹² rows.
        shingle_words: number of words in a shingle.
    """
    lengths = np.diff(offsets)
    rows = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    left = np.repeat(offsets[1:], lengths) - np.arange(len(words))
    shingles = mix(words)
    for ahead in range(1, shingle_words):
        inside = np.flatnonzero(left > ahead)
        shingles[inside] = mix(shingles[inside] * np.uint64(_GOLDEN) + words[inside + ahead])
    begins = left >= shingle_words
    begins[offsets[:-1]] = True
    tagged = (rows << np.uint64(_HASH_BITS)) | (shingles >> np.uint64(64 - _HASH_BITS))
    tagged = np.sort(tagged[begins])
    tagged = tagged[is_first(tagged)]
    starts = np.searchsorted(tagged, np.arange(len(lengths), dtype=np.uint64) << np.uint64(_HASH_BITS))
    return tagged & np.uint64(2**_HASH_BITS - 1), starts


def _minima(shingles: Hashes, starts: Ints, permutations: int) -> Hashes:
    """Minimum of each text's shingles under each permutation; uint64 [permutations, rows].

    A permutation is a multiplication by an odd number, which suffices because the shingles are random hashes.
    """
    multipliers = mix(np.arange(1, permutations + 1, dtype=np.uint64) * np.uint64(_GOLDEN)) | np.uint64(1)
    spread = shingles << np.uint64(64 - _HASH_BITS)
    minima = np.empty((permutations, len(starts)), dtype=np.uint64)
    for minimum, multiplier in zip(minima, multipliers, strict=True):
        np.minimum.reduceat(spread * multiplier, starts, out=minimum)
    return minima


def _bands(minima: Hashes, band_rows: int) -> Hashes:
    """Hash of the values and the number of each band; uint64 [rows, bands]."""
    bands = len(minima) // band_rows
    hashes = np.empty((minima.shape[1], bands), dtype=np.uint64)
    for band in range(bands):
        hashed = np.full(minima.shape[1], band + 1, dtype=np.uint64)
        for values in minima[band * band_rows : (band + 1) * band_rows]:
            hashed = mix(hashed * np.uint64(_GOLDEN) + values)
        hashes[:, band] = hashed
    return hashes


def _odd_sketch(shingles: Hashes, starts: Ints) -> Hashes:
    """A bit is set if an odd number of a text's LARGEST_SAMPLE smallest shingles map to it; uint64 [rows, words]."""
    sizes = np.diff(starts, append=len(shingles))
    rank = np.arange(len(shingles)) - np.repeat(starts, sizes)
    bit = ((shingles & np.uint64(2**32 - 1)) * np.uint64(SKETCH_BITS)) >> np.uint64(32)
    value = np.uint64(1) << (bit & np.uint64(63))
    value[rank >= LARGEST_SAMPLE] = 0
    word = bit >> np.uint64(6)
    sketch = np.empty((len(starts), SKETCH_WORDS), dtype=np.uint64)
    for number in range(SKETCH_WORDS):
        sketch[:, number] = np.bitwise_xor.reduceat(np.where(word == number, value, np.uint64(0)), starts)
    sketch[:, -1] |= np.minimum(sizes, LARGEST_SAMPLE).astype(np.uint64) << np.uint64(56)
    return sketch

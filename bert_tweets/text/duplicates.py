"""Telling equal tweets: 64-bit hashes of their keys, and which of them were seen before."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..hashing import mix

Hashes = npt.NDArray[np.uint64]


def hash_keys(keys: pa.Array) -> Hashes:
    """64-bit BLAKE2b of each text; uint64 [rows].

    Two different texts of a corpus of n share a hash with probability n² / 2⁶⁵: 3 % for the whole of a billion.
    """
    digests = (hashlib.blake2b(key, digest_size=8).digest() for key in keys.cast(pa.binary()).to_pylist())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def held_out(hashes: Hashes, seed: int, fraction: float) -> npt.NDArray[np.bool_]:
    """Which texts belong to validation: a function of text and seed alone, so that copies stay on one side.

    Args:
        hashes: uint64 [rows].
        fraction: expected share of the distinct texts.
    """
    offset = np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = mix(hashes + offset)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53 < fraction


class Seen:
    """A growing set of hashes: sorted runs that merge when they are of like size, 8 bytes a hash."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def first_time(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which rows hold a hash that no earlier row and no earlier call had; remembers them all.

        Args:
            hashes: uint64 [rows].

        Returns:
            bool [rows].
        """
        distinct, first_rows = np.unique(hashes, return_index=True)
        unseen = np.ones(len(distinct), dtype=np.bool_)
        for run in self._runs:
            near = np.minimum(np.searchsorted(run, distinct), len(run) - 1)
            unseen &= run[near] != distinct
        self._remember(distinct[unseen])
        first = np.zeros(len(hashes), dtype=np.bool_)
        first[first_rows[unseen]] = True
        return first

    def _remember(self, run: Hashes) -> None:
        if not len(run):
            return
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        self._runs.append(run)

"""Random numbers as a pure function of a seed and a purpose."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import numpy.typing as npt


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """A random generator keyed by a seed and a purpose, such as `"permutation", word, group_a, group_b`."""
    digest = hashlib.sha256(json.dumps([seed, *map(str, purpose)]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))

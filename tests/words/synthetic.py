"""Synthetic occurrences to check the statistics with: vectors with few strong directions, like those of BERT."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.words.statistics.exchangeable_units import Units

WIDTH = 24

Array = npt.NDArray[Any]


def spectrum() -> Array:
    """Standard deviations by direction; a few directions have most of the variance of contextual vectors."""
    return 1 / np.sqrt(1 + np.arange(WIDTH))


def occurrences(random: np.random.Generator, count: int) -> Array:
    """Independent occurrences, float32 [count, WIDTH], 30 % of which have a second use."""
    use = random.random(count) < 0.3
    vectors = random.standard_normal((count, WIDTH)) * spectrum()
    vectors[use, 0] += 2
    return vectors.astype(np.float32)


def alone(label: Array) -> Units:
    """Units of one occurrence each."""
    return Units(np.arange(len(label)), np.asarray(label, dtype=np.int64))


def two_groups(first: int, second: int) -> Units:
    """Units of one occurrence each, in two groups of the given sizes."""
    return alone(np.repeat([0, 1], [first, second]))

"""Synthetic occurrences for the proof of the statistics: vectors with few strong directions, as BERT's have."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.words.statistics.exchangeable_units import Units

WIDTH = 24

Array = npt.NDArray[Any]


def spectrum() -> Array:
    """Standard deviations by direction; of contextual vectors a few directions hold most of the variance."""
    return 1 / np.sqrt(1 + np.arange(WIDTH))


def occurrences(random: np.random.Generator, count: int) -> Array:
    """float32 [count, WIDTH], independent: two uses, the second by a third."""
    use = random.random(count) < 0.3
    vectors = random.standard_normal((count, WIDTH)) * spectrum()
    vectors[use, 0] += 2
    return vectors.astype(np.float32)


def alone(label: Array) -> Units:
    """Each occurrence a unit of its own."""
    return Units(np.arange(len(label)), np.asarray(label, dtype=np.int64))


def two_groups(first: int, second: int) -> Units:
    """As many occurrences in two groups, each a unit of its own."""
    return alone(np.repeat([0, 1], [first, second]))

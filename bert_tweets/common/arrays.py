"""numpy helpers for ragged arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """Concatenate the ranges [start, start + length); int64 [sum of lengths]."""
    ends = np.cumsum(lengths)
    count = int(ends[-1]) if len(ends) else 0
    inside: Ints = np.arange(count) + np.repeat(starts - (ends - lengths), lengths)
    return inside

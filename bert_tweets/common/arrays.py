"""What numpy lacks for runs of different length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """The integers of [start, start + length) for each pair, one after the other; int64 [sum of lengths]."""
    ends = np.cumsum(lengths)
    count = int(ends[-1]) if len(ends) else 0
    inside: Ints = np.arange(count) + np.repeat(starts - (ends - lengths), lengths)
    return inside

"""Array types, and what numpy lacks for runs of different lengths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """Concatenate the ranges [start, start + length); int64 [sum of lengths]."""
    ends = np.cumsum(lengths)
    count = int(ends[-1]) if len(ends) else 0
    inside: Ints = np.arange(count) + np.repeat(starts - (ends - lengths), lengths)
    return inside


def run_starts(*columns: Ints) -> Ints:
    """The first index of each run of equal rows, ascending; a row is its values in all columns, int64 [rows] each."""
    begins = np.ones(len(columns[0]), np.bool_)
    begins[1:] = False
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(begins)


def dense_numbers(values: Ints) -> Ints:
    """The place of each value among the sorted distinct values: 0, 1, 2, …; int64, one for each value."""
    return np.unique(values, return_inverse=True)[1]

"""Corrections of a space: the directions and scales that all its vectors share are taken off.

Contextual vectors lie in a narrow cone (Ethayarajh 2019), a few dimensions of it far longer than the rest (Timkey and
van Schijndel 2021, "All bark and no bite"): cosines then measure these alone. A correction is fitted for each model
and each layer that is written, on the pooled vectors of the background's occurrences: the same ones for every model.

    center            v - m
    standardize       (v - m) / s, dimension by dimension; Timkey and van Schijndel 2021, section 5
    all-but-the-top   v - m less its part along the first D principal directions, D = width / 100, rounded, one at
                      least; Mu and Viswanath 2018, "All-but-the-top", algorithm 1

m, s and the covariance are those of the background (s with n as its divisor). With `layer_pooling=mean` the
layers' mean is what is corrected.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

NONE, CENTER, STANDARDIZE, ALL_BUT_THE_TOP = "none", "center", "standardize", "all-but-the-top"

# Vectors that are turned to float64 at a time: bounds the memory.
_ROWS = 1024


class Moments:
    """Sums of vectors as they come, in float64.

    Args:
        kind: of correction, which decides what is summed.
        labels: layers that are written, each with a fit of its own.
        width: of a vector.
    """

    def __init__(self, kind: str, labels: int, width: int):
        self.kind, self.count = kind, 0
        self._sum = np.zeros((labels, width))
        self._squares = np.zeros((labels, width))
        self._products = np.zeros((labels, width, width) if kind == ALL_BUT_THE_TOP else (0, 0, 0))

    def add(self, vectors: Floats) -> None:
        """Takes vectors, float32 [rows, labels, width], none of them NaN."""
        if self.kind == NONE:
            return
        self.count += len(vectors)
        for first, last in pairwise([*range(0, len(vectors), _ROWS), len(vectors)]):
            rows = vectors[first:last].astype(np.float64)
            self._sum += rows.sum(axis=0)
            if self.kind == STANDARDIZE:
                self._squares += np.square(rows).sum(axis=0)
            for label in range(len(self._products)):
                self._products[label] += rows[:, label].T @ rows[:, label]

    def fit(self) -> Correction:
        """The correction; nothing is corrected where no vector came."""
        labels, width = self._sum.shape
        if self.kind == NONE or not self.count:
            return Correction(NONE, np.zeros((labels, width)), np.ones((labels, width)), np.zeros((labels, 0, width)))
        mean, scale, top = self._sum / self.count, np.ones((labels, width)), np.zeros((labels, 0, width))
        if self.kind == STANDARDIZE:
            deviation = np.sqrt(np.maximum(self._squares / self.count - mean**2, 0.0))
            # A dimension that never moves stays as it is.
            scale = np.where(deviation > 1e-9 * np.abs(mean), deviation, 1.0)
        if self.kind == ALL_BUT_THE_TOP:
            covariance = self._products / self.count - mean[:, :, None] * mean[:, None, :]
            # Eigenvalues ascend; the eigenvectors are columns.
            top = np.linalg.eigh(covariance).eigenvectors[:, :, -directions(width) :].transpose(0, 2, 1)
        return Correction(self.kind, mean, scale, top)


def directions(width: int) -> int:
    """How many principal directions all-but-the-top takes off."""
    return max(1, round(width / 100))


@dataclass(frozen=True)
class Correction:
    """A fitted correction.

    Attributes:
        kind: its name.
        mean, scale: float64 [labels, width].
        top: float64 [labels, directions, width], orthonormal.
    """

    kind: str
    mean: Doubles
    scale: Doubles
    top: Doubles

    @property
    def identity(self) -> str:
        """Tells it from the same kind fitted elsewhere: sha256 of its numbers; empty where nothing is corrected."""
        if self.kind == NONE:
            return ""
        return hashlib.sha256(b"".join(part.tobytes() for part in (self.mean, self.scale, self.top))).hexdigest()

    def apply(self, vectors: Floats) -> Floats:
        """float32 [rows, labels, width], of vectors alike; a row of NaN stays one."""
        if self.kind == NONE:
            return vectors
        corrected = np.empty_like(vectors)
        for first in range(0, len(vectors), _ROWS):
            rows = (vectors[first : first + _ROWS] - self.mean) / self.scale
            for label, top in enumerate(self.top):
                rows[:, label] -= (rows[:, label] @ top.T) @ top
            corrected[first : first + _ROWS] = rows
        return corrected

    def of_label(self, label: int) -> Correction:
        """That of one of the labels; -1: the last."""
        one = slice(label, label + 1 or None)
        return Correction(self.kind, self.mean[one], self.scale[one], self.top[one])

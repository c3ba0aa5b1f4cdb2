"""Corrections of a space: remove the directions and scales that all its vectors share.

Contextual vectors lie in a narrow cone (Ethayarajh 2019), a few of its dimensions far longer than the rest (Timkey and
van Schijndel 2021, "All bark and no bite"), so that cosines mainly measure these. A correction is fitted for each model
and each layer that is written, on the pooled vectors of the background's occurrences, the same ones for every model.

    center            v - m
    standardize       (v - m) / s, dimension by dimension; Timkey and van Schijndel 2021, section 5
    all-but-the-top   v - m minus its projection on the first D principal directions, D = width / 100, rounded, at least
                      one; Mu and Viswanath 2018, "All-but-the-top", algorithm 1

m, s and the covariance are those of the background (s with n as its divisor). With `layer_pooling=mean` the mean over
layers is corrected.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bert_tweets.common.arrays import Doubles, Floats

NONE, CENTER, STANDARDIZE, ALL_BUT_THE_TOP = "none", "center", "standardize", "all-but-the-top"

# Number of vectors that are converted to float64 at a time: bounds the memory.
_ROWS = 1024


class PostprocessorFit:
    """Fits a correction to vectors that come chunk by chunk, in float64, for each of the written layers separately."""

    def __init__(self, kind: str, labels: int, width: int):
        self.kind, self.count = kind, 0
        self._sum = np.zeros((labels, width))
        self._squares = np.zeros((labels, width))
        self._products = np.zeros((labels, width, width) if kind == ALL_BUT_THE_TOP else (0, 0, 0))

    def partial_fit(self, vectors: Floats) -> None:
        """Add vectors, float32 [rows, labels, width], without NaN."""
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

    def result(self) -> Postprocessor:
        """The fitted correction; one that changes nothing if there were no vectors."""
        labels, width = self._sum.shape
        mean, scale, top = np.zeros((labels, width)), np.ones((labels, width)), np.zeros((labels, 0, width))
        if self.kind == NONE or not self.count:
            return Postprocessor(NONE, mean, scale, top)
        mean = self._sum / self.count
        if self.kind == STANDARDIZE:
            deviation = np.sqrt(np.maximum(self._squares / self.count - mean**2, 0.0))
            # A constant dimension is not scaled.
            scale = np.where(deviation > 1e-9 * np.abs(mean), deviation, 1.0)
        if self.kind == ALL_BUT_THE_TOP:
            covariance = self._products / self.count - mean[:, :, None] * mean[:, None, :]
            # Eigenvalues ascend; the eigenvectors are columns.
            top = np.linalg.eigh(covariance).eigenvectors[:, :, -num_directions(width) :].transpose(0, 2, 1)
        return Postprocessor(self.kind, mean, scale, top)


def num_directions(width: int) -> int:
    """Number of principal directions that all-but-the-top removes."""
    return max(1, round(width / 100))


@dataclass(frozen=True)
class Postprocessor:
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
    def hash(self) -> str:
        """sha256 of its numbers; empty if nothing is corrected."""
        if self.kind == NONE:
            return ""
        return hashlib.sha256(b"".join(part.tobytes() for part in (self.mean, self.scale, self.top))).hexdigest()

    def transform(self, vectors: Floats) -> Floats:
        """Correct vectors, float32 [rows, labels, width]; a row of NaN stays one."""
        if self.kind == NONE:
            return vectors
        corrected = np.empty_like(vectors)
        for first in range(0, len(vectors), _ROWS):
            rows = (vectors[first : first + _ROWS] - self.mean) / self.scale
            for label, top in enumerate(self.top):
                rows[:, label] -= (rows[:, label] @ top.T) @ top
            corrected[first : first + _ROWS] = rows
        return corrected

    def of_label(self, label: int) -> Postprocessor:
        """The correction of one of the labels; -1: the last."""
        one = slice(label, label + 1 or None)
        return Postprocessor(self.kind, self.mean[one], self.scale[one], self.top[one])

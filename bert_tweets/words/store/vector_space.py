"""Vector spaces: vectors know which model, layer and correction they come from; cosines across spaces are refused.

Two models number their dimensions arbitrarily: a cosine between a vector of one and a vector of the other means
nothing, however similar the models are. Only quantities within each space can be compared, see `embedding.drift`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from bert_tweets.common.arrays import Doubles, Floats, Ints
from bert_tweets.common.errors import UserError


@dataclass(frozen=True)
class VectorSpace:
    """The properties that vectors must share for a cosine between them to be meaningful.

    Attributes:
        weights: identity of the model's weights, see `model.loading.weights_identity`.
        recipe: hash of the cleaning and tokenizer that made the tokens.
        layer: name of the layer or mean of layers, `mean(9,10,11,12)` or `12`.
        pooling: over a word's tokens: mean, first or max.
        correction: none, center, standardize or all-but-the-top.
        correction_hash: hash of the fitted correction; empty without one.
    """

    weights: str
    recipe: str
    layer: str
    pooling: str = "mean"
    correction: str = "none"
    correction_hash: str = ""

    def differences(self, other: VectorSpace) -> list[str]:
        """The names of the properties in which another space differs."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    def require_same(self, other: VectorSpace) -> None:
        """Raise UserError if another space is not the same, and name the properties that differ."""
        if names := self.differences(other):
            parts = "; ".join(f"{name}: {getattr(self, name)}, {getattr(other, name)}" for name in names)
            raise UserError(
                f"these vectors are of different spaces ({parts}): a cosine between them means nothing; "
                "compare within each space, by neighbours or by distances"
            )


@dataclass(frozen=True)
class Vectors:
    """Vectors of one space, float32 [rows, width]; a row of NaN is a word without a vector."""

    space: VectorSpace
    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    def cosines(self, other: Vectors, origin: Doubles | None = None) -> Doubles:
        """Cosines of each row with each other row: float64 [rows, other rows]; NaN if one has no vector.

        `origin`, float64 [width] or None, is subtracted from both first. Raises UserError for different spaces.
        """
        self.space.require_same(other.space)
        mine = _unit(self.values, origin)
        theirs = mine if other is self else _unit(other.values, origin)
        return mine @ theirs.T

    def take(self, rows: Ints) -> Vectors:
        return Vectors(self.space, self.values[rows])


def _unit(vectors: Floats, origin: Doubles | None) -> Doubles:
    values = vectors.astype(np.float64) if origin is None else vectors - origin
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))

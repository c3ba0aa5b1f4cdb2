"""Spaces: vectors know which model, layer and correction they come from, and no cosine is taken between two spaces.

Two models number their dimensions as their training happened to: a cosine between a vector of one and a vector of the
other says nothing, however alike the models are. What may be compared are quantities within each space, see
`before_after`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ..errors import UserError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """What vectors must share for a cosine between them to mean something.

    Attributes:
        weights: identity of the model's weights, see `model.loading.weights_identity`.
        recipe: hash of the cleaning and tokenizer that made the tokens.
        layer: as written beside a vector, `mean(9,10,11,12)`, `12`, or `static` for input vectors.
        pooling: of a word's pieces: mean, first or max.
        correction: none, center, standardize or all-but-the-top.
        fitted: what tells a fitted correction from others of its kind (see `corrections.Correction.identity`);
            empty without one.
    """

    weights: str
    recipe: str
    layer: str
    pooling: str = "mean"
    correction: str = "none"
    fitted: str = ""

    def require_same(self, other: Space) -> None:
        """Refuses another space.

        Raises:
            UserError: names the parts that differ.
        """
        names = [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]
        if names:
            parts = "; ".join(f"{name}: {getattr(self, name)}, {getattr(other, name)}" for name in names)
            raise UserError(
                f"these vectors lie in different spaces ({parts}): a cosine between them means nothing; "
                "compare within each space, by neighbours or by distances"
            )


@dataclass(frozen=True)
class Vectors:
    """Vectors of one space.

    Attributes:
        space: theirs.
        values: float32 [rows, width]; a row of NaN is a word without a vector.
    """

    space: Space
    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    def cosines(self, other: Vectors, origin: Doubles | None = None) -> Doubles:
        """Of each row with each row of others: float64 [rows, other rows]; NaN where one has no vector.

        Args:
            other: of the same space.
            origin: float64 [width], taken off both first; None: nothing is.

        Raises:
            UserError: they lie in different spaces.
        """
        self.space.require_same(other.space)
        mine = _unit(self.values, origin)
        theirs = mine if other is self else _unit(other.values, origin)
        return mine @ theirs.T

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        return Vectors(self.space, self.values[rows])


def _unit(vectors: Floats, origin: Doubles | None) -> Doubles:
    values = vectors.astype(np.float64) if origin is None else vectors - origin
    unit: Doubles = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return unit

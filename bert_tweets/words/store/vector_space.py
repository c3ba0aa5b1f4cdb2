"""Spaces: vectors know which model, layer and correction they come from, and no cosine is taken between two spaces.

Two models number their dimensions as their training happened to: a cosine between a vector of one and a vector of the
other says nothing, however alike the models are. What may be compared are quantities within each space, see
`before_after`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.errors import UserError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# numpy's own ways to a cosine that are no ufuncs.
_PRODUCTS = frozenset(
    {np.dot, np.inner, np.vdot, np.outer, np.einsum, np.tensordot, np.kron, np.correlate, np.convolve}
    | {np.corrcoef, np.cov, np.linalg.multi_dot}
)


@dataclass(frozen=True)
class VectorSpace:
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

    def require_same(self, other: VectorSpace) -> None:
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

    space: VectorSpace
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


class WordVector(np.ndarray[Any, np.dtype[np.float32]]):
    """A vector that knows its space: float32 [width], an array like any other, but for the vectors of other spaces.

    numpy refuses to add it to them, to multiply it by them, and what leads to a cosine otherwise. What is computed is
    a plain array.

    Attributes:
        space: where it lies; None of a copy.
    """

    space: VectorSpace | None = None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **named: Any) -> Any:
        """Numbers of one space as plain ones; raises UserError for those of two."""
        _require_one_space(inputs)
        plain = {"out": tuple(_plain(one) for one in out)} if out else {}
        result = getattr(ufunc, method)(*map(_plain, inputs), **plain, **named)
        return out[0] if len(out) == 1 else result

    def __array_function__(self, func: Callable[..., Any], types: Iterable[type], args: Any, kwargs: Any) -> Any:
        if func in _PRODUCTS:
            _require_one_space([*args, *kwargs.values()])
        return super().__array_function__(func, types, args, kwargs)

    def dot(self, other: Any, out: Any = None) -> Any:
        """As `numpy.dot`."""
        return np.dot(self, other, out)


def _require_one_space(values: Iterable[Any]) -> None:
    for first, second in pairwise(_spaces(values)):
        first.require_same(second)


def _spaces(values: Iterable[Any]) -> Iterator[VectorSpace]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _spaces(value)
        elif isinstance(value, WordVector) and value.space is not None:
            yield value.space


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, WordVector) else value


def _unit(vectors: Floats, origin: Doubles | None) -> Doubles:
    values = vectors.astype(np.float64) if origin is None else vectors - origin
    unit: Doubles = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return unit

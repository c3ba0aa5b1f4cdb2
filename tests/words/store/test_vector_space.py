"""Cosines are computed within one space only."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.words.embedding.neighbours import nearest
from bert_tweets.words.store.vector_space import Vectors, VectorSpace

SPACE = VectorSpace("weights", "recipe", "mean(9,10,11,12)", "mean", "center", "hash")
VALUES = np.array([[3, 4], [0, 2], [np.nan, np.nan]], np.float32)


@pytest.mark.parametrize("name", [field.name for field in fields(VectorSpace)])
def test_a_cosine_across_spaces_is_rejected(name: str) -> None:
    mine, others = Vectors(SPACE, VALUES), Vectors(replace(SPACE, **{name: "another"}), VALUES)
    with pytest.raises(UserError, match=f"different spaces \\({name}: .*, another\\)"):
        mine.cosines(others)
    with pytest.raises(UserError, match="different spaces"):
        nearest(mine, others, 1)


def test_cosines_within_a_space() -> None:
    cosines = Vectors(SPACE, VALUES).cosines(Vectors(replace(SPACE), VALUES[:2]))
    np.testing.assert_allclose(cosines, [[1, 0.8], [0.8, 1], [np.nan, np.nan]], atol=1e-7)
    moved = Vectors(SPACE, VALUES).cosines(Vectors(SPACE, VALUES), np.array([3.0, 2.0]))
    np.testing.assert_allclose(moved[0, 1], 0, atol=1e-7)

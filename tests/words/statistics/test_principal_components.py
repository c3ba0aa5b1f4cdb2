"""Principal components: agreement with the singular value decomposition, and determined signs."""

from __future__ import annotations

import numpy as np
import pytest

from bert_tweets.words.statistics.principal_components import principal_components


def test_points_are_the_first_two_principal_components() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    left, values, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    signs = np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(axis=1)])
    points, explained = principal_components(vectors)
    np.testing.assert_allclose(points, left[:, :2] * values[:2] * signs, atol=1e-4)
    assert explained == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-6)


def test_a_shifted_copy_has_the_same_points() -> None:
    vectors = np.random.default_rng(1).standard_normal((20, 4)).astype(np.float32)
    np.testing.assert_allclose(principal_components(vectors + 1)[0], principal_components(vectors)[0], atol=1e-5)


def test_equal_vectors_keep_no_variance() -> None:
    points, explained = principal_components(np.ones((5, 3), np.float32))
    assert explained == 0 and (points == 0).all()
    assert principal_components(np.zeros((0, 3), np.float32))[0].shape == (0, 2)

"""Corrections follow their formulas, however the vectors are cut into chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.common.arrays import Floats
from bert_tweets.words.embedding import postprocess
from bert_tweets.words.embedding.postprocess import (
    ALL_BUT_THE_TOP,
    CENTER,
    NONE,
    STANDARDIZE,
    Postprocessor,
    PostprocessorFit,
    num_directions,
)

KINDS = (CENTER, STANDARDIZE, ALL_BUT_THE_TOP)


def cloud(rows: int, labels: int = 2, width: int = 150, seed: int = 0) -> Floats:
    """Far off the origin, some directions much longer than others, the last dimension always the same."""
    random = np.random.default_rng(seed)
    centre = np.random.default_rng(99).normal(0, 30, width)
    values = random.standard_normal((rows, labels, width)) * np.geomspace(20, 0.1, width) + centre
    values[..., -1] = 7
    return values.astype(np.float32)


def fitted(kind: str, vectors: Floats, cuts: tuple[int, ...] = ()) -> Postprocessor:
    fit = PostprocessorFit(kind, *vectors.shape[1:])
    for part in np.split(vectors, cuts):
        fit.partial_fit(part)
    return fit.result()


def plain(kind: str, fit: Floats, vectors: Floats) -> Floats:
    """One layer, [rows, width], in float64."""
    fit, vectors = fit.astype(np.float64), vectors.astype(np.float64)
    moved = vectors - fit.mean(axis=0)
    if kind == STANDARDIZE:
        deviation = fit.std(axis=0)
        return moved / np.where(deviation > 0, deviation, 1)
    if kind == ALL_BUT_THE_TOP:
        _, _, axes = np.linalg.svd(fit - fit.mean(axis=0), full_matrices=False)
        for axis in axes[: round(fit.shape[1] / 100)]:
            moved = moved - np.outer(moved @ axis, axis)
    return moved


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_plain_formula_layer_by_layer(kind: str) -> None:
    background, vectors = cloud(1500), cloud(1100, seed=1)
    corrected = fitted(kind, background).transform(vectors)
    assert corrected.dtype == np.float32
    for label in range(2):
        np.testing.assert_allclose(
            corrected[:, label], plain(kind, background[:, label], vectors[:, label]), atol=2e-4, rtol=1e-4
        )


@given(cuts=st.lists(st.integers(0, 60), max_size=4).map(sorted), kind=st.sampled_from(KINDS))
def test_chunks_change_nothing(cuts: list[int], kind: str) -> None:
    vectors = cloud(60, width=20)
    whole, sliced = fitted(kind, vectors), fitted(kind, vectors, tuple(cuts))
    np.testing.assert_allclose(sliced.transform(vectors), whole.transform(vectors), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_affine_and_keeps_nan(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the corrected centroid is the centroid of the corrected vectors."""
    correction, vectors = fitted(kind, cloud(400)), cloud(50, seed=2)
    monkeypatch.setattr(postprocess, "_ROWS", 7)
    corrected = correction.transform(vectors)
    np.testing.assert_allclose(correction.transform(vectors.mean(axis=0)[None])[0], corrected.mean(axis=0), atol=5e-4)
    vectors[3] = np.nan
    np.testing.assert_array_equal(np.isnan(correction.transform(vectors)).any(axis=(1, 2)), np.arange(50) == 3)
    np.testing.assert_array_equal(correction.of_label(-1).transform(vectors[4:, 1:]), corrected[4:, 1:])


def test_each_fit_has_its_hash_and_none_changes_nothing() -> None:
    hashes = {fitted(kind, cloud(30, seed=seed)).hash for kind in KINDS for seed in (0, 1)}
    assert len(hashes) == 6 and "" not in hashes
    nothing = fitted(NONE, cloud(30))
    assert nothing.hash == "" and nothing.transform(cloud(3)) is not None
    np.testing.assert_array_equal(nothing.transform(cloud(3)), cloud(3))


def test_a_hundredth_of_the_directions_is_removed() -> None:
    assert [num_directions(width) for width in (32, 128, 384, 768, 1024)] == [1, 1, 4, 8, 10]

"""Regression of vectors: the same as plain least squares, unbiased, and calibrated despite a prolific author."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.words.statistics.exchangeable_units import earliest_per_cluster, equalize_unit_sizes
from bert_tweets.words.statistics.multivariate_regression import Design, PartialEffect, Regression
from tests.words.statistics.test_calibration import Draw, study
from tests.words.synthetic import Array, occurrences


def fitted(columns: list[Array], points: Array) -> Array:
    design = np.column_stack([np.ones(len(points)), *columns])
    solution: Array = design @ np.linalg.lstsq(design, points, rcond=None)[0]
    return solution


def partial(columns: list[Array], points: Array, number: int) -> float:
    """Partial R² from two fits."""
    others = [column for place, column in enumerate(columns) if place != number]
    without, whole = (((points - fitted(each, points)) ** 2).sum() for each in (others, columns))
    return float((without - whole) / without)


def example(seed: int, rows: int = 40, width: int = 6) -> tuple[list[Array], Array]:
    """A truth value, a correlated number, and two more columns; the first one shifts the vectors."""
    random = np.random.default_rng(seed)
    first = random.integers(0, 2, (rows, 1)).astype(float)
    columns = [first, random.random((rows, 1)) + first, random.random((rows, 2))]
    return columns, (random.standard_normal((rows, width)) + 0.5 * first).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.sampled_from([1, 6, 80]))
def test_partial_r2_is_that_of_two_fits_and_coefficients_are_those_of_least_squares(seed: int, width: int) -> None:
    columns, vectors = example(seed, width=width)
    regression = Regression(vectors, Design(columns), np.arange(40))
    raw = [effect.raw for effect in regression.effects()]
    assert raw == pytest.approx([partial(columns, vectors.astype(float), number) for number in range(3)], rel=1e-4)
    whole = np.column_stack([np.ones(40), *columns])
    solved = np.linalg.lstsq(whole, vectors, rcond=None)[0][1:]
    weights = np.concatenate(
        [part.weights for part in regression.design.partial_terms if part.weights is not None], axis=1
    )
    assert np.allclose(weights.T @ vectors, solved, atol=1e-4)


def test_the_residuals_of_the_fit_without_the_term_are_permuted() -> None:
    columns, vectors = example(3)
    unit = np.repeat(np.arange(25), [1] * 15 + [2] * 5 + [3] * 5)
    points = np.random.default_rng(0).standard_normal((40, 6)) + vectors
    regression = Regression(points.astype(np.float32), Design(columns), unit)
    kinds = regression.design.pattern
    place = np.argsort(kinds)
    orders = np.concatenate(list(regression.exchange().shuffles(99, np.random.default_rng(1))))
    expected = []
    for number in range(3):
        fit = fitted([column for other, column in enumerate(columns) if other != number], points)
        beyond = 0
        for labels in orders:
            moved = np.empty_like(points)
            moved[place[labels]] = points - fit
            beyond += partial(columns, fit + moved, number) >= partial(columns, points, number) - 1e-9
        expected.append((beyond + 1) / 100)
    assert regression.p_values(99, np.random.default_rng(1)).tolist() == pytest.approx(expected)
    # Whole blocks of equal size.
    sizes = np.bincount(unit)[unit]
    assert (sizes[place[orders]] == sizes).all() and (np.diff(place[orders][:, 15:25:2]) != 0).all()


def test_a_constant_or_collinear_term_explains_nothing() -> None:
    columns, vectors = example(1)
    twice, constant = 2 * columns[0] - columns[2][:, :1], np.full((40, 1), 7.0)
    design = Design([*columns, twice, constant])
    regression = Regression(vectors, design, np.arange(40))
    ranks = [part.basis.shape[1] for part in design.partial_terms]
    assert ranks == [0, 1, 1, 0, 0] and [design.is_constant(number) for number in range(5)] == [False] * 4 + [True]
    assert [effect.squared_norms is None for effect in regression.effects()] == [True, False, True, True, True]
    assert regression.p_values(99, np.random.default_rng(0)).shape == (5,)


def test_a_term_that_depends_on_one_unit_has_no_debiased_estimate() -> None:
    vectors = example(1)[1]
    only = (np.arange(40) == 5).astype(float)[:, None]
    effect = Regression(vectors, Design([only]), np.arange(40)).effects()[0]
    assert effect.estimate is None and effect.squared_norms is None and 0 < effect.raw < 1


def of_study(draw: Draw, seed: int, crossed: bool) -> tuple[PartialEffect, float, float]:
    """Effect and p of a label correlated with time, where only time matters, and its p with each tweet a unit."""
    random = np.random.default_rng([seed, crossed])
    drawn = study(draw, random, crossed)
    count = len(drawn.author)
    time = random.random(count) if crossed else random.random(drawn.author.max() + 1)[drawn.author]
    # Copies have the time of their original.
    time = time[drawn.cluster] + 0.5 * drawn.label
    vectors = drawn.vectors.copy()
    vectors[:, 1] += 2 * time.astype(np.float32)
    rows = earliest_per_cluster(drawn.cluster, np.arange(count), random)
    rows = rows[np.argsort(drawn.author[rows], kind="stable")]
    rows = rows[equalize_unit_sizes(np.unique(drawn.author[rows], return_inverse=True)[1], 20, random)]

    def regression(rows: Array, unit: Array) -> Regression:
        columns = [drawn.label[rows, None].astype(float), time[rows, None]]
        return Regression(vectors[rows], Design(columns), unit)

    ours = regression(rows, np.unique(drawn.author[rows], return_inverse=True)[1])
    naive = regression(np.arange(count), np.arange(count))
    return ours.effects()[0], ours.p_values(199, random)[0], naive.p_values(199, random)[0]


def check_calibration(draw: Draw, crossed: bool, replicates: int) -> tuple[float, float]:
    found = [of_study(draw, seed, crossed) for seed in range(replicates)]
    ours, naive = (
        (np.array(p_values) <= 0.05).mean() for p_values in ([one[1] for one in found], [one[2] for one in found])
    )
    assert abs(ours - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / replicates)
    assert naive > 0.25
    # The estimates are unbiased; the raw ones are not.
    estimates = np.array([[one[0].estimate, (one[0].squared_norms or [np.nan])[0]] for one in found])
    assert (np.abs(estimates.mean(axis=0)) <= 3 * estimates.std(axis=0) / np.sqrt(replicates)).all()
    assert np.mean([one[0].raw for one in found]) > 0.005
    return float(ours), float(naive)


@pytest.mark.parametrize("crossed", [False, True])
def test_five_percent_of_terms_without_effect_are_found(crossed: bool) -> None:
    check_calibration(occurrences, crossed, 200)


def campaign(name: str, draw: Draw) -> None:
    """Print the figures of docs/statistics.md."""
    for crossed in (False, True):
        ours, naive = check_calibration(draw, crossed, 1000)
        print(
            f"\n{name}: authors in {'several groups' if crossed else 'one group'}: ours {ours:.3f}, naive {naive:.3f}"
        )


@pytest.mark.soak
def test_the_campaign_of_regressions_on_synthetic_occurrences() -> None:
    campaign("synthetic", occurrences)


@pytest.mark.soak
@pytest.mark.real_data
def test_the_campaign_of_regressions_on_real_tweets(real: tuple[Draw, Draw]) -> None:
    campaign("real", real[0])


def test_estimates_from_few_occurrences_are_unbiased_even_with_a_dominant_unit() -> None:
    random = np.random.default_rng(0)
    for unit in (np.arange(10), np.concatenate([np.arange(20), np.full(20, 20)])):
        # The dominant unit has few arrangements, and a large weight.
        columns = [random.integers(0, 2, (unit.max() + 1, 1)).astype(float)[unit], random.random((len(unit), 1))]
        columns[0][:2] = [[0], [1]]
        design, found = Design(columns), []
        for _ in range(1500):
            vectors = random.standard_normal((unit.max() + 1, 8))[unit] + 0.5 * random.standard_normal((len(unit), 8))
            norms = Regression((vectors + 5).astype(np.float32), design, unit).effects()[0].squared_norms
            assert norms is not None
            found.append(norms[0])
        assert abs(np.mean(found)) <= 3.3 * np.std(found) / np.sqrt(len(found))


def test_blocks_of_different_size_are_never_exchanged() -> None:
    unit = np.repeat(np.arange(6), [1, 1, 1, 2, 2, 3])
    column = np.arange(6.0)[unit][:, None]
    exchange = Regression(np.ones((10, 2), np.float32), Design([column]), unit).exchange()
    assert exchange.arrangements() == pytest.approx(6 * 2 * 1)
    sizes = np.array([1, 1, 1, 2, 2, 3])
    assert all((sizes[labels] == sizes[unit]).all() for labels in exchange.shuffles(50, np.random.default_rng(0)))


def test_a_planted_effect_is_found_and_measured() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(60):
        vectors, label = occurrences(random, 120), random.integers(0, 2, (120, 1)).astype(float)
        vectors[:, 1] += label[:, 0] * 0.8
        regression = Regression(vectors, Design([label, random.random((120, 1))]), np.arange(120))
        found.append((regression.p_values(199, random)[0], regression.effects()[0].squared_norms))
    assert np.mean([p_value <= 0.05 for p_value, _ in found]) > 0.9
    # The true squared length is 0.64.
    lengths = np.array([norms[0] for _, norms in found if norms])
    assert abs(lengths.mean() - 0.64) <= 3 * lengths.std() / np.sqrt(60)


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40), together=st.integers(1, 8))
def test_equalized_units_have_others_of_their_size(sizes: list[int], together: int) -> None:
    unit = np.repeat(np.arange(len(sizes)), sizes)
    kept = np.bincount(unit[equalize_unit_sizes(unit, together, np.random.default_rng(0))], minlength=len(sizes))
    assert (kept >= 1).all() and (kept <= sizes).all()
    counts = np.bincount(kept)
    # All sizes but the smallest have enough units.
    assert (counts[kept.min() + 1 :][counts[kept.min() + 1 :] > 0] >= together).all()

"""Regression of vectors: what statistics from scratch give, no bias, and no finding too many beside a loud author."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.words.statistics.exchangeable_units import earliest, levelled
from bert_tweets.words.statistics.multivariate_regression import Design, Effect, Regression
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
    """A truth value, a number that goes with it, and two columns; vectors that the first one shifts."""
    random = np.random.default_rng(seed)
    first = random.integers(0, 2, (rows, 1)).astype(float)
    columns = [first, random.random((rows, 1)) + first, random.random((rows, 2))]
    return columns, (random.standard_normal((rows, width)) + 0.5 * first).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.sampled_from([1, 6, 80]))
def test_shares_are_those_of_two_fits_and_coefficients_those_of_least_squares(seed: int, width: int) -> None:
    columns, vectors = example(seed, width=width)
    regression = Regression(vectors, Design(columns), np.arange(40))
    raw = [effect.raw for effect in regression.effects()]
    assert raw == pytest.approx([partial(columns, vectors.astype(float), number) for number in range(3)], rel=1e-4)
    whole = np.column_stack([np.ones(40), *columns])
    solved = np.linalg.lstsq(whole, vectors, rcond=None)[0][1:]
    weights = np.concatenate([part.weights for part in regression.design.parts if part.weights is not None], axis=1)
    assert np.allclose(weights.T @ vectors, solved, atol=1e-4)


def test_permutations_are_those_of_the_residuals_of_the_fit_without_the_term() -> None:
    columns, vectors = example(3)
    unit = np.repeat(np.arange(25), [1] * 15 + [2] * 5 + [3] * 5)
    points = np.random.default_rng(0).standard_normal((40, 6)) + vectors
    regression = Regression(points.astype(np.float32), Design(columns), unit)
    kinds = regression.design.kinds
    place = np.argsort(kinds)
    orders = np.concatenate(list(regression.exchange().shuffled(99, np.random.default_rng(1))))
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
    # Whole blocks, of one size.
    sizes = np.bincount(unit)[unit]
    assert (sizes[place[orders]] == sizes).all() and (np.diff(place[orders][:, 15:25:2]) != 0).all()


def test_what_is_constant_or_follows_from_the_others_explains_nothing() -> None:
    columns, vectors = example(1)
    twice, constant = 2 * columns[0] - columns[2][:, :1], np.full((40, 1), 7.0)
    design = Design([*columns, twice, constant])
    regression = Regression(vectors, design, np.arange(40))
    ranks = [part.own.shape[1] for part in design.parts]
    assert ranks == [0, 1, 1, 0, 0] and [design.constant(number) for number in range(5)] == [False] * 4 + [True]
    assert [effect.norms is None for effect in regression.effects()] == [True, False, True, True, True]
    assert regression.p_values(99, np.random.default_rng(0)).shape == (5,)


def test_a_term_that_hangs_on_one_unit_has_no_debiased_estimate() -> None:
    vectors = example(1)[1]
    only = (np.arange(40) == 5).astype(float)[:, None]
    effect = Regression(vectors, Design([only]), np.arange(40)).effects()[0]
    assert effect.estimate is None and effect.norms is None and 0 < effect.raw < 1


def of_study(draw: Draw, seed: int, crossed: bool) -> tuple[Effect, float, float]:
    """Effect and p of a label that goes with time, where time alone matters, beside the p of every tweet a unit."""
    random = np.random.default_rng([seed, crossed])
    drawn = study(draw, random, crossed)
    count = len(drawn.author)
    time = random.random(count) if crossed else random.random(drawn.author.max() + 1)[drawn.author]
    # Copies are of the hour of their original.
    time = time[drawn.cluster] + 0.5 * drawn.label
    vectors = drawn.vectors.copy()
    vectors[:, 1] += 2 * time.astype(np.float32)
    rows = earliest(drawn.cluster, np.arange(count), random)
    rows = rows[np.argsort(drawn.author[rows], kind="stable")]
    rows = rows[levelled(np.unique(drawn.author[rows], return_inverse=True)[1], 20, random)]

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
    # Unbiased, where the plain figures are not.
    estimates = np.array([[one[0].estimate, (one[0].norms or [np.nan])[0]] for one in found])
    assert (np.abs(estimates.mean(axis=0)) <= 3 * estimates.std(axis=0) / np.sqrt(replicates)).all()
    assert np.mean([one[0].raw for one in found]) > 0.005
    return float(ours), float(naive)


@pytest.mark.parametrize("crossed", [False, True])
def test_five_in_a_hundred_are_found_where_a_term_explains_nothing(crossed: bool) -> None:
    check_calibration(occurrences, crossed, 200)


def campaign(name: str, draw: Draw) -> None:
    """Prints what docs/statistics.md says."""
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


def test_estimates_of_few_occurrences_are_unbiased_even_beside_a_unit_that_outweighs_the_others() -> None:
    random = np.random.default_rng(0)
    for unit in (np.arange(10), np.concatenate([np.arange(20), np.full(20, 20)])):
        # The loud one has few arrangements of his own, and much weight.
        columns = [random.integers(0, 2, (unit.max() + 1, 1)).astype(float)[unit], random.random((len(unit), 1))]
        columns[0][:2] = [[0], [1]]
        design, found = Design(columns), []
        for _ in range(1500):
            vectors = random.standard_normal((unit.max() + 1, 8))[unit] + 0.5 * random.standard_normal((len(unit), 8))
            norms = Regression((vectors + 5).astype(np.float32), design, unit).effects()[0].norms
            assert norms is not None
            found.append(norms[0])
        assert abs(np.mean(found)) <= 3.3 * np.std(found) / np.sqrt(len(found))


def test_blocks_of_different_size_are_never_exchanged() -> None:
    unit = np.repeat(np.arange(6), [1, 1, 1, 2, 2, 3])
    column = np.arange(6.0)[unit][:, None]
    exchange = Regression(np.ones((10, 2), np.float32), Design([column]), unit).exchange()
    assert exchange.arrangements() == pytest.approx(6 * 2 * 1)
    sizes = np.array([1, 1, 1, 2, 2, 3])
    assert all((sizes[labels] == sizes[unit]).all() for labels in exchange.shuffled(50, np.random.default_rng(0)))


def test_what_is_there_is_found_and_measured() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(60):
        vectors, label = occurrences(random, 120), random.integers(0, 2, (120, 1)).astype(float)
        vectors[:, 1] += label[:, 0] * 0.8
        regression = Regression(vectors, Design([label, random.random((120, 1))]), np.arange(120))
        found.append((regression.p_values(199, random)[0], regression.effects()[0].norms))
    assert np.mean([p_value <= 0.05 for p_value, _ in found]) > 0.9
    # The true squared length is 0.64.
    lengths = np.array([norms[0] for _, norms in found if norms])
    assert abs(lengths.mean() - 0.64) <= 3 * lengths.std() / np.sqrt(60)


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40), together=st.integers(1, 8))
def test_levelled_units_have_others_of_their_size(sizes: list[int], together: int) -> None:
    unit = np.repeat(np.arange(len(sizes)), sizes)
    kept = np.bincount(unit[levelled(unit, together, np.random.default_rng(0))], minlength=len(sizes))
    assert (kept >= 1).all() and (kept <= sizes).all()
    counts = np.bincount(kept)
    # All but the smallest have enough of their size.
    assert (counts[kept.min() + 1 :][counts[kept.min() + 1 :] > 0] >= together).all()

"""Calibration: false findings are as rare as promised, despite copies and one prolific author.

The short tests run on synthetic occurrences; the campaign (`make soak`) runs on real tweets too, and prints the tables
of docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bert_tweets import embed, prepare
from bert_tweets.words.statistics.energy_distance import energy_statistic, jackknife_variance, pairwise_distances
from bert_tweets.words.statistics.exchangeable_units import Exchange, Units, earliest_per_cluster
from bert_tweets.words.statistics.permutation_test import permutation_test, q_values
from tests.words.synthetic import Array, alone, occurrences, two_groups

Draw = Callable[[np.random.Generator, int], Array]
PROLIFIC = 40


@dataclass(frozen=True)
class Study:
    """Occurrences in two groups without a difference, however they are labelled."""

    vectors: Array
    cluster: Array
    author: Array
    label: Array

    def ours(self, permutations: int, random: np.random.Generator) -> float:
        rows = earliest_per_cluster(self.cluster, np.arange(len(self.cluster)), random)
        rows = rows[np.argsort(self.author[rows], kind="stable")]
        units = Units(np.unique(self.author[rows], return_inverse=True)[1], self.label[rows])
        return permutation_test(pairwise_distances(self.vectors[rows], units.unit), units, permutations, random).p_value

    def naive(self, permutations: int, random: np.random.Generator) -> float:
        """The p-value with each tweet a unit of its own."""
        units = alone(self.label)
        return permutation_test(pairwise_distances(self.vectors, units.unit), units, permutations, random).p_value


def study(draw: Draw, random: np.random.Generator, crossed: bool) -> Study:
    """100 tweets, 8 of which others copy 10 times in the same group, and 40 tweets of one author with a manner.

    Authors are labelled at random; or, crossed, twenty of them wrote twice, in any group, and the prolific one in both.
    """
    author = np.arange(100)
    if crossed:
        author[80:] = np.arange(20)
    author = np.concatenate([author, np.full(PROLIFIC, 100)])
    label = random.integers(0, 2, 101)[author]
    if crossed:
        label = random.integers(0, 2, len(author))
    vectors = draw(random, len(author))
    vectors[100:] = vectors[100] + 0.5 * (vectors[100:] - vectors.mean(axis=0))
    copied = np.repeat(random.choice(100, 8, replace=False), 10)
    copiers = 1000 + np.arange(len(copied))
    return Study(
        np.concatenate([vectors, vectors[copied]]),
        np.concatenate([np.arange(len(author)), copied]),
        np.concatenate([author, copiers]),
        np.concatenate([label, label[copied]]),
    )


def rejections(draw: Draw, replicates: int, crossed: bool, permutations: int) -> tuple[float, float]:
    """The shares of replicates in which our test and the naive one find a difference at 5 %."""
    p_values = []
    for seed in range(replicates):
        random = np.random.default_rng([seed, crossed])
        drawn = study(draw, random, crossed)
        p_values.append((drawn.ours(permutations, random), drawn.naive(permutations, random)))
    ours, naive = (np.array(p_values) <= 0.05).mean(axis=0).tolist()
    return ours, naive


@pytest.mark.parametrize("crossed", [False, True])
def test_five_percent_are_found_without_a_difference(crossed: bool) -> None:
    ours, naive = rejections(occurrences, 200, crossed, permutations=199)
    # Three standard errors of a share of 5 % of 200.
    assert abs(ours - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / 200)
    assert naive > 0.25


def false_share(draw: Draw, changed: Draw, replicates: int) -> float:
    """The mean share of false findings for 15 words, five of which have a new use in half of the second group."""
    units, shares = two_groups(40, 40), []
    for seed in range(replicates):
        random = np.random.default_rng(seed)
        p_values = []
        for number in range(15):
            vectors = draw(random, 80)
            if number < 5:
                vectors[60:] = changed(random, 20)
            test = permutation_test(pairwise_distances(vectors, units.unit), units, 399, random)
            p_values.append(test.p_value)
        found = np.flatnonzero(q_values(np.array(p_values)) <= 0.05)
        shares.append((found >= 5).sum() / max(len(found), 1))
    return float(np.mean(shares))


def test_one_in_twenty_findings_is_false_at_most() -> None:
    assert false_share(occurrences, other_use, 60) <= 0.05 + 2 * 0.012


def other_use(random: np.random.Generator, count: int) -> Array:
    vectors = occurrences(random, count)
    vectors[:, 1] += 3
    return vectors


def coverage(draw: Draw, changed: Draw, sizes: tuple[int, int], share: float, replicates: int) -> float:
    """How often the interval covers the true distance if a share of the second group has the other use."""
    units, found = two_groups(*sizes), []
    for seed in range(replicates):
        random = np.random.default_rng([seed, *sizes])
        drawn = pairwise_distances(swapped(draw, changed, sizes, share, random), units.unit)
        estimate = float(energy_statistic(drawn, units)[0])
        found.append((estimate, *jackknife_variance(drawn, units).interval(estimate)))
    estimates, low, high = np.array(found).T
    # The estimator is unbiased; without a difference the truth is known.
    truth = estimates.mean() if share else 0.0
    return float(((low <= truth) & (truth <= high)).mean())


def swapped(draw: Draw, changed: Draw, sizes: tuple[int, int], share: float, random: np.random.Generator) -> Array:
    vectors = draw(random, sum(sizes))
    new = sizes[0] + np.flatnonzero(random.random(sizes[1]) < share)
    vectors[new] = changed(random, len(new))
    return vectors


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_intervals_have_their_nominal_coverage(share: float) -> None:
    covered = coverage(occurrences, other_use, (60, 120), share, 300)
    assert 0.92 - 0.02 <= covered <= 0.97 + 0.02


def powers(draw: Draw, changed: Draw, count: int, share: float, replicates: int) -> list[float]:
    """The power at 5 % of the energy distance, the distance of means and the average distance between groups.

    The groups have unequal sizes: with equal ones the average pairwise distance orders permutations as the energy
    distance does, because then the distances within and between groups add up to the same.
    """
    sizes = (count // 4, count - count // 4)
    units, found = two_groups(*sizes), []
    for seed in range(replicates):
        random = np.random.default_rng([seed, count])
        vectors = swapped(draw, changed, sizes, share, random)
        matrix = pairwise_distances(vectors, units.unit)
        labels = np.concatenate([units.label[None], *Exchange(units).shuffles(199, random)])
        signs = np.where(labels == 1, 1 / sizes[1], -1 / sizes[0])
        means = np.linalg.norm(signs @ vectors, axis=1)
        second = (labels == 1).astype(np.float32)
        pairwise = ((1 - second) @ matrix.matrix * second).sum(axis=1)
        statistics = (energy_statistic(matrix, units, labels), means, pairwise)
        found.append([(one[1:] >= one[0] - 1e-9).sum() + 1 <= 10 for one in statistics])
    return np.mean(found, axis=0).tolist()


def test_the_energy_distance_finds_a_planted_difference() -> None:
    energy, _, pairwise = powers(occurrences, other_use, 100, 0.5, 40)
    assert energy > 0.9 and energy > pairwise


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Draw, Draw]:
    """Samplers of occurrences of `price` and of `growth`, one per cluster, from MiniLM-L6, without replacement."""
    folder = tmp_path_factory.mktemp("real")
    models = real_data.parent / "models"
    tweets = [f"input={real_data / 'stocknet_en.csv.gz'}", f"tokenizer={models / 'bert-base-uncased-tokenizer'}"]
    prepare.stage([*tweets, f"output={folder / 'shards'}", "deduplicate=none"])
    settings = ["words=[price,growth]", "background_tweets=500", "max_occurrences=2500", "controls=0"]
    made = [f"data.path={folder / 'shards'}", f"output={folder / 'words'}"]
    embed.stage([f"model={models / 'minilm-l6'}", *made, *settings])
    return draws_of(folder / "words" / "occurrences.parquet")


def draws_of(path: Path) -> tuple[Draw, Draw]:
    rows = pq.read_table(path, columns=["word", "cluster", "status", "vector"]).to_pylist()
    pools: dict[str, dict[int, Any]] = {"price": {}, "growth": {}}
    for row in rows:
        if row["status"] == "found" and row["word"] in pools:
            pools[row["word"]].setdefault(row["cluster"], row["vector"])

    def drawing(pool: Array) -> Draw:
        return lambda random, count: pool[random.choice(len(pool), count, replace=count > len(pool))]

    first, second = (drawing(np.array(list(pools[word].values()), np.float32)) for word in ("price", "growth"))
    return first, second


def campaign(name: str, draw: Draw, changed: Draw, replicates: int) -> None:
    """Print the tables of docs/statistics.md."""
    for crossed in (False, True):
        ours, naive = rejections(draw, replicates, crossed, permutations=199)
        print(
            f"\n{name}: authors in {'several groups' if crossed else 'one group'}: ours {ours:.3f}, naive {naive:.3f}"
        )
        assert abs(ours - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / replicates) and naive > 0.25
    false = false_share(draw, changed, replicates)
    print(f"{name}: mean share of false findings {false:.3f}")
    assert false <= 0.05 + 2 * 0.15 / np.sqrt(replicates)
    for sizes in ((60, 60), (60, 120), (50, 200), (150, 150)):
        covered = [coverage(draw, changed, sizes, share, 2 * replicates) for share in (0.0, 0.1, 0.25, 0.5)]
        print(
            f"{name}: {sizes}: interval coverage {' '.join(f'{one:.3f}' for one in covered)} at 0, 10, 25, 50 %",
            flush=True,
        )
        assert all(0.92 - 0.025 <= one <= 0.97 + 0.025 for one in covered)
    for count in (50, 200, 1000):
        for share in (0.1, 0.25, 0.5, 1.0):
            found = powers(draw, changed, count, share, replicates if count < 1000 else replicates // 4)
            print(f"{name}: n {count}, {share:.0%}: {' '.join(f'{one:.2f}' for one in found)}", flush=True)


@pytest.mark.soak
def test_the_campaign_on_synthetic_occurrences() -> None:
    campaign("synthetic", occurrences, other_use, 200)


@pytest.mark.soak
@pytest.mark.real_data
def test_the_campaign_on_real_tweets(real: tuple[Draw, Draw]) -> None:
    campaign("real", *real, 200)

"""Permutation tests, and the false discovery rate of their findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bert_tweets.common.arrays import Doubles

from .energy_distance import DistanceMatrix, energy_statistic
from .exchangeable_units import Exchange, Units

# In standard deviations of the distances: smaller differences are rounding errors, and count as ties, that is against
# a finding.
_TIE = 1e-6


@dataclass(frozen=True)
class PermutationTest:
    """The result of a permutation test of one comparison.

    Attributes:
        p_value: (b + 1) / (R + 1) for R permutations, b of them with a statistic at least as large as the observed one
            (Phipson and Smyth 2010).
        min_attainable_p: the smallest p-value that was possible.
        null: float64 [R], the statistics of the permutations, ascending.
    """

    p_value: float
    min_attainable_p: float
    null: Doubles

    def detectable_effect(self, level: float) -> float | None:
        """The estimate above which p would have been within the level; None if no estimate could have reached it.

        An effect of exactly this size is found about half of the time.
        """
        beyond = int(level * (len(self.null) + 1) + 1e-9)
        return float(self.null[-beyond]) if beyond and self.min_attainable_p <= level else None


def min_attainable_p(exchange: Exchange, permutations: int) -> float:
    """The smallest p-value of a test with so many permutations of these units."""
    return max(1 / (permutations + 1), 1 / exchange.arrangements())


def permutation_test(
    distances: DistanceMatrix, units: Units, permutations: int, random: np.random.Generator
) -> PermutationTest:
    """Test whether groups of at least two units each differ by more than if whole units were assigned at random."""
    exchange = Exchange(units)
    observed = energy_statistic(distances, units)[0]
    shuffles = exchange.shuffles(permutations, random)
    null = np.concatenate([energy_statistic(distances, units, labels) for labels in shuffles])
    tie = _TIE * float(distances.matrix.std())
    p_value = (int((null >= observed - tie).sum()) + 1) / (permutations + 1)
    return PermutationTest(p_value, min_attainable_p(exchange, permutations), np.sort(null))


def q_values(p_values: Doubles) -> Doubles:
    """The smallest false discovery rate at which each test is a finding, float64 (Benjamini and Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_values) if len(p_values) else p_values)

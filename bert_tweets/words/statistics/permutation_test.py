"""Tests by permutation, and how many of their findings are false."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .energy_distance import Distances, Doubles, between_and_within
from .exchangeable_units import Exchange, Units

# Of the standard deviation of distances. What differs by less than rounding is a tie, and ties count against a finding.
_TIE = 1e-6


@dataclass(frozen=True)
class PermutationTest:
    """A permutation test of one comparison.

    Attributes:
        p_value: (b + 1) / (R + 1), of R permutations b with a statistic as large (Phipson and Smyth 2010).
        smallest: the smallest p that could have come out.
        null: float64 [R], the statistics of the permutations, ascending.
    """

    p_value: float
    smallest: float
    null: Doubles

    def smallest_effect(self, level: float) -> float | None:
        """The estimate beyond which p would have been within the level; None where no estimate could bring it there.

        An effect of just that size is found about as often as not.
        """
        beyond = int(level * (len(self.null) + 1) + 1e-9)
        return float(self.null[-beyond]) if beyond and self.smallest <= level else None


def permutation_test(
    distances: Distances, units: Units, permutations: int, random: np.random.Generator
) -> PermutationTest:
    """Whether groups differ by more than they would if whole units had fallen into them at random.

    Args:
        distances: of the occurrences.
        units: of the occurrences, two in each group at least.
        permutations: R.
        random: the generator.
    """
    exchange = Exchange(units)
    observed = between_and_within(distances, units)[0]
    shuffles = exchange.shuffled(permutations, random)
    null = np.concatenate([between_and_within(distances, units, labels) for labels in shuffles])
    tie = _TIE * float(distances.matrix.std())
    p_value = (int((null >= observed - tie).sum()) + 1) / (permutations + 1)
    return PermutationTest(p_value, max(1 / (permutations + 1), 1 / exchange.arrangements()), np.sort(null))


def false_discovery_rates(p_values: Doubles) -> Doubles:
    """q of each p: the smallest false-discovery rate at which it is a finding (Benjamini and Hochberg 1995).

    Args:
        p_values: float64 [tests].
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    q_values = np.empty_like(p_values)
    q_values[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1)
    return q_values

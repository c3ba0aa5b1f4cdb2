"""Exchangeable units: copies are not evidence, and the tweets of one author are the evidence of one author."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bert_tweets.common.arrays import Ints, dense_numbers, run_starts

# Number of labels (occurrences x groups) to shuffle at once: bounds the memory.
_LABELS_AT_ONCE = 2**24


def earliest_per_cluster(cluster: Ints, time: Ints, random: np.random.Generator) -> Ints:
    """Select one occurrence of each near-duplicate cluster: the earliest, and a random one among equal times.

    A cluster with copies in several groups therefore counts in the group in which its text appeared first; later
    copies elsewhere are left out. Without known times the choice is random: rows often come group by group, and the
    first group would get every text that is copied in several, and differ from the others by it.

    Args:
        cluster: int64 [occurrences].
        time: int64 [occurrences]; the largest int64 where it is unknown.

    Returns:
        int64 [clusters], rows in ascending order.
    """
    order = np.lexsort((random.permutation(len(cluster)), time, cluster))
    return np.sort(order[run_starts(cluster[order])])


def sample_per_owner(owner: Ints, limit: int, random: np.random.Generator) -> Ints:
    """Draw at most `limit` rows of each owner, int64 [rows], or all rows if it is 0; int64 [rows drawn], ascending."""
    return _sample(owner, np.full(int(owner.max(initial=-1)) + 1, limit), random) if limit else np.arange(len(owner))


def equalize_unit_sizes(unit: Ints, units_per_size: int, random: np.random.Generator) -> Ints:
    """Draw rows so that, as far as possible, each size is the size of at least `units_per_size` units.

    Blocks can be exchanged with blocks of equal size only: a unit of a unique size would never be exchanged, and one
    that outweighs all others would decide the result. From the largest down, units are cut to the size of the smallest
    of the next `units_per_size` units. If fewer are left at the end, they are cut to their smallest.

    `unit` is int64 [rows], ascending from 0. Returns int64 [rows drawn], ascending.
    """
    sizes = np.bincount(unit)
    order = np.argsort(-sizes, kind="stable")
    limits = np.empty_like(sizes)
    first = 0
    while first < len(order):
        smallest = sizes[order[min(first + units_per_size, len(order)) - 1]]
        last = int(np.searchsorted(-sizes[order], -smallest, side="right"))
        limits[order[first:last]] = smallest
        first = last
    return _sample(unit, limits, random)


def _sample(owner: Ints, limits: Ints, random: np.random.Generator) -> Ints:
    order = np.lexsort((random.permutation(len(owner)), owner))
    starts = run_starts(owner[order])
    rank = np.arange(len(owner)) - np.repeat(starts, np.diff(starts, append=len(owner)))
    return np.sort(order[rank < limits[owner[order]]])


def count_cross_group_clusters(cluster: Ints, group: Ints) -> int:
    """The number of clusters with occurrences in several groups; both arguments are int64 [occurrences]."""
    pairs = np.unique(np.stack([cluster, group]), axis=1)
    return int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())


@dataclass(frozen=True)
class Units:
    """Occurrences, by the units that are exchanged as wholes: authors or near-duplicate clusters.

    Attributes:
        unit: int64 [occurrences], the unit of each occurrence, ascending from 0.
        label: int64 [occurrences], the group of each occurrence, from 0; every group has one.
    """

    unit: Ints
    label: Ints

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self.label.max()) + 1

    @property
    def starts(self) -> Ints:
        """int64 [units], the first row of each unit."""
        return run_starts(self.unit)

    def units_per_group(self) -> Ints:
        """int64 [groups], the number of units with an occurrence in each group."""
        pairs = np.unique(np.stack([self.unit, self.label]), axis=1)
        return np.bincount(pairs[1], minlength=self.groups)

    def subset(self, groups: Sequence[int]) -> tuple[Ints, Units]:
        """The rows of some groups, int64, and their units, with places in `groups` as labels."""
        place = np.full(self.groups, -1)
        place[list(groups)] = np.arange(len(groups))
        rows = np.flatnonzero(place[self.label] >= 0)
        return rows, Units(dense_numbers(self.unit[rows]), place[self.label[rows]])


@dataclass(frozen=True)
class _Stratum:
    """Units that exchange their profiles: int64 [units, places], the labels of each unit.

    `rows`, `owner` and `place`, int64 [rows], are occurrences, their units in the stratum and places in the profile.
    """

    profiles: Ints
    rows: Ints
    owner: Ints
    place: Ints


class Exchange:
    """Exchange of labels between whole units, under the hypothesis that use does not differ by group.

    If each unit is in one group, labels are exchanged among all units. If some are in several (an author who writes in
    many months), or with `equal_sizes`, the labels of a unit stay together and are exchanged among units with equally
    many occurrences: whole-block exchange, which needs blocks of equal size (Winkler et al. 2015, "Multi-level block
    permutation", NeuroImage 123). Nothing is shuffled within a unit: the drift of one author is no evidence of that of
    others.
    """

    def __init__(self, units: Units, equal_sizes: bool = False):
        starts = units.starts
        sizes = np.diff(starts, append=len(units))
        firsts = units.label[starts]
        self.units = units
        if not equal_sizes and (units.label == np.repeat(firsts, sizes)).all():
            everything = np.arange(len(units))
            self._strata = [_Stratum(firsts[:, None], everything, units.unit, np.zeros_like(units.unit))]
        else:
            self._strata = [
                _stratum_of_size(units.label, starts[sizes == size], size) for size in np.unique(sizes).tolist()
            ]

    def arrangements(self) -> float:
        """The number of different labellings; infinite if it exceeds e^700."""
        total = 0.0
        for stratum in self._strata:
            counts = np.unique(stratum.profiles, axis=0, return_counts=True)[1]
            total += math.lgamma(len(stratum.profiles) + 1) - sum(math.lgamma(count + 1) for count in counts.tolist())
        return math.exp(total) if total < 700 else math.inf

    def shuffles(self, count: int, random: np.random.Generator, numbers: int = 0) -> Iterator[Ints]:
        """Exchange the labels at random `count` times; yields int64 [some of the times, occurrences].

        `numbers`, how many numbers the caller computes from one exchange, bounds the size of a batch; 0: one for each
        occurrence and group.
        """
        step = max(1, _LABELS_AT_ONCE // (numbers or len(self.units) * self.units.groups))
        for first in range(0, count, step):
            times = min(step, count - first)
            labels = np.empty((times, len(self.units)), np.int64)
            for stratum in self._strata:
                order = np.tile(np.arange(len(stratum.profiles)), (times, 1))
                order = random.permuted(order, axis=1)
                labels[:, stratum.rows] = stratum.profiles[order[:, stratum.owner], stratum.place]
            yield labels


def _stratum_of_size(label: Ints, starts: Ints, size: int) -> _Stratum:
    rows = starts[:, None] + np.arange(size)
    owner, place = np.divmod(np.arange(rows.size), size)
    return _Stratum(label[rows], rows.ravel(), owner, place)

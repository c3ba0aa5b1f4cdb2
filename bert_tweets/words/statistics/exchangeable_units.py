"""Units of evidence: copies are not evidence, and what one author wrote is one author's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# Labels of so many occurrences and groups are shuffled at a time: bounds the memory.
_SHUFFLED_AT_ONCE = 2**24


def earliest(cluster: Ints, time: Ints, random: np.random.Generator) -> Ints:
    """One occurrence a near-duplicate cluster, the earliest; of equal times any.

    A cluster that spans groups therefore stands in the group in which its text came up; what was copied elsewhere
    later is left out there. Where times do not tell, chance does: rows often come group by group, and the first group
    would take all that is copied in several, and differ from the others by it.

    Args:
        cluster: int64 [occurrences].
        time: int64 [occurrences]; the largest of int64 where it is not known.
        random: chooses among equal times.

    Returns:
        int64 [clusters], rows in ascending order.
    """
    order = np.lexsort((random.permutation(len(cluster)), time, cluster))
    firsts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    return np.sort(order[firsts])


def at_most(owner: Ints, limit: int, random: np.random.Generator) -> Ints:
    """A seeded choice of `limit` rows of each owner at most; all where the limit is 0.

    Args:
        owner: int64 [rows].

    Returns:
        int64 [rows that stay], in ascending order.
    """
    return _sampled(owner, np.full(int(owner.max(initial=-1)) + 1, limit), random) if limit else np.arange(len(owner))


def levelled(unit: Ints, together: int, random: np.random.Generator) -> Ints:
    """A seeded choice of rows after which so many units have an equal number of rows, as far as may be.

    Blocks can be exchanged with blocks of equal size only, so that a unit of a size of its own would never be, and
    one that outweighs all others would decide what is found. From the largest down, units are cut to the size of the
    one that makes them so many. Where too few are left over at the end, they keep the size of their smallest.

    Args:
        unit: int64 [rows], ascending from 0.
        together: units of one size.

    Returns:
        int64 [rows that stay], in ascending order.
    """
    sizes = np.bincount(unit)
    order = np.argsort(-sizes, kind="stable")
    limits = np.empty_like(sizes)
    first = 0
    while first < len(order):
        smallest = sizes[order[min(first + together, len(order)) - 1]]
        last = int(np.searchsorted(-sizes[order], -smallest, side="right"))
        limits[order[first:last]] = smallest
        first = last
    return _sampled(unit, limits, random)


def _sampled(owner: Ints, limits: Ints, random: np.random.Generator) -> Ints:
    order = np.lexsort((random.permutation(len(owner)), owner))
    firsts = np.flatnonzero(np.diff(owner[order], prepend=-1))
    sizes = np.diff(firsts, append=len(owner))
    rank = np.arange(len(owner)) - np.repeat(firsts, sizes)
    return np.sort(order[rank < limits[owner[order]]])


def spanning(cluster: Ints, group: Ints) -> int:
    """How many clusters have occurrences in several groups; both int64 [occurrences]."""
    pairs = np.unique(np.stack([cluster, group]), axis=1)
    return int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())


@dataclass(frozen=True)
class Units:
    """Occurrences by the units that are exchanged as wholes: authors, or clusters.

    Attributes:
        unit: int64 [occurrences], ascending from 0.
        label: int64 [occurrences], the group of each, from 0; every group has one.
    """

    unit: Ints
    label: Ints

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def groups(self) -> int:
        return int(self.label.max()) + 1

    @property
    def starts(self) -> Ints:
        """int64 [units], the first row of each."""
        return np.flatnonzero(np.diff(self.unit, prepend=-1))

    def units_of_groups(self) -> Ints:
        """int64 [groups], units with an occurrence there."""
        pairs = np.unique(np.stack([self.unit, self.label]), axis=1)
        return np.bincount(pairs[1], minlength=self.groups)

    def among(self, groups: Sequence[int]) -> tuple[Ints, Units]:
        """The rows of some groups, int64, and their units, whose labels are the places in `groups`."""
        place = np.full(self.groups, -1)
        place[list(groups)] = np.arange(len(groups))
        rows = np.flatnonzero(place[self.label] >= 0)
        return rows, Units(np.unique(self.unit[rows], return_inverse=True)[1], place[self.label[rows]])


@dataclass(frozen=True)
class _Stratum:
    """Units among which profiles are exchanged.

    Attributes:
        profiles: int64 [units, places], the labels that a unit carries.
        rows: int64 [rows], of the occurrences.
        owner: int64 [rows], the unit of each in the stratum.
        place: int64 [rows], its place in the profile.
    """

    profiles: Ints
    rows: Ints
    owner: Ints
    place: Ints


class Exchange:
    """Labels exchanged between whole units, as they might have fallen had use not differed by group.

    Where each unit is in one group, labels are exchanged among all units. Where some are in several (one author writes
    in many months), a unit's labels travel together, among units of as many occurrences: whole-block exchange, for
    which blocks must be of equal size (Winkler et al. 2015, "Multi-level block permutation", NeuroImage 123).
    Within a unit nothing is shuffled: an author's own drift is no evidence of others'.

    Args:
        units: of the occurrences.
        equal_sizes: exchange among units of as many occurrences in any case.
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
            self._strata = [_of_size(units.label, starts[sizes == size], size) for size in np.unique(sizes).tolist()]

    def arrangements(self) -> float:
        """How many labellings there are; infinite for more than can be told apart."""
        total = 0.0
        for stratum in self._strata:
            counts = np.unique(stratum.profiles, axis=0, return_counts=True)[1]
            total += math.lgamma(len(stratum.profiles) + 1) - sum(math.lgamma(count + 1) for count in counts.tolist())
        return math.exp(total) if total < 700 else math.inf

    def exchanged(self) -> int:
        """How many occurrences are of units that have another to be exchanged with."""
        return sum(len(stratum.rows) for stratum in self._strata if len(stratum.profiles) > 1)

    def shuffled(self, count: int, random: np.random.Generator, numbers: int = 0) -> Iterator[Ints]:
        """Labels exchanged at random `count` times; int64 [some of the times, occurrences].

        Args:
            count: times.
            random: the generator.
            numbers: that the caller makes of each time's labels, which bounds how many come at once; 0: one for each
                occurrence and group.
        """
        step = max(1, _SHUFFLED_AT_ONCE // (numbers or len(self.units) * self.units.groups))
        for first in range(0, count, step):
            times = min(step, count - first)
            labels = np.empty((times, len(self.units)), np.int64)
            for stratum in self._strata:
                order = np.tile(np.arange(len(stratum.profiles)), (times, 1))
                order = random.permuted(order, axis=1)
                labels[:, stratum.rows] = stratum.profiles[order[:, stratum.owner], stratum.place]
            yield labels


def _of_size(label: Ints, starts: Ints, size: int) -> _Stratum:
    rows = starts[:, None] + np.arange(size)
    owner, place = np.divmod(np.arange(rows.size), size)
    return _Stratum(label[rows], rows.ravel(), owner, place)

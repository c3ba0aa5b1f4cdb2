"""Sharing: which part of the work of one process each rank takes, in order and without a word between them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkSplit:
    """A rank's share of work that one process could do alone; by default all of it.

    Work comes in units (steps, chunks of tweets) that are cut into parts (micro-batches), into how many is known only
    where a unit is made. A rank makes the units that it takes a part of as one process would, so that the parts are
    the same to the bit. Its parts are contiguous, and those of the next rank follow.

    Attributes:
        rank, world_size: this rank's place.
    """

    rank: int = 0
    world_size: int = 1

    def range_for(self, count: int) -> range:
        """This rank's of so many things that cost the same."""
        return range(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def chunks(self, units: int) -> range:
        """The units that this rank makes."""
        return range(self.rank * units // self.world_size, -(-(self.rank + 1) * units // self.world_size))

    def parts_of(self, unit: int, units: int, parts: int) -> range:
        """This rank's parts of a unit: those whose middle lies in its share of the length of all units.

        Args:
            unit: which.
            units: of how many.
            parts: that the unit is cut into.
        """
        return range(*(self._first(rank, unit, units, parts) for rank in (self.rank, self.rank + 1)))

    def _first(self, rank: int, unit: int, units: int, parts: int) -> int:
        """The first part whose middle, unit + (part + 1/2) / parts, is not before rank · units / ranks."""
        ranks = self.world_size
        beyond = 2 * parts * (rank * units - unit * ranks) - ranks
        return min(max(-(-beyond // (2 * ranks)), 0), parts)


ALL_WORK = WorkSplit()

"""Splitting work among ranks, in order and without communication."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkSplit:
    """A rank's share of work that a single process could do; by default all of it.

    Work comes in chunks (steps, groups of tweets), each of which is cut into parts (micro-batches); their number is
    known only once the chunk is made. A rank makes every chunk of which it takes a part, exactly as a single process
    would, so that parts are bit-identical. A rank's parts are contiguous, and the next rank's follow.
    """

    rank: int = 0
    world_size: int = 1

    def range_for(self, count: int) -> range:
        """This rank's indices of `count` items of equal cost."""
        return range(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def chunks(self, units: int) -> range:
        """Indices of the chunks that this rank makes, of `units` in all."""
        return range(self.rank * units // self.world_size, -(-(self.rank + 1) * units // self.world_size))

    def parts_of(self, unit: int, units: int, parts: int) -> range:
        """This rank's parts of a chunk: those whose middle lies in its share of the length of all chunks."""
        return range(*(self._first(rank, unit, units, parts) for rank in (self.rank, self.rank + 1)))

    def _first(self, rank: int, unit: int, units: int, parts: int) -> int:
        """The first part whose middle, unit + (part + 1/2) / parts, is not before rank · units / ranks."""
        ranks = self.world_size
        beyond = 2 * parts * (rank * units - unit * ranks) - ranks
        return min(max(-(-beyond // (2 * ranks)), 0), parts)


ALL_WORK = WorkSplit()

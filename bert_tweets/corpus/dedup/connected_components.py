"""Find connected components of more rows and pairs than fit in memory: one sweep down the rows and one up.

Down, from the highest range: the rows of the range are joined, and each of their components keeps one row below the
range, the lowest that it touches. The other rows that it touches below are connected through it, so they are paired
with that lowest row, and the range is finished. Up: the component of the row below is already known. Each range is in
memory once per sweep; pairs only move down, and their number never grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bert_tweets.common.arrays import Ints

from .candidate_pairs import PAIR, Pairs, pair_records
from .disk_buckets import Buckets
from .minhash import Hashes, is_first

NOWHERE = np.iinfo(np.int64).max
_ANSWER = np.dtype([("row", "<i8"), ("component", "<i8"), ("value", "<u8")])


class Components:
    """The connected components of rows numbered from 0.

    Args:
        folder: folder for temporary data.
        rows: number of rows in the corpus.
        range_rows: number of rows in a range; each takes about 100 bytes of memory.
    """

    def __init__(self, folder: Path, rows: int, range_rows: int):
        self._folder = folder
        self._rows = rows
        self._range_rows = range_rows
        self._ranges = -(-rows // range_rows)
        self._pairs = Buckets(folder / "pairs", PAIR, self._ranges)

    def connect(self, pairs: Pairs) -> None:
        """Add pairs of rows, PAIR [pairs]."""
        self._pairs.add(pairs["later"] // self._range_rows, pairs)

    def labels(self, values: Callable[[int, int], Hashes]) -> Iterator[tuple[Ints, Hashes]]:
        """Range by range, the earliest row of each row's component, and that row's value; can be called once.

        Args:
            values: returns the values of rows [begin, end); uint64 [rows].

        Returns:
            int64 [rows of the range], uint64 [rows of the range].
        """
        with (
            Buckets(self._folder / "queries", PAIR, self._ranges) as queries,
            Buckets(self._folder / "answers", _ANSWER, self._ranges) as answers,
        ):
            for number in reversed(range(self._ranges)):
                self._sweep_down(number, queries)
            self._pairs.close()
            for number in range(self._ranges):
                yield self._sweep_up(number, values, queries, answers)

    def _sweep_down(self, number: int, queries: Buckets) -> None:
        start = number * self._range_rows
        root = np.arange(min(self._range_rows, self._rows - start))
        below = np.full(len(root), NOWHERE)
        for pairs in self._pairs.read(number):
            self.connect(join(root, below, start, pairs))
        self._pairs.drop(number)
        tied = np.flatnonzero(below != NOWHERE)
        queries.add(below[tied] // self._range_rows, pair_records(tied + start, below[tied]))
        self._roots(number).write_bytes(root.astype(np.int32).data)

    def _sweep_up(
        self, number: int, values: Callable[[int, int], Hashes], queries: Buckets, answers: Buckets
    ) -> tuple[Ints, Hashes]:
        start = number * self._range_rows
        root = np.fromfile(self._roots(number), np.int32)
        self._roots(number).unlink()
        component = np.arange(start, start + len(root))
        value = values(start, start + len(root))
        for known in answers.read(number):
            component[known["row"] - start] = known["component"]
            value[known["row"] - start] = known["value"]
        answers.drop(number)
        component, value = component[root], value[root]
        for pairs in queries.read(number):
            answer = np.empty(len(pairs), _ANSWER)
            answer["row"] = pairs["later"]
            answer["component"] = component[pairs["earlier"] - start]
            answer["value"] = value[pairs["earlier"] - start]
            answers.add(pairs["later"] // self._range_rows, answer)
        queries.drop(number)
        return component, value

    def _roots(self, number: int) -> Path:
        return self._folder / f"{number:05d}.roots"


def join(root: Ints, below: Ints, start: int, pairs: Pairs) -> Pairs:
    """Join the rows of a range by pairs, in place.

    Args:
        root: int64 [rows], lowest row of each row's component so far, counted from `start`.
        below: int64 [rows], at each root, the lowest row below the range that its component touches, or NOWHERE.
        start: first row of the range.
        pairs: pairs whose later row is in the range.

    Returns:
        Pairs of rows below the range that are connected through it; fewer than the pairs with a row below.
    """
    later, earlier = pairs["later"] - start, pairs["earlier"]
    inside = earlier >= start
    unite(root, later[inside], earlier[inside] - start)
    known = np.flatnonzero(below != NOWHERE)
    roots = root[np.concatenate([known, later[~inside]])]
    touched = np.concatenate([below[known], earlier[~inside]])
    order = np.lexsort((touched, roots))
    roots, touched = roots[order], touched[order]
    begins = is_first(roots)
    least = touched[begins][np.cumsum(begins) - 1]
    below[known] = NOWHERE
    below[roots[begins]] = touched[begins]
    through = (begins | is_first(touched)) & (touched != least)
    return pair_records(touched[through], least[through])


def unite(root: Ints, left: Ints, right: Ints) -> None:
    """Join the trees of pairs of nodes, in place: the higher root becomes a child of the lowest root it meets.

    Args:
        root: int64 [nodes], root of each node, which is the lowest node of its tree, before and after.
        left, right: nodes of the pairs, int64 [pairs].
    """
    while len(left):
        left, right = root[left], root[right]
        apart = left != right
        left, right = left[apart], right[apart]
        np.minimum.at(root, np.maximum(left, right), np.minimum(left, right))
        while not np.array_equal(up := root[root], root):
            root[:] = up

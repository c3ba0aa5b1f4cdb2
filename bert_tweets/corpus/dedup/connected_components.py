"""Connected components of more rows and pairs than memory holds: one sweep down the rows and one up.

Down: the rows of the highest range are joined among each other, and each of their components keeps one row below the
range, the least that it touches. What else it touches below is connected through it, so those rows are paired with that
least one, and the range is done with. Up: the component of the row below is known by then. Each range is in memory
once each way; pairs move down only, and never become more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from .candidate_pairs import PAIR, Pairs, pair_records
from .disk_buckets import Buckets
from .key_file import Ints
from .minhash import Hashes

NOWHERE = np.iinfo(np.int64).max
_ANSWER = np.dtype([("row", "<i8"), ("component", "<i8"), ("value", "<u8")])


class Components:
    """The connected components of rows numbered from 0.

    Args:
        folder: for what is put aside.
        rows: of the corpus.
        range_rows: rows of a range; memory is some 100 bytes for each.
    """

    def __init__(self, folder: Path, rows: int, range_rows: int):
        self._folder = folder
        self._rows = rows
        self._range_rows = range_rows
        self._ranges = -(-rows // range_rows)
        self._pairs = Buckets(folder / "pairs", PAIR, self._ranges)

    def connect(self, pairs: Pairs) -> None:
        """Takes pairs of rows, the later one first; PAIR [pairs]."""
        self._pairs.add(pairs["later"] // self._range_rows, pairs)

    def labels(self, values: Callable[[int, int], Hashes]) -> Iterator[tuple[Ints, Hashes]]:
        """Range by range, the earliest row of each row's component, and that row's value; may be asked for once.

        Args:
            values: of the rows [begin, end); uint64 [rows].

        Returns:
            int64 [rows of the range], uint64 [rows of the range].
        """
        with (
            Buckets(self._folder / "asked", PAIR, self._ranges) as asked,
            Buckets(self._folder / "answers", _ANSWER, self._ranges) as answers,
        ):
            for number in reversed(range(self._ranges)):
                self._sweep_down(number, asked)
            self._pairs.close()
            for number in range(self._ranges):
                yield self._sweep_up(number, values, asked, answers)

    def _sweep_down(self, number: int, asked: Buckets) -> None:
        start = number * self._range_rows
        root = np.arange(min(self._range_rows, self._rows - start))
        below = np.full(len(root), NOWHERE)
        for pairs in self._pairs.read(number):
            self.connect(join(root, below, start, pairs))
        self._pairs.drop(number)
        tied = np.flatnonzero(below != NOWHERE)
        asked.add(below[tied] // self._range_rows, pair_records(tied + start, below[tied]))
        self._roots(number).write_bytes(root.astype(np.int32).data)

    def _sweep_up(
        self, number: int, values: Callable[[int, int], Hashes], asked: Buckets, answers: Buckets
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
        for pairs in asked.read(number):
            answer = np.empty(len(pairs), _ANSWER)
            answer["row"] = pairs["later"]
            answer["component"] = component[pairs["earlier"] - start]
            answer["value"] = value[pairs["earlier"] - start]
            answers.add(pairs["later"] // self._range_rows, answer)
        asked.drop(number)
        return component, value

    def _roots(self, number: int) -> Path:
        return self._folder / f"{number:05d}.roots"


def join(root: Ints, below: Ints, start: int, pairs: Pairs) -> Pairs:
    """Joins the rows of a range by pairs, in place.

    Args:
        root: int64 [rows], the least row of each row's component so far, counted from `start`.
        below: int64 [rows], at each root the least row below the range that its component touches, or NOWHERE.
        start: first row of the range.
        pairs: whose later row is in the range.

    Returns:
        Pairs of rows below the range that are connected through it; fewer than there were pairs to rows below.
    """
    later, earlier = pairs["later"] - start, pairs["earlier"]
    inside = earlier >= start
    unite(root, later[inside], earlier[inside] - start)
    known = np.flatnonzero(below != NOWHERE)
    roots = root[np.concatenate([known, later[~inside]])]
    touched = np.concatenate([below[known], earlier[~inside]])
    order = np.lexsort((touched, roots))
    roots, touched = roots[order], touched[order]
    begins = np.ones(len(roots), dtype=np.bool_)
    np.not_equal(roots[1:], roots[:-1], out=begins[1:])
    least = touched[begins][np.cumsum(begins) - 1]
    below[known] = NOWHERE
    below[roots[begins]] = touched[begins]
    distinct = begins | np.append(True, touched[1:] != touched[:-1])[: len(touched)]
    through = distinct & (touched != least)
    return pair_records(touched[through], least[through])


def unite(root: Ints, left: Ints, right: Ints) -> None:
    """Joins the trees of pairs of nodes, in place: the higher root is hung below the least one that it meets.

    Args:
        root: int64 [nodes], each node's root, which is the least node of its tree; so it is afterwards.
        left, right: int64 [pairs].
    """
    while len(left):
        left, right = root[left], root[right]
        apart = left != right
        left, right = left[apart], right[apart]
        np.minimum.at(root, np.maximum(left, right), np.minimum(left, right))
        while not np.array_equal(up := root[root], root):
            root[:] = up

"""Find clusters of copies and near-duplicates in a whole corpus, with memory that does not grow with it.

Rows that share a hash are candidates (one task per range of hashes), the sketches of both rows verify them, and
connected components are clusters. Single rows are processed one range of rows at a time, with the rest on disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Ints
from bert_tweets.common.executors import Workers

from .candidate_pairs import PAIR, Pairs, find_pairs, pair_files, write_units
from .connected_components import Components
from .disk_buckets import Buckets, read_records
from .key_file import KeyFile
from .minhash import Hashes, is_first, jaccard

# A row's cluster: its earliest row, the hash of that row's text, and whether an earlier row has the same text.
CLUSTER = np.dtype([("cluster", "<i8"), ("key", "<u8"), ("copy", "?")])

ENTRIES_AT_ONCE = 2**20
RANGE_ROWS = 2**20


def find_clusters(
    files: Sequence[Path], rows: Sequence[int], folder: Path, workers: Workers, threshold: float
) -> list[Path]:
    """Find the rows of a corpus that are copies and near-duplicates of each other.

    The result depends only on the texts and their order, not on units, ranges or workers.

    Args:
        files: key file of each unit of work, from `write_keys`; read by the workers.
        rows: number of rows of each unit; rows are numbered from 0 through the units in order.
        folder: existing folder for the result and temporary data.
        workers: workers for the tasks that find candidates.
        threshold: minimum similarity of the sketches of near-duplicates.

    Returns:
        A file for each unit, for `numpy.fromfile(file, CLUSTER)`; CLUSTER [rows].
    """
    first_rows = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
    corpus = _Corpus([KeyFile(file, int(first)) for file, first in zip(files, first_rows, strict=False)], first_rows)
    assert [file.rows for file in corpus.files] == list(rows)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    write_units(work, files, first_rows[:-1])
    tasks = 1 + sum(file.entries for file in corpus.files) * 5 // (4 * ENTRIES_AT_ONCE)
    for _ in workers.run(find_pairs, ((work, number, tasks, ENTRIES_AT_ONCE) for number in range(tasks))):
        pass
    components = Components(work, corpus.rows, RANGE_ROWS)
    with Buckets(work / "copies", np.dtype("<i8"), corpus.ranges) as copies:
        for number in range(tasks):
            for pairs in read_records(pair_files(work, number)[0], PAIR):
                components.connect(pairs)
                copies.add(pairs["later"] // RANGE_ROWS, pairs["later"])
        for pairs in _verified(corpus, work, tasks, threshold):
            components.connect(pairs)
        written = _write(folder, rows, _clusters(corpus, components, copies))
    shutil.rmtree(work)
    return written


class _Corpus:
    """Keys of all units, by row."""

    def __init__(self, files: list[KeyFile], first_rows: Ints):
        self.files = files
        self.rows = int(first_rows[-1])
        self.ranges = -(-self.rows // RANGE_ROWS)
        self._first_rows = first_rows

    def exact(self, begin: int, end: int) -> Hashes:
        """Hashes of the texts of rows [begin, end); uint64 [rows]."""
        return np.concatenate([file.read_exact(*rows) for file, rows in self._slices(begin, end)])

    def sketches(self, number: int) -> Hashes:
        """Sketches of a range's rows; uint64 [rows, words]."""
        begin = number * RANGE_ROWS
        slices = self._slices(begin, min(begin + RANGE_ROWS, self.rows))
        return np.concatenate([file.read_sketches(*rows) for file, rows in slices])

    def _slices(self, begin: int, end: int) -> Iterator[tuple[KeyFile, tuple[int, int]]]:
        unit = int(np.searchsorted(self._first_rows, begin, side="right")) - 1
        while begin < end:
            first, stop = int(self._first_rows[unit]), min(end, int(self._first_rows[unit + 1]))
            if stop > begin:
                yield self.files[unit], (begin - first, stop - first)
            begin, unit = max(begin, stop), unit + 1


def _verified(corpus: _Corpus, work: Path, tasks: int, threshold: float) -> Iterator[Pairs]:
    """The candidates that are near-duplicates, by the sketches of both rows.

    For a pair across two ranges, the sketch of the later row is moved to the range of the earlier one.
    """
    words = corpus.files[0].sketch_words if corpus.files else 0
    sketched = np.dtype([("pair", PAIR), ("sketch", "<u8", (words,))])
    with (
        Buckets(work / "by-later", PAIR, corpus.ranges) as by_later,
        Buckets(work / "by-earlier", sketched, corpus.ranges) as by_earlier,
    ):
        for number in range(tasks):
            path = pair_files(work, number)[1]
            for pairs in read_records(path, PAIR):
                by_later.add(pairs["later"] // RANGE_ROWS, pairs)
            path.unlink()
        for number in reversed(range(corpus.ranges)):
            start, sketches = number * RANGE_ROWS, corpus.sketches(number)
            for pairs in by_later.read(number):
                pairs = _distinct(pairs)
                sketch = sketches[pairs["later"] - start]
                here = pairs["earlier"] >= start
                near = jaccard(sketch[here], sketches[pairs["earlier"][here] - start]) >= threshold
                yield pairs[here][near]
                taken = np.empty(np.count_nonzero(~here), sketched)
                taken["pair"], taken["sketch"] = pairs[~here], sketch[~here]
                by_earlier.add(taken["pair"]["earlier"] // RANGE_ROWS, taken)
            by_later.drop(number)
            # Pairs come only from higher ranges, which are finished.
            for taken in by_earlier.read(number):
                near = jaccard(taken["sketch"], sketches[taken["pair"]["earlier"] - start]) >= threshold
                yield taken["pair"][near]
            by_earlier.drop(number)


def _distinct(pairs: Pairs) -> Pairs:
    """Remove repeated pairs: near-duplicates share several bands."""
    pairs = pairs[np.lexsort((pairs["earlier"], pairs["later"]))]
    return pairs[is_first(pairs["later"]) | is_first(pairs["earlier"])]


def _clusters(corpus: _Corpus, components: Components, copies: Buckets) -> Iterator[npt.NDArray[Any]]:
    """CLUSTER [rows] of each range, in order."""
    for number, (component, key) in enumerate(components.labels(corpus.exact)):
        clusters = np.empty(len(component), CLUSTER)
        clusters["cluster"], clusters["key"], clusters["copy"] = component, key, False
        for later in copies.read(number):
            clusters["copy"][later - number * RANGE_ROWS] = True
        yield clusters


def _write(folder: Path, rows: Sequence[int], ranges: Iterator[npt.NDArray[Any]]) -> list[Path]:
    """Write a file for each unit, from the rows of the ranges."""
    written = []
    left = np.empty(0, CLUSTER)
    for unit, missing in enumerate(rows):
        path = folder / f"{unit:06d}.clusters"
        side = path.with_name(f".{path.name}.unfinished")
        with side.open("wb") as file:
            while missing:
                if not len(left):
                    left = next(ranges)
                file.write(left[:missing].data)
                taken = min(missing, len(left))
                missing, left = missing - taken, left[taken:]
        written.append(side.replace(path))
    return written

"""Files with the keys of one unit of work: entries ordered by hash, and hashes and sketches by row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Bools, Ints

from .minhash import Hashes, Keys, is_first

Tags = npt.NDArray[np.uint16]

# Tag of an entry for a whole text; a band's tag is never 0.
COPY_TAG = 0
_HEADER = ("rows", "entries", "sketch_words")


class Entries(NamedTuple):
    """Entries by which rows are found, ordered by hash and then by row.

    Attributes:
        hashes: uint64 [entries], hash of a whole text or of a band.
        tags: uint16 [entries], COPY_TAG or a hash of the row's next band.
        rows: int64 [entries], row in the corpus.
    """

    hashes: Hashes
    tags: Tags
    rows: Ints


def write_keys(path: Path, keys: Keys) -> None:
    """Write the keys of one unit of work: 22 bytes per row, 14 per band, and the sketch.

    Bands are written only for the first of equal texts: its copies are found by the hash of the whole text.
    """
    rows, bands = keys.bands.shape
    firsts = np.sort(np.unique(keys.exact, return_index=True)[1])
    of_bands = keys.bands[firsts].T
    next_bands = np.roll(of_bands, -1, axis=0)
    hashes = np.concatenate([keys.exact, of_bands.ravel()])
    tags = np.concatenate([np.full(rows, COPY_TAG), 1 + next_bands.ravel() % np.uint64(2**16 - 1)]).astype("<u2")
    of_entry = np.concatenate([np.arange(rows), np.tile(firsts, bands)]).astype("<u4")
    order = stable_order(hashes)
    header = np.array([rows, len(hashes), keys.sketch.shape[1]], dtype="<i8")
    with path.open("wb") as file:
        for column in (header, hashes[order], tags[order], of_entry[order], keys.exact, keys.sketch):
            # Not tofile(): it does not report a full disk.
            file.write(np.ascontiguousarray(column, column.dtype.newbyteorder("<")).data)
        file.flush()
        os.fsync(file.fileno())


def stable_order(hashes: Hashes) -> Ints:
    """Stable ascending order of hashes; int64 [hashes].

    If few hashes are equal, this takes a fraction of the time of a stable sort.
    """
    order = np.argsort(hashes)
    tied = np.flatnonzero(in_groups(hashes[order]))
    order[tied] = order[tied][np.lexsort((order[tied], hashes[order[tied]]))]
    return order


def in_groups(ordered: Hashes) -> Bools:
    """Whether each of ascending hashes is equal to another one; bool [hashes]."""
    first = is_first(ordered)
    followed: Bools = np.append(~first[1:], False)[: len(first)]
    return ~first | followed


class KeyFile:
    """Read slices of a file of `write_keys`, for a unit whose first row in the corpus is `first_row`.

    The file is opened for each read, because there may be very many files.
    """

    def __init__(self, path: str | Path, first_row: int):
        self._path = path
        self._first_row = first_row
        self.rows, self.entries, self.sketch_words = np.fromfile(path, "<i8", len(_HEADER)).tolist()
        self._tags = 8 * (len(_HEADER) + self.entries)
        self._of_entry = self._tags + 2 * self.entries
        self._exact = self._of_entry + 4 * self.entries
        self._sketch = self._exact + 8 * self.rows

    def bounds(self, low: int, last: int) -> tuple[int, int]:
        """Begin and end of the entries whose hashes are in [low, last]."""
        if not self.entries:
            return 0, 0
        hashes = np.memmap(self._path, "<u8", "r", 8 * len(_HEADER), (self.entries,))
        begin = np.searchsorted(hashes, np.uint64(low), "left")
        return int(begin), int(np.searchsorted(hashes, np.uint64(last), "right"))

    def read_entries(self, begin: int, end: int) -> Entries:
        rows = self._read("<u4", self._of_entry + 4 * begin, end - begin).astype(np.int64) + self._first_row
        hashes = self._read("<u8", 8 * (len(_HEADER) + begin), end - begin)
        return Entries(hashes, self._read("<u2", self._tags + 2 * begin, end - begin), rows)

    def read_exact(self, begin: int, end: int) -> Hashes:
        """Read the hashes of whole texts of the unit's rows [begin, end); uint64 [rows]."""
        return self._read("<u8", self._exact + 8 * begin, end - begin)

    def read_sketches(self, begin: int, end: int) -> Hashes:
        """Read the sketches of the unit's rows [begin, end); uint64 [rows, words]."""
        words = self.sketch_words
        return self._read("<u8", self._sketch + 8 * words * begin, (end - begin) * words).reshape(end - begin, words)

    def _read(self, dtype: str, offset: int, count: int) -> npt.NDArray[Any]:
        return np.fromfile(self._path, dtype, count, offset=offset)

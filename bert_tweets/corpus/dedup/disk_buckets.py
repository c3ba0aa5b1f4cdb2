"""Store more records than fit in memory on disk, by bucket, and read them back one bucket at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Ints

Records = npt.NDArray[Any]

# Size of the records of all buckets that wait to be written, and of one read.
BUFFER_BYTES = 2**23
READ_BYTES = 2**22


def read_records(path: Path, dtype: np.dtype[Any]) -> Iterator[Records]:
    """Read the records of a file, in pieces of at most `READ_BYTES`, or one record."""
    with path.open("rb") as file:
        while len(records := np.fromfile(file, dtype, max(1, READ_BYTES // dtype.itemsize))):
            yield records


class Buckets:
    """Growing files of records, one per bucket.

    Memory is `BUFFER_BYTES` for records that wait to be written and `READ_BYTES` for those that are read. One file is
    open at a time. Only the process that made the buckets may use them; `close` removes the files.

    Args:
        folder: folder for the files; is made if needed.
        dtype: type of a record, without Python objects.
        count: number of buckets, numbered from 0.
    """

    def __init__(self, folder: Path, dtype: npt.DTypeLike, count: int):
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._count = count
        self._waiting: list[tuple[Ints, Records]] = []
        self._waiting_bytes = 0
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, which: Ints, records: Records) -> None:
        """Add records of the declared dtype; `which` are their buckets, int64 [records], in [0, count)."""
        assert records.dtype == self._dtype and len(which) == len(records)
        if not len(records):
            return
        assert which.min() >= 0 and which.max() < self._count
        # Copies: the caller may change its arrays later.
        self._waiting.append((np.array(which), np.array(records)))
        self._waiting_bytes += which.nbytes + records.nbytes
        if self._waiting_bytes >= BUFFER_BYTES:
            self._flush()

    def read(self, bucket: int) -> Iterator[Records]:
        """Read the records of a bucket in the order in which they were added, in pieces of at most `READ_BYTES`.

        A bucket can be read again. Records may be added to other buckets in between.
        """
        self._flush()
        path = self._path(bucket)
        if path.exists():
            yield from read_records(path, self._dtype)

    def drop(self, bucket: int) -> None:
        """Delete a bucket that will not be read again."""
        self._flush()
        self._path(bucket).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the files, and the folder if it is empty."""
        self._waiting, self._waiting_bytes = [], 0
        for bucket in range(self._count):
            self._path(bucket).unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _flush(self) -> None:
        if not self._waiting:
            return
        which = np.concatenate([which for which, _ in self._waiting])
        records = np.concatenate([records for _, records in self._waiting])
        self._waiting, self._waiting_bytes = [], 0
        order = np.argsort(which, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(which, minlength=self._count))])
        for bucket in np.flatnonzero(np.diff(bounds)).tolist():
            with self._path(bucket).open("ab") as file:
                file.write(records[order[bounds[bucket] : bounds[bucket + 1]]].data)

    def _path(self, bucket: int) -> Path:
        assert 0 <= bucket < self._count
        return self._folder / f"{bucket:05d}.bin"

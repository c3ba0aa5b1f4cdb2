"""Gather what each rank has computed on rank 0, in order, through files, so that it never has to fit in memory.

A rank's file is a sequence of numpy arrays, two for each slice: its bounds and its values.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.errors import UserError
from bert_tweets.distributed.world import World

Array = npt.NDArray[Any]
Chunks = Iterator[tuple[slice, Array]]


def gather_ordered(mine: Chunks, name: str, world: World, folder: Path) -> Chunks:
    """Merge the chunks of all ranks into those that a single process would have computed. Every rank calls it.

    Args:
        mine: contiguous slices in ascending order with their values, [rows, ...]; rows of another rank are missing:
            NaN, or -1 in an array of integers. Neighbouring ranks may share a slice.
        name: name of the values, for files: other ranks may compute the next ones before rank 0 has read these.
        folder: folder that all ranks see; the files stay there until rank 0 has read them.

    Returns:
        On rank 0 each slice once, with the rows of all ranks; nothing on the others.

    Raises:
        UserError: a rank does not see the folder.
    """
    if world.world_size == 1:
        return mine
    if not folder.is_dir():
        raise UserError(
            f"{folder}: was made by rank 0, but rank {world.rank} does not see it; choose an output on a disk that "
            "all machines share",
            found_by_one_rank=True,
        )
    paths = [folder / f"{name}-{rank}.npy" for rank in range(world.world_size)]
    _save(mine, paths[world.rank])
    world.barrier()
    return _merge(paths) if world.is_main else iter(())


def _save(chunks: Chunks, path: Path) -> None:
    with path.open("wb") as file:
        for rows, values in chunks:
            np.save(file, np.array([rows.start, rows.stop]))
            np.save(file, values)


def _merge(paths: list[Path]) -> Chunks:
    # In the order of the ranks, so that the parts of a shared slice follow each other.
    for (start, stop), parts in groupby(chain.from_iterable(map(_load, paths)), key=itemgetter(0)):
        whole, *others = (values for _, values in parts)
        for values in others:
            missing = np.isnan(whole) if whole.dtype.kind == "f" else whole < 0
            whole = np.where(missing, values, whole)
        yield slice(start, stop), whole
    for path in paths:
        path.unlink()


def _load(path: Path) -> Iterator[tuple[tuple[int, int], Array]]:
    with path.open("rb") as file:
        while file.peek(1):
            start, stop = np.load(file).tolist()
            yield (start, stop), np.load(file)

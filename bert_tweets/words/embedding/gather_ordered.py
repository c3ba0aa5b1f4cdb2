"""In order: the vectors that each rank has made, brought to rank 0 by way of the disk, so that no memory holds them.

A rank's file is a run of numpy arrays, three for each slice: its bounds, the rows in it that are there, their vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bert_tweets.common.errors import UserError
from bert_tweets.distributed.world import World

Floats = npt.NDArray[np.float32]
Vectors = Iterator[tuple[slice, Floats]]


def in_order(mine: Vectors, name: str, world: World, folder: Path) -> Vectors:
    """What all ranks have made, slice by slice, as one process would have made it. Every rank calls it.

    Args:
        mine: contiguous slices in ascending order, with their vectors, float32 [rows, labels, width]; rows of NaN
            where they are another rank's. Of two neighbours one may end in the slice that the other begins with.
        name: of what they are, for files: other ranks may be at the next before rank 0 is done.
        world: the ranks.
        folder: on a disk that all of them see; their files lie there until rank 0 is done.

    Returns:
        On rank 0 each slice once, all its rows filled; nothing on the others.

    Raises:
        UserError: a rank does not see the folder.
    """
    if world.world_size == 1:
        return mine
    if not folder.is_dir():
        raise UserError(
            f"{folder}: was made by rank 0, and rank {world.rank} does not see it; choose an output on a disk that "
            "all machines share",
            found_by_one_rank=True,
        )
    parts = [folder / f"{name}-{rank}.npy" for rank in range(world.world_size)]
    _keep(mine, parts[world.rank])
    world.barrier()
    return _together(parts) if world.is_main else iter(())


def _keep(vectors: Vectors, path: Path) -> None:
    with path.open("wb") as file:
        for rows, values in vectors:
            there = np.flatnonzero(~np.isnan(values).all(axis=(1, 2)))
            for array in (np.array([rows.start, rows.stop]), there, values[there]):
                np.save(file, array)


def _together(paths: list[Path]) -> Vectors:
    """Ranks follow each other, so that parts of one slice do too."""
    every = chain.from_iterable(map(_kept, paths))
    for (start, stop), parts in groupby(every, key=itemgetter(0)):
        whole = None
        for _, there, values in parts:
            if whole is None:
                whole = np.full((stop - start, *values.shape[1:]), np.nan, np.float32)
            whole[there] = values
        assert whole is not None
        yield slice(start, stop), whole
    for path in paths:
        path.unlink()


def _kept(path: Path) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.int64], Floats]]:
    with path.open("rb") as file:
        while file.peek(1):
            (start, stop), there, values = (np.load(file) for _ in range(3))
            yield (int(start), int(stop)), there, values

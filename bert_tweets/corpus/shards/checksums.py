"""Checksums of blocks: beside each shard, so that a damaged byte leads to its rows."""

from __future__ import annotations

import zlib
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 2**16


def block_checksums(data: Any) -> npt.NDArray[np.uint32]:
    """CRC-32 of each block of 64 KiB; uint32 [blocks].

    Args:
        data: anything with a buffer of bytes.
    """
    view = memoryview(data).cast("B")
    blocks = (zlib.crc32(view[first : first + BLOCK_BYTES]) for first in range(0, len(view), BLOCK_BYTES))
    return np.fromiter(blocks, dtype=np.uint32)


def checksum_file(file: str) -> str:
    """Where the block checksums of a shard lie: `train/00000.arrow` has `train/00000.crc32`."""
    return str(PurePosixPath(file).with_suffix(".crc32"))

"""A pickle that acts when it is loaded, to put in the place of files that are read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path


class Poison:
    """Leaves a trace in a folder when it is unpickled."""

    TRACE = "the-poison-has-acted"

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.folder / self.TRACE),)

    @classmethod
    def has_acted(cls, folder: Path) -> bool:
        return (folder / cls.TRACE).exists()


def poisoned_file(path: Path) -> Path:
    """Writes such a pickle over a file; the trace would be left beside it."""
    path.write_bytes(pickle.dumps(Poison(path.parent)))
    return path

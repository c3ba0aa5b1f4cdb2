"""A pickle that leaves a trace when it is loaded, to replace files that are read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path


class Poison:
    """Creates a folder as a trace when it is unpickled."""

    TRACE = "the-poison-has-acted"

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.folder / self.TRACE),)

    @classmethod
    def has_acted(cls, folder: Path) -> bool:
        return (folder / cls.TRACE).exists()


def poisoned_file(path: Path) -> Path:
    """Overwrite a file with such a pickle; its trace would appear next to the file."""
    path.write_bytes(pickle.dumps(Poison(path.parent)))
    return path

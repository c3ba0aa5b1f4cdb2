"""Hides the packages of packages.txt, which a bare GPU machine lacks.

Python imports this file at its start where PYTHONPATH names its folder; `runpy.run_path` does the same later.

OmegaConf is lacking too, but travels in the inputs that `benchmarks.gpu_inputs pack` makes.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

HIDDEN = set(Path(__file__).with_name("packages.txt").read_text().split())
_find = PathFinder.find_spec


class Hiding:
    """A method of a class, because pytest keeps PathFinder's as one of its own classes."""

    @classmethod
    def find_spec(cls, name: str, *more: Any, **others: Any) -> ModuleSpec | None:
        """What the usual search finds, except for hidden packages."""
        return None if name.partition(".")[0] in HIDDEN else _find(name, *more, **others)


PathFinder.find_spec = Hiding.find_spec  # type: ignore[method-assign, assignment]
for name in [name for name in sys.modules if name.partition(".")[0] in HIDDEN]:
    del sys.modules[name]

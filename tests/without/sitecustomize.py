"""Hides the packages of packages.txt, which a bare GPU machine lacks.

Python imports this file at its start where PYTHONPATH names its folder. An installed OmegaConf is hidden then, too: it
travels in the inputs that `benchmarks.gpu_inputs pack` makes. `runpy.run_path` hides all but OmegaConf later.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

HIDDEN = set(Path(__file__).with_name("packages.txt").read_text().split())
TRAVELS = "omegaconf" if __name__ == "sitecustomize" else ""
_find = PathFinder.find_spec


class Hiding:
    """A method of a class, because pytest keeps PathFinder's as one of its own classes."""

    @classmethod
    def find_spec(cls, name: str, *more: Any, **others: Any) -> ModuleSpec | None:
        """What the usual search finds, except for hidden packages."""
        package = name.partition(".")[0]
        found = None if package in HIDDEN else _find(name, *more, **others)
        installed = bool(found and "site-packages" in str(found.origin))
        return None if package == TRAVELS and installed else found


PathFinder.find_spec = Hiding.find_spec  # type: ignore[method-assign, assignment]
for name in [name for name in sys.modules if name.partition(".")[0] in HIDDEN]:
    del sys.modules[name]

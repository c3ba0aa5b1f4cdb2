"""Hide the packages of packages.txt, which a bare GPU machine lacks.

Python imports this file at start-up if PYTHONPATH names its folder. An installed OmegaConf is then hidden too, since
`benchmarks.gpu_inputs pack` packs it with the inputs. `runpy.run_path` of this file later hides all but OmegaConf.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

HIDDEN = set(Path(__file__).with_name("packages.txt").read_text().split())
PACKED = "omegaconf" if __name__ == "sitecustomize" else ""
_find = PathFinder.find_spec


class Hiding:
    """Holds `find_spec`, because pytest expects it to be a method of a class."""

    @classmethod
    def find_spec(cls, name: str, *more: Any, **others: Any) -> ModuleSpec | None:
        """Find a package as usual, unless it is hidden."""
        package = name.partition(".")[0]
        spec = None if package in HIDDEN else _find(name, *more, **others)
        installed = bool(spec and "site-packages" in str(spec.origin))
        return None if package == PACKED and installed else spec


PathFinder.find_spec = Hiding.find_spec  # type: ignore[method-assign, assignment]
for name in [name for name in sys.modules if name.partition(".")[0] in HIDDEN]:
    del sys.modules[name]

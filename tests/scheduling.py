"""Which tests `make test` runs side by side: `pytest -n auto --dist loadscope`, and how that differs from xdist's own.

A module is one unit, as in xdist, because its fixtures are: on two workers, test_equality.py would start its ranks
twice. Modules that start ranks are one unit together, so that no two launches ever wait for each other's cores, and
that unit comes first because it is the longest.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
RANKS = "modules that start ranks"


@cache
def unit_of(module: str) -> str:
    """The unit of a module, which is named as in a test's id: `tests/engine/test_equality.py`."""
    # The process that hands out tests collects none, so it knows no markers.
    starts_ranks = "mark.dist" in (ROOT / module).read_text(encoding="utf-8")
    return RANKS if starts_ranks else module


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid.partition("::")[0])

"""What `pytest -n auto --dist loadscope`, as in `make test`, runs side by side, and in which order.

A module is one unit, as in xdist itself, because its fixtures are: on two workers, test_equality.py would start its
ranks twice. Modules marked `xdist_group("ranks")`, whose launches keep all cores busy, are one unit together, so that
they never run beside each other; xdist reads that mark under `--dist loadgroup` alone, which does not keep modules
whole. That unit begins first and quick modules come last, so that all workers end at about the same time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
RANKS = "ranks"


@cache
def unit_of(module: str) -> str:
    """The unit of a module, named as in the ids of tests: `tests/engine/test_equality.py`."""
    # The process that hands out tests collects none, so it sees text, no marks.
    marked = f'xdist_group("{RANKS}")' in (ROOT / module).read_text(encoding="utf-8")
    return RANKS if marked else module


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Units in the order of their tests, those that `unit_of` names."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        # xdist would begin with the modules of most tests, which here are quick ones.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid.partition("::")[0])


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Tests of the marked modules first, then those of modules that start processes or have slow tests."""
    items = list(items)
    long = {item.path for item in items if item.get_closest_marker("dist") or item.get_closest_marker("slow")}
    return sorted(items, key=lambda item: (item.get_closest_marker("xdist_group") is None, item.path not in long))

"""The order in which `pytest -n auto --dist loadscope`, used by `make test`, runs modules, and which run in parallel.

A module is one unit, as in xdist itself, because fixtures are per module: on two workers, test_equality.py would launch
its ranks twice. Modules marked `xdist_group("ranks")`, whose launches keep all cores busy, form one unit together, so
that they never run in parallel; xdist honours that mark only under `--dist loadgroup`, which splits modules. That unit
starts first and quick modules come last, so that all workers finish at about the same time.
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
    """The unit of a module, which is named as in test ids: `tests/engine/test_equality.py`."""
    # The controller process does not collect tests, so it searches the source text instead of marks.
    marked = f'xdist_group("{RANKS}")' in (ROOT / module).read_text(encoding="utf-8")
    return RANKS if marked else module


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Schedule the units of `unit_of` in the order of their tests."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        # By default xdist starts with the modules that have the most tests, which are quick ones here.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid.partition("::")[0])


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Sort tests: marked modules first, then modules that start processes or have slow tests, then the others."""
    items = list(items)
    slow = {item.path for item in items if item.get_closest_marker("dist") or item.get_closest_marker("slow")}
    return sorted(items, key=lambda item: (item.get_closest_marker("xdist_group") is None, item.path not in slow))

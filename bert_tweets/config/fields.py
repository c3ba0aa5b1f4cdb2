"""How a setting is stated: its default, and what `--help` and validation say of it."""

from __future__ import annotations

import dataclasses
from typing import Any


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    required: bool = False,
) -> Any:
    """A dataclass field: its default, and what `--help` and validation say of it."""
    metadata = {
        "meaning": meaning,
        "unit": unit,
        "choices": choices,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "required": required,
    }
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def settings_group(kind: type) -> Any:
    """A dataclass field that holds a group of settings, named `group.key`."""
    return dataclasses.field(default_factory=kind)


DEVICE = ("auto", "cpu", "cuda")

# Periods of time that tweets are grouped by, and how one is written, for strftime.
PERIODS = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "year": "%Y"}

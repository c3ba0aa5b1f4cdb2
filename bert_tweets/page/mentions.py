"""Mentions: every @name is @user in all that is published."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar

Record = TypeVar("Record")

# An @ after an ASCII letter belongs to an e-mail address; Japanese, for example, has no space before a mention.
_MENTION = re.compile(r"(?:(?<![A-Za-z0-9_+%@＠])|(?<=\bRT))[@＠]+\w+(?:[@＠]+\w+)*")


def without_mentions(record: Record) -> Record:
    """A copy of a text, or of a record with texts, that names no account and can be written as UTF-8."""
    changed: Record = map_texts(record, lambda text: _MENTION.sub("@user", text.encode(errors="replace").decode()))
    return changed


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a record with every text in it changed, also keys; tuples become lists, enums stay."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {map_texts(key, change): map_texts(inner, change) for key, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: map_texts(inner, change) for name, inner in vars(value).items()})
    return [map_texts(inner, change) for inner in value] if isinstance(value, list | tuple) else value

"""Names of models, columns and files, as readers see them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .maps import SENSE
from .mentions import without_mentions


def short_name(model: str) -> str:
    """The name of a model; of a path only the last two parts, which do not show the author's disk."""
    parts = [part for part in re.split(r"[/\\]", model) if part not in ("", ".", "..")]
    return "/".join(parts[-2:]) or model


def column_title(column: str) -> str:
    """The title of a column of a map; a group column has its own name."""
    return "usage cluster" if column == SENSE else column.removeprefix("group.")


def file_names(prefix: str, words: Sequence[str]) -> list[str]:
    """Distinct file names for the charts of words: letters and digits only, without names of accounts."""
    names: list[str] = []
    for number, word in enumerate(words, 1):
        plain = re.sub(r"\W+", "-", without_mentions(word)).strip("-").lower()[:40] or f"word-{number}"
        name = f"{prefix}-{plain}"
        names.append(f"{name}-{number}" if name in names else name)
    return names

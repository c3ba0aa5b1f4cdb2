"""The recipe: cleaning rules, tokenizer and format as one hash that shards, runs and models carry."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

FORMAT_VERSION = 1
FILE = "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """How text becomes tokens. Two models are compared, and a model is trained, on one recipe only.

    Attributes:
        clean: name of the cleaning preset.
        rules: fingerprint of the preset's rules (a preset that changes is another recipe).
        tokenizer: fingerprint of the tokenizer, see `tokenizer.fingerprint`.
        format_version: version of the shard format.
    """

    clean: str
    rules: str
    tokenizer: str
    format_version: int = FORMAT_VERSION

    @property
    def hash(self) -> str:
        """sha256 of the parts, as hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "hash": self.hash}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Recipe:
        return Recipe(record["clean"], record["rules"], record["tokenizer"], record["format_version"])

    def differences(self, other: Recipe) -> list[str]:
        """The names of the parts that differ, with both values."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{part} ({str(mine[part])[:12]} against {str(theirs[part])[:12]})"
            for part in mine
            if mine[part] != theirs[part]
        ]


def read(folder: str | Path) -> Recipe | None:
    """The recipe that a model's folder carries, or None (a stock model has none)."""
    path = Path(folder) / FILE
    if not str(folder) or not path.is_file():
        return None
    try:
        return Recipe.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is not a recipe; export the model again") from None


def require_same(shards: Recipe, model: Recipe | None, tokenizer: str | None, name: str) -> None:
    """Refuses a model that was made for other text than the shards hold.

    Args:
        shards: recipe of the shards.
        model: recipe that the model carries, None for a stock model.
        tokenizer: fingerprint of a stock model's own tokenizer, None where it has none.
        name: the model's name, for the message.

    Raises:
        UserError: says which part differs.
    """
    if model is None:
        model = Recipe(shards.clean, shards.rules, tokenizer or shards.tokenizer, shards.format_version)
    different = shards.differences(model)
    if different:
        raise UserError(
            f"{name}: its recipe is not that of the shards: {', '.join(different)}; "
            "prepare the tweets with this model's tokenizer and recipe, or choose another model"
        )

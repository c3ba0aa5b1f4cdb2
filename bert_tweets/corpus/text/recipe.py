"""The recipe: cleaning rules, tokenizer and format as one hash that shards, runs and models carry."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import UserError
from bert_tweets.common.output_folder import from_json

FORMAT_VERSION = 3
FILE = "recipe.json"


@dataclass(frozen=True)
class Added:
    """A token that the vocabulary was extended by.

    Attributes:
        token: as texts write it.
        pieces: ids of the pieces of its name; a model's row for the token begins as the mean of theirs.
    """

    token: str
    pieces: list[int]


@dataclass(frozen=True)
class Recipe:
    """How text becomes tokens. Two models are compared, and a model is trained, on one recipe only.

    Attributes:
        clean: name of the cleaning preset.
        rules: fingerprint of the preset's rules (a preset that changes is another recipe).
        tokenizer: fingerprint of the tokenizer, see `tokenizer.fingerprint`.
        format_version: version of the shard format.
        base_tokenizer: fingerprint of the tokenizer before tokens were added to it; None when none were.
        added: the added tokens in the order of their ids, which are the last of the vocabulary.
    """

    clean: str
    rules: str
    tokenizer: str
    format_version: int = FORMAT_VERSION
    base_tokenizer: str | None = None
    added: list[Added] = field(default_factory=list)

    @property
    def hash(self) -> str:
        """sha256 of the parts, as hex; without added tokens, of the first four alone."""
        parts = {name: part for name, part in asdict(self).items() if part not in (None, [])}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "hash": self.hash}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Recipe:
        return Recipe(
            record["clean"],
            record["rules"],
            record["tokenizer"],
            record["format_version"],
            record.get("base_tokenizer"),
            [Added(**added) for added in record.get("added", [])],
        )

    def differences(self, other: Recipe) -> list[str]:
        """The names of the parts that differ, with both values."""
        mine, theirs = self._shown(), other._shown()
        return [f"{part} ({mine[part]} against {theirs[part]})" for part in mine if mine[part] != theirs[part]]

    def _shown(self) -> dict[str, str]:
        """Each part in a few characters, different where the part is."""
        parts = {name: str(part)[:12] for name, part in asdict(self).items()}
        digest = hashlib.sha256(json.dumps(asdict(self)["added"]).encode()).hexdigest()[:12]
        return {**parts, "added": f"{len(self.added)} tokens, {digest}" if self.added else "no tokens"}


def read_recipe(folder: str | Path) -> Recipe | None:
    """The recipe that a model's folder carries, or None (a stock model has none)."""
    path = Path(folder) / FILE
    if not str(folder) or not path.is_file():
        return None
    try:
        return Recipe.from_json(from_json(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: is not a recipe; export the model again") from None


def lacks_added_tokens(shards: Recipe, tokenizer: str | None) -> bool:
    """Whether a model is the stock one from before tokens were added; its rows for them are to be made.

    Args:
        shards, tokenizer: as in `require_same`.
    """
    return tokenizer is not None and tokenizer == shards.base_tokenizer


def require_same(shards: Recipe, model: Recipe | None, tokenizer: str | None, name: str) -> None:
    """Refuses a model that was made for other text than the shards hold.

    Args:
        shards: recipe of the shards.
        model: recipe that the model carries, None for a stock model.
        tokenizer: fingerprint of a stock model's own tokenizer, None for a model with a recipe. The tokenizer
            of the shards from before tokens were added to it is as good as theirs.
        name: the model's name, for the message.

    Raises:
        UserError: says which part differs.
    """
    if lacks_added_tokens(shards, tokenizer):
        return
    if model is None:
        model = replace(shards, tokenizer=tokenizer or shards.tokenizer)
    different = shards.differences(model)
    if different:
        raise UserError(
            f"{name}: its recipe is not that of the shards: {', '.join(different)}; "
            "prepare the tweets with this model's tokenizer and recipe, or choose another model"
        )

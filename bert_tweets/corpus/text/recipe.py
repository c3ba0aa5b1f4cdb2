"""The recipe: cleaning rules, tokenizer and format, as one hash that shards, runs and models carry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import parse_record
from bert_tweets.common.output_folder import from_json

FORMAT_VERSION = 3
FILE = "recipe.json"


@dataclass(frozen=True)
class Added:
    """A token that was added to the vocabulary.

    Attributes:
        token: text of the token.
        pieces: ids of the subwords of its name; a model's embedding of the token is initialised with their mean.
    """

    token: str
    pieces: list[int]


@dataclass(frozen=True)
class Recipe:
    """How text becomes tokens. Models are trained and compared on one recipe only.

    Attributes:
        clean: name of the cleaning preset.
        rules: fingerprint of the preset's rules (a preset that changes is another recipe).
        tokenizer: fingerprint of the tokenizer, see `tokenizer.fingerprint`.
        format_version: version of the shard format.
        base_tokenizer: fingerprint of the tokenizer before tokens were added; None if none were.
        added: added tokens in the order of their ids, which are the last of the vocabulary.
    """

    clean: str
    rules: str
    tokenizer: str
    format_version: int = FORMAT_VERSION
    base_tokenizer: str | None = None
    added: list[Added] = field(default_factory=list)

    @property
    def hash(self) -> str:
        """sha256 (hex) of the fields; without added tokens, of the first four only."""
        parts = {name: part for name, part in asdict(self).items() if part not in (None, [])}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> Mapping[str, object]:
        return {**asdict(self), "hash": self.hash}

    @staticmethod
    def from_json(record: Mapping[str, object]) -> Recipe:
        """The recipe that `to_json` returned, possibly with more keys.

        Raises:
            ValueError: a field is missing or of another type.
        """
        names = [each.name for each in fields(Recipe)]
        return parse_record({name: record[name] for name in names if name in record}, Recipe, "the recipe")

    def differences(self, other: Recipe) -> list[str]:
        """Names of the fields that differ, with both values."""
        mine, theirs = self._shown(), other._shown()
        return [f"{part} ({mine[part]} against {theirs[part]})" for part in mine if mine[part] != theirs[part]]

    def _shown(self) -> dict[str, str]:
        """Each field in a few characters that differ if the field does."""
        parts = {name: str(part)[:12] for name, part in asdict(self).items()}
        digest = hashlib.sha256(json.dumps(asdict(self)["added"]).encode()).hexdigest()[:12]
        return {**parts, "added": f"{len(self.added)} tokens, {digest}" if self.added else "no tokens"}


def read_recipe(folder: str | Path) -> Recipe | None:
    """Read the recipe in a model's folder; None if it has none, as a stock model."""
    path = Path(folder) / FILE
    if not str(folder) or not path.is_file():
        return None
    try:
        return Recipe.from_json(from_json(path.read_bytes()))
    except (ValueError, TypeError):
        raise UserError(f"{path}: is not a recipe; export the model again") from None


def lacks_added_tokens(shards: Recipe, tokenizer: str | None) -> bool:
    """Whether a stock model has this tokenizer but lacks the added tokens, whose embeddings must be initialised."""
    return tokenizer is not None and tokenizer == shards.base_tokenizer


def require_same(shards: Recipe, model: Recipe | None, tokenizer: str | None, name: str) -> None:
    """Raise UserError for a model whose recipe is not that of the shards.

    Args:
        shards: recipe of the shards.
        model: recipe of the model; None for a stock model.
        tokenizer: fingerprint of a stock model's own tokenizer, None for a model with a recipe. The tokenizer of the
            shards before tokens were added is accepted too.
        name: name of the model, for the message, which also names the fields that differ.
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

"""Settings, files and columns of one prepare, and how its texts become tokens: determined once and passed down."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_tweets.common import output_folder
from bert_tweets.common.errors import UserError, require_utf8
from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.shards.funnel import REASON_TEXTS, DropReason
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER
from bert_tweets.corpus.sources import discovery
from bert_tweets.corpus.sources.byte_stream import is_url
from bert_tweets.corpus.sources.schema import Columns
from bert_tweets.corpus.text import cleaning, language
from bert_tweets.corpus.text import tokenizer as tokenizers
from bert_tweets.corpus.text.added_tokens import add_emoji, recipe_of
from bert_tweets.corpus.text.recipe import Recipe
from bert_tweets.corpus.text.tokenizer import TokenizerIds

from .worker import DropCounts, clean_rows

# More rows than these in another encoding are not an accident.
_STRAY_ROWS, _STRAY_SHARE = 20, 0.05
# Number of tweets that a vocabulary is learnt from: memory must not grow with the input.
_LEARNT_FROM = 1_000_000


@dataclass(frozen=True)
class Preparation:
    """Settings of one prepare, its input files, and the columns to read."""

    config: PrepareConfig
    paths: list[str]
    columns: Columns

    @staticmethod
    def of(config: PrepareConfig, warn: Callable[[str], None] = lambda _: None) -> Preparation:
        """Find the input files and their columns; `warn` is called with a line for files that are left out.

        Raises:
            UserError: see `discovery.expand` and `discovery.find_columns`; or a file is named twice.
        """
        paths = discovery.expand(config.input, warn)
        _require_distinct(paths)
        roles = ("text", "id", "time", "author", "language")
        named = {role: getattr(config, f"{role}_column") for role in roles} | {"retweet_of": config.retweet_column}
        columns = discovery.find_columns(paths, named, config.group_columns)
        return Preparation(config, paths, replace(columns, language=None) if config.filter.detect_language else columns)

    def require_filter_columns(self) -> None:
        """Raise UserError if a filter needs a column that was not found, or names a language that is not known."""
        limits, columns = self.config.filter, self.columns
        if limits.detect_language:
            language.require_known(limits.languages)
        needed = (
            (bool(limits.languages) and not limits.detect_language, columns.language, "languages", "language"),
            (bool(limits.max_tweets_per_author), columns.author, "max_tweets_per_author", "author"),
            (bool(limits.max_tweets_per_day), columns.time, "max_tweets_per_day", "time"),
        )
        for is_set, column, setting, role in needed:
            if is_set and column is None:
                instead = ", or filter.detect_language=true" if role == "language" else ""
                raise UserError(
                    f"filter.{setting}: no {role} column was found; name it with {role}_column=NAME{instead}"
                )

    def require_tweets(self, read: int, dropped: DropCounts) -> None:
        """Raise UserError if no tweet is left, or so many are in another encoding that the rest is not a sample."""
        lost, paths = dropped[DropReason.NOT_UTF8], self.paths
        if lost > max(_STRAY_ROWS, read * _STRAY_SHARE):
            # The dropped rows are those with accents and emoji.
            raise UserError(
                f"{paths[0]}{' and others' if len(paths) > 1 else ''}: {lost:,} of {read:,} rows are not UTF-8: "
                "the file has another encoding; save it as UTF-8"
            )
        if read > dropped.total():
            return
        where = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        if not read:
            raise UserError(f"{where}: contains a header but no rows")
        reasons = ", ".join(f"{count:,} {REASON_TEXTS[reason]}" for reason, count in dropped.items() if count)
        languages = ""
        if dropped[DropReason.OTHER_LANGUAGE] and not self.config.filter.detect_language:
            commonest = discovery.commonest(paths, self.columns, "language")
            languages = f"; its most frequent languages are {', '.join(commonest)}"
        raise UserError(f"{where}: no tweet is left of {read:,} rows ({reasons}){languages}")


@dataclass(frozen=True)
class TextRecipe:
    """How the texts of a corpus become tokens; `tokenizer_json` is the Rust tokenizer."""

    recipe: Recipe
    ids: TokenizerIds
    tokenizer_json: bytes


def make_text_recipe(preparation: Preparation, folder: Path, work: Path) -> TextRecipe:
    """Load or train the tokenizer, save it with the shards, and choose the cleaning preset for it.

    A resumed run finds both where the first one saved them: the copy of a tokenizer does not know its own name, by
    which the preset is chosen.

    Args:
        preparation: settings and input.
        folder: folder of the shards.
        work: folder for temporary data that a resumed run finds again.
    """
    place, preset_file = folder / TOKENIZER_FOLDER, work / "clean.txt"
    if not place.is_dir():
        side = folder / f".{TOKENIZER_FOLDER}.unfinished"
        shutil.rmtree(side, ignore_errors=True)
        tokenizer, preset = _make_tokenizer(preparation)
        output_folder.write_atomic(preset_file, preset.encode())
        tokenizers.save(tokenizer, side)
        side.replace(place)
    preset = preset_file.read_text(encoding="utf-8")
    tokenizer = tokenizers.load_tokenizer(str(place), local_only=True)
    recipe = recipe_of(preset, cleaning.rules_fingerprint(preset), tokenizer)
    backend = tokenizers.private_backend(tokenizer)
    return TextRecipe(recipe, tokenizers.ids_of(tokenizer), backend.to_str().encode())


def _make_tokenizer(preparation: Preparation) -> tuple[Any, str]:
    """The tokenizer of the settings, trained or extended on the first million tweets if need be, and its preset."""
    config = preparation.config
    is_trained = config.tokenizer == "wordpiece"
    tokenizer = None if is_trained else tokenizers.load_tokenizer(config.tokenizer, config.tokenizer_revision)
    preset = cleaning.resolve(config.clean, tokenizer, config.emoji)
    if is_trained:
        texts = (column.to_pylist() for column in _first_texts(preparation, preset))
        tokenizer = tokenizers.train_wordpiece(texts, config.vocabulary_size)
    if config.emoji == "tokens":
        tokenizer = add_emoji(tokenizer, _first_texts(preparation, preset), config.emoji_vocabulary)
    return tokenizer, preset


def _first_texts(preparation: Preparation, preset: str) -> Iterator[pa.Array]:
    paths, columns, config = preparation.paths, preparation.columns, preparation.config
    read, kept, dropped = 0, 0, DropCounts()
    for rows in discovery.read_tweets(paths, columns):
        texts = clean_rows(rows, columns, config, preset, dropped).column("text")
        read, kept = read + rows.read, kept + len(texts)
        yield texts
        if kept >= _LEARNT_FROM:
            break
    if not kept:
        preparation.require_tweets(read, dropped)


def _require_distinct(paths: list[str]) -> None:
    """Raise UserError for a file that is named twice, or whose name no record can hold."""
    seen: set[str] = set()
    for path in paths:
        require_utf8(path)
        place = path if is_url(path) else os.path.realpath(path)
        if place in seen:
            raise UserError(f"{path}: is named twice in input, and its tweets would count twice; name it once")
        seen.add(place)

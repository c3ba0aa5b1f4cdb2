"""Add the most frequent emoji of a corpus to a tokenizer, each with a name that initialises its embedding.

A tokenizer carries the names of its added tokens in its own settings (`tokenizer_config.json`), wherever it is saved.
Names are Unicode's, which never change; an emoji that is newer than Python's table is called `emoji`.
"""

from __future__ import annotations

import copy
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.errors import UserError

from .emoji import EMOJI
from .recipe import Added, Recipe
from .tokenizer import fingerprint, load_tokenizer, private_backend, save

SETTING = "added_by_bert_tweets"

# Variation selectors request an emoji in black and white, or in colour.
_SELECTORS = "\ufe0e\ufe0f"
_WITHOUT_SELECTORS = dict.fromkeys(map(ord, _SELECTORS))
# The joiner of emoji and the end of a flag's letters have no name either.
_SILENT = f"{_SELECTORS}\u200d\U000e007f"
# Plainer names than Unicode's: keycaps, and skin tones as in its Common Locale Data Repository.
_PLAIN_NAMES = {
    "\u20e3": "keycap",
    "\U0001f3fb": "light skin tone",
    "\U0001f3fc": "medium-light skin tone",
    "\U0001f3fd": "medium skin tone",
    "\U0001f3fe": "medium-dark skin tone",
    "\U0001f3ff": "dark skin tone",
}
_NAMELESS = "emoji"

_ROWS_AT_ONCE = 65_536
# Longer ones are many emoji joined for fun; when there are more distinct ones than this, the rarest are forgotten.
_LONGEST_EMOJI = 16
_MOST_DISTINCT = 2**17
# Put before and after each emoji while they are counted; cleaned texts do not contain this character.
_MARK = "\x00"


def add_emoji(tokenizer: Any, texts: Iterable[pa.Array], size: int) -> Any:
    """Add the most frequent emoji of a corpus to a tokenizer, each as a word and a token of its own.

    Forms of an emoji with and without variation selectors (U+FE0E, U+FE0F) are counted together; of equally frequent
    ones, that with lower code points comes first. Both forms reach the same token if the tokenizer drops selectors, as
    BERT's uncased one does. Otherwise, or if selectors are inside the emoji, the form without them and the most
    frequent form with them become one token each, so that there can be more than `size` tokens. Emoji that are already
    one token of the tokenizer are not added, and not counted. Result and errors are those of `add_tokens`.

    Args:
        tokenizer: fast tokenizer of `transformers`; is not changed.
        texts: columns of cleaned texts, string [rows] each, without nulls.
        size: maximum number of emoji that become tokens.
    """
    tokens = _choose(_count(texts), tokenizer, size)
    return add_tokens(tokenizer, {token: emoji_name(token) for token in tokens}) if tokens else tokenizer


def add_tokens(tokenizer: Any, names: dict[str, str]) -> Any:
    """Add ordinary tokens to a tokenizer: matched in the text as written, and maskable.

    Args:
        tokenizer: fast tokenizer of `transformers`; is not changed. It may already have added tokens.
        names: name of each new token, in words that the tokenizer knows.

    Returns:
        A fast tokenizer of `transformers`, equal to its saved and loaded copy.

    Raises:
        UserError: a token already exists, or the new ids do not follow the last one.
    """
    from tokenizers import AddedToken

    before = tokenizer.init_kwargs.get(SETTING) or {"base_tokenizer": fingerprint(tokenizer), "names": {}}
    backend = private_backend(tokenizer)
    # If a space belongs to the following word, a space before an emoji would become a token of its own.
    takes_space = backend.encode("a ").ids != backend.encode("a").ids
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens([AddedToken(token, normalized=False, special=False, lstrip=takes_space) for token in names])
    if extended.convert_tokens_to_ids(list(names)) != list(range(len(tokenizer), len(tokenizer) + len(names))):
        raise UserError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: ids of new tokens do not follow its last one; "
            "prepare with emoji=separate, or another tokenizer"
        )
    extended.init_kwargs[SETTING] = {**before, "names": {**before["names"], **names}}
    with tempfile.TemporaryDirectory() as folder:
        save(extended, Path(folder))
        loaded = load_tokenizer(folder, local_only=True)
    loaded.name_or_path = tokenizer.name_or_path
    return loaded


def recipe_of(clean: str, rules: str, tokenizer: Any) -> Recipe:
    """The recipe of texts that are cleaned by a preset, with its fingerprint `rules`, and encoded by a tokenizer.

    Raises:
        UserError: the named added tokens are not the last tokens of the vocabulary.
    """
    setting = tokenizer.init_kwargs.get(SETTING)
    if setting is None:
        return Recipe(clean, rules, fingerprint(tokenizer))
    names = setting["names"]
    tokens = sorted(names, key=tokenizer.convert_tokens_to_ids)
    if tokenizer.convert_tokens_to_ids(tokens) != list(range(len(tokenizer) - len(names), len(tokenizer))):
        raise UserError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: the added tokens in its tokenizer_config.json are not "
            "those of its vocabulary; prepare with the tokenizer as it was saved"
        )
    pieces = _pieces(tokenizer, [names[token] for token in tokens])
    added = [Added(token, ids) for token, ids in zip(tokens, pieces, strict=True)]
    return Recipe(clean, rules, fingerprint(tokenizer), base_tokenizer=setting["base_tokenizer"], added=added)


def emoji_name(emoji: str) -> str:
    """An emoji in words: the names of its characters; flags of countries and regions as letters (`flag us`)."""
    words: list[str] = []
    letters = ""
    for character in emoji:
        if "\U0001f1e6" <= character <= "\U0001f1ff":
            letters += chr(ord(character) - 0x1F1E6 + ord("a"))
        elif "\U000e0020" <= character <= "\U000e007e":
            letters += chr(ord(character) - 0xE0000)
        elif character not in _SILENT:
            words.append(_PLAIN_NAMES.get(character) or unicodedata.name(character, "").lower())
    if letters:
        words = [*(words or ["flag"]), letters]
    return " ".join(filter(None, words)) or _NAMELESS


def _pieces(tokenizer: Any, names: list[str]) -> list[list[int]]:
    """Ids of the subwords of each name inside a sentence, without [UNK] unless there is nothing else."""
    backend = private_backend(tokenizer)
    unknown = tokenizer.unk_token_id
    encodings = backend.encode_batch([f" {name}" for name in names], add_special_tokens=False)
    return [[number for number in encoding.ids if number != unknown] or [unknown] for encoding in encodings]


def _count(texts: Iterable[pa.Array]) -> Counter[str]:
    """Count each form of each emoji: exactly up to 2^17 distinct forms; above that, the rarest are forgotten."""
    counts: Counter[str] = Counter()
    for column in texts:
        for first in range(0, len(column), _ROWS_AT_ONCE):
            for entry in pc.value_counts(_emoji(column.slice(first, _ROWS_AT_ONCE))).to_pylist():
                counts[entry["values"]] += entry["counts"]
            if len(counts) > _MOST_DISTINCT:
                counts = Counter(dict(_ranked(counts)[: _MOST_DISTINCT // 2]))
    return counts


def _emoji(texts: pa.Array) -> pa.Array:
    """All emoji in the texts, one by one; string [emoji]."""
    holding = texts.filter(pc.match_substring_regex(texts, EMOJI))
    marked = pc.replace_substring_regex(holding, EMOJI, rf"{_MARK}\0{_MARK}")
    pieces = pc.list_flatten(pc.split_pattern(marked, _MARK))
    pieces = pieces.filter(pc.less_equal(pc.utf8_length(pieces), _LONGEST_EMOJI))
    return pieces.filter(pc.match_substring_regex(pieces, rf"^(?:{EMOJI})$"))


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """Sort by frequency, highest first, then by code points."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _choose(counts: Counter[str], tokenizer: Any, size: int) -> list[str]:
    """New tokens for the `size` most frequent emoji that need one, most frequent first."""
    backend, vocabulary, unknown = private_backend(tokenizer), tokenizer.get_vocab(), tokenizer.unk_token_id
    drops_selectors = not backend.encode(_SELECTORS, add_special_tokens=False).ids
    written: dict[str, Counter[str]] = defaultdict(Counter)
    for emoji, count in counts.items():
        way = emoji.rstrip(_SELECTORS) if drops_selectors else emoji
        written[emoji.translate(_WITHOUT_SELECTORS)][way] += count

    def is_known(token: str) -> bool:
        ids = backend.encode(f" {token}", add_special_tokens=False).ids
        return token in vocabulary or (len(ids) == 1 and ids[0] != unknown)

    def new_tokens(bare: str) -> list[str]:
        with_selectors = [way for way, _ in _ranked(written[bare]) if way != bare]
        ways = [bare, *with_selectors[:1]]
        # Once the bare form is added, it is matched inside the other one: then both must be new.
        return [way for way in ways if way not in vocabulary and not (is_known(way) and is_known(bare))]

    totals = Counter({bare: ways.total() for bare, ways in written.items()})
    tokens = (new_tokens(bare) for bare, _ in _ranked(totals))
    return list(chain.from_iterable(islice(filter(None, tokens), size)))

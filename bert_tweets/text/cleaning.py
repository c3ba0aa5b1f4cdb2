"""Cleaning as data: a preset is a list of rules, applied in order to whole columns.

A rule is a name and its arguments, so that a preset can be written out as JSON and hashed: its fingerprint is a part
of the recipe that shards and models carry. Patterns are RE2's, with explicit ranges of characters where one would
like to name a Unicode property: a library's newer Unicode tables must not change what an old recipe means.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable
from html.entities import html5
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

LINK = "http"
USER = "@user"

# Pictographs, and the blocks of arrows, shapes and signs that fonts draw like them and vocabularies lack like them.
_PICTOGRAPH = (
    r"[\x{A9}\x{AE}\x{203C}\x{2049}\x{2122}\x{2139}\x{2190}-\x{21FF}\x{2300}-\x{2328}\x{232B}-\x{23FF}\x{24C2}\x{2500}-\x{27BF}"
    r"\x{2934}\x{2935}\x{2B00}-\x{2BFF}\x{3030}\x{303D}\x{3297}\x{3299}"
    r"\x{1F000}-\x{1F1E5}\x{1F200}-\x{1F3FA}\x{1F400}-\x{1FAFF}\x{1FC00}-\x{1FFFD}]"
)
_SKIN = r"[\x{1F3FB}-\x{1F3FF}]"
_LETTER = r"[\x{1F1E6}-\x{1F1FF}]"
_TAG = r"[\x{E0020}-\x{E007F}]"
_ONE = rf"{_PICTOGRAPH}[\x{{FE0E}}\x{{FE0F}}]?{_SKIN}?"
# Unicode Technical Standard 51, section 1.4: flags, keycaps, and pictographs with skin tone, tags, and joined ones.
EMOJI = rf"(?:{_LETTER}{{1,2}}|[0-9#*]\x{{FE0F}}?\x{{20E3}}|{_ONE}{_TAG}*(?:\x{{200D}}{_ONE})*|{_SKIN})"

# Of a link no more than a link can hold, so that text or an emoji glued to it stays; nor the full stop behind it.
_IN_LINK = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]"
_ENDS_LINK = r"[A-Za-z0-9/_~=%&#@+\-]"
_LINK = rf"(?i)(?:https?://|\bwww\.|\bpic\.twitter\.com/)(?:{_IN_LINK}*{_ENDS_LINK})?…?"
# Behind a letter or a digit it is an email address. Combining marks go too, or they would join what comes instead.
_MENTION = r"(^|[^A-Za-z0-9_+%@＠]|\bRT)[@＠]+(?:[A-Za-z0-9_]|\p{M})+(?:[@＠]+(?:[A-Za-z0-9_]|\p{M})+)*"

_SPACE = r"[\t\n\v\f\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]+"
_CONTROL = r"[\x{00}-\x{08}\x{0E}-\x{1F}\x{7F}-\x{84}\x{86}-\x{9F}]+"
_INVISIBLE = (
    r"[\x{AD}\x{61C}\x{180E}\x{200B}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}\x{2066}-\x{206F}\x{FEFF}]+"
)
# Zero-width characters that mean something inside of an emoji and nothing to a tokenizer elsewhere.
_STRAY = rf"({EMOJI})|[\x{{200C}}\x{{200D}}\x{{FE00}}-\x{{FE0F}}\x{{E0020}}-\x{{E007F}}]+"

PRESETS: dict[str, list[list[str]]] = {
    # Links and mentions as in TimeLMs (Loureiro et al. 2022).
    "tweets": [
        ["entities"],
        ["replace", _CONTROL, ""],
        ["replace", _INVISIBLE, ""],
        ["replace", _STRAY, r"\1"],
        ["normalize", "NFC"],
        ["replace", _LINK, f" {LINK} "],
        ["replace", _MENTION, rf"\1{USER}"],
        ["replace", EMOJI, r" \0 "],
        ["replace", _SPACE, " "],
        ["strip"],
    ],
    "raw": [["replace", _CONTROL, ""], ["strip"]],
}

_MAY_HOLD_ENTITY = r"&#?[A-Za-z0-9]+;"
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def resolve(clean: str, tokenizer: Any) -> str:
    """The preset that a setting stands for; `auto` picks by tokenizer.

    Args:
        clean: `auto` or the name of a preset.
        tokenizer: that will read the text.
    """
    return "tweets" if clean == "auto" else clean


def rules_fingerprint(preset: str) -> str:
    """sha256 of the canonical JSON of a preset's rules, as hex."""
    return hashlib.sha256(json.dumps(PRESETS[preset], sort_keys=True).encode()).hexdigest()


def clean(texts: pa.Array, preset: str) -> pa.Array:
    """Cleans a column of texts. Cleaning what is clean changes nothing.

    Args:
        texts: string [rows], without nulls.
        preset: a key of `PRESETS`.

    Returns:
        string [rows]; what nothing is left of is empty.
    """
    cleaned = _apply(texts, preset)
    if ["entities"] not in PRESETS[preset]:
        return cleaned
    # `&am&#8203;p;` becomes an entity only when the rules are through with it: such rows go round again, and
    # each round leaves fewer ampersands.
    while True:
        holds = pc.match_substring_regex(cleaned, _MAY_HOLD_ENTITY)
        rows = cleaned.filter(holds)
        once_more = _apply(rows, preset)
        if once_more.equals(rows):
            return cleaned
        cleaned = pc.replace_with_mask(cleaned, holds, once_more)


def duplicate_key(cleaned: pa.Array) -> pa.Array:
    """What two copies of a tweet have in common: lower case, no links, mentions, punctuation or doubled space.

    Args:
        cleaned: string [rows], by any preset.

    Returns:
        string [rows]; the cleaned text itself where the above leaves nothing.
    """
    key = pc.utf8_lower(cleaned)
    key = pc.replace_substring_regex(key, rf"(?i)https?://\S*|\b{LINK}\b|[@＠][a-z0-9_]+", " ")
    key = pc.replace_substring_regex(key, r"[\p{P}`^|~]+", " ")
    key = pc.replace_substring_regex(key, _SPACE, " ")
    key = pc.utf8_trim(key, " ")
    return pc.if_else(pc.equal(key, ""), cleaned, key)


def cluster_key(cleaned: pa.Array) -> pa.Array:
    """What near-duplicates have in common: the first six words of their `duplicate_key`; string [rows]."""
    return pc.replace_substring_regex(duplicate_key(cleaned), r"(?s)^((?:\S+\s+){5}\S+)\s.*$", r"\1")


def _apply(texts: pa.Array, preset: str) -> pa.Array:
    for name, *arguments in PRESETS[preset]:
        texts = _RULES[name](texts, *arguments)
    return texts


def _replace(texts: pa.Array, pattern: str, replacement: str) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern, replacement)


def _normalize(texts: pa.Array, form: str) -> pa.Array:
    return pc.utf8_normalize(texts, form)


def _strip(texts: pa.Array) -> pa.Array:
    return pc.utf8_trim_whitespace(texts)


def _unescape_entities(texts: pa.Array) -> pa.Array:
    """HTML entities as what they stand for, escaped ones within escaped ones too (`&amp;lt;`)."""
    holds = pc.match_substring_regex(texts, _MAY_HOLD_ENTITY)
    if not pc.any(holds).as_py():
        return texts
    unescaped = [_unescape(text) for text in texts.filter(holds).to_pylist()]
    return pc.replace_with_mask(texts, holds, pa.array(unescaped, texts.type))


def _unescape(text: str) -> str:
    while (once := _ENTITY.sub(_character, text)) != text:
        text = once
    return text


def _character(entity: re.Match[str]) -> str:
    # Only whole names: html.unescape would take `&notice;` for `¬ice;`.
    name = entity.group()
    return html.unescape(name) if name[1] == "#" else html5.get(name[1:], name)


_RULES: dict[str, Callable[..., pa.Array]] = {
    "entities": _unescape_entities,
    "replace": _replace,
    "normalize": _normalize,
    "strip": _strip,
}

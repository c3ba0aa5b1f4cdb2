"""Clean texts: a preset is a list of rules, applied in order to whole columns.

A rule is a name and its arguments, so that a preset can be written as JSON and hashed: its fingerprint is part of the
recipe that shards and models carry. Patterns are RE2's, with explicit ranges of characters instead of Unicode
properties: a library's newer Unicode tables must not change what an old recipe means. If a rule depends on a library,
a version or table of that library is hashed with its arguments, see `rules_of`.

docs/cleaning.md names the source of each preset, and the differences from it.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable
from html.entities import html5
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.errors import UserError, did_you_mean

from .emoji import EMOJI, emoji_names, names_fingerprint, optional_library

Rules = list[list[str]]

LINK = "http"
USER = "@user"

# Only characters that a link can contain, so that adjacent text or emoji stays, and so does a full stop after it.
_IN_LINK = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]"
_ENDS_LINK = r"[A-Za-z0-9/_~=%&#@+\-]"
_LINK = rf"(?i)(?:https?://|\bwww\.|\bpic\.twitter\.com/)(?:{_IN_LINK}*{_ENDS_LINK})?…?"
# After a letter or digit it is an email address. Combining marks count as part of the name; else they would attach to
# the placeholder.
_MENTION = r"(^|[^A-Za-z0-9_+%@＠]|\bRT)[@＠]+(?:[A-Za-z0-9_]|\p{M})+(?:[@＠]+(?:[A-Za-z0-9_]|\p{M})+)*"

_SPACE = r"[\t\n\v\f\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]+"
_CONTROL = r"[\x{00}-\x{08}\x{0E}-\x{1F}\x{7F}-\x{84}\x{86}-\x{9F}]+"
_INVISIBLE = (
    r"[\x{AD}\x{61C}\x{180E}\x{200B}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}\x{2066}-\x{206F}\x{FEFF}]+"
)
# Zero-width characters that are meaningful inside an emoji, and meaningless to a tokenizer elsewhere.
_ZERO_WIDTH = r"[\x{200C}\x{200D}\x{FE00}-\x{FE0F}\x{E0020}-\x{E007F}]+"
_STRAY = rf"({EMOJI})|{_ZERO_WIDTH}"

# Characters at which Python's str.split() splits, as the reference implementations do.
_SPLIT = _SPACE.replace(r"\r ", r"\r\x{1C}-\x{1F} ")

_SEPARATE = ["replace", EMOJI, r" \0 "]
# Add a missing space after and before each emoji, and leave all other spaces unchanged.
_SEPARATE_ONLY = [["replace", rf"({EMOJI}) ?", r"\1 "], ["replace", rf" ?({EMOJI})", r" \1"]]
_NAMES = ["names"]

_TWEETS: Rules = [
    ["entities"],
    ["replace", _CONTROL, ""],
    ["replace", _INVISIBLE, ""],
    ["replace", _STRAY, r"\1"],
    ["normalize", "NFC"],
    ["replace", _LINK, f" {LINK} "],
    ["replace", _MENTION, rf"\1{USER}"],
    _SEPARATE,
]
_TWEETS_END: Rules = [["replace", _SPACE, " "], ["strip"]]
_TIMELMS: Rules = [
    ["replace", _SPLIT, " "],
    ["strip"],
    # Two spaces, so that a match of one mention leaves a space for the next.
    ["replace", " @", "  @"],
    ["replace", "(^| )@[^ @]+( |$)", rf"\1{USER}\2"],
    ["replace", "  ", " "],
    ["replace", "(^| )http[^ ]*", rf"\1{LINK}"],
]
_BERTWEET: Rules = [
    ["replace", "’", "'"],
    ["replace", "…", "..."],
    ["words"],
    ["replace", "(^| )@[^ ]*", r"\1@USER"],
    ["replace", "(?i)(^| )(?:http|www)[^ ]*", r"\1HTTPURL"],
    ["replace", "cannot ", "can not "],
    ["replace", "n ?'t ", " n't "],
    ["replace", "(ca|ai) n't", r"\1n't"],
    ["replace", "'(m|re|s|ll|d|ve) ", r" '\1 "],
    ["replace", r" ([ap]) \. m \.", r" \1.m."],
    ["replace", r" p \. m ", " p.m "],
    ["replace", r" a \. m ", " a.m "],
    # The tokenizer leaves an emoji's variation selector or keycap with the adjacent word.
    ["replace", r" \x{FE0F}", "\ufe0f"],
    _SEPARATE,
]
_BERTWEET_END: Rules = [["replace", _SPLIT, " "], ["strip"]]
_RAW: Rules = [["replace", _CONTROL, ""]]

# Presets; a suffix after + names how emoji are handled, unless it is the preset's default.
PRESETS: dict[str, Rules] = {
    # Ours; links and mentions become the placeholders of TimeLMs.
    "tweets": [*_TWEETS, *_TWEETS_END],
    "tweets+names": [*_TWEETS, _NAMES, *_TWEETS_END],
    # Loureiro et al. 2022, as on their model cards.
    "timelms": _TIMELMS,
    "timelms+separate": [_SEPARATE, *_TIMELMS],
    "timelms+names": [_SEPARATE, _NAMES, *_TIMELMS],
    # Nguyen et al. 2020, TweetNormalizer.
    "bertweet": [*_BERTWEET, _NAMES, *_BERTWEET_END],
    "bertweet+separate": [*_BERTWEET, *_BERTWEET_END],
    # Unchanged, except for characters that no tokenizer reads.
    "raw": [*_RAW, ["strip"]],
    "raw+separate": [*_RAW, *_SEPARATE_ONLY, ["strip"]],
    "raw+names": [*_RAW, *_SEPARATE_ONLY, _NAMES, ["strip"]],
}
_DEFAULT_EMOJI = {"tweets": "separate", "bertweet": "names"}

# Shortcuts to the same result: each skips work that could change nothing.
# Most tweets are plain: ASCII without an ampersand or a control character. In these, these patterns never match.
_NOT_PLAIN = r"[^\t-\r -%'-~]"
_IDLE_IN_PLAIN = {_CONTROL, _INVISIBLE, _STRAY, EMOJI, _SEPARATE_ONLY[0][1], _SEPARATE_ONLY[1][1]}
_OTHER_THAN_BLANK = {spaces: spaces.replace(" ", "") for spaces in (_SPACE, _SPLIT)}
# If the first pattern is not found, the second one has the same effect; None: there is no effect. Searching takes a
# fraction of the time of replacing nothing.
_SHORTCUTS: dict[str, tuple[str, str | None]] = {
    **{rare: (rare, None) for rare in (_CONTROL, _INVISIBLE, *_OTHER_THAN_BLANK.values())},
    _STRAY: (_ZERO_WIDTH, None),
    _MENTION: (r"[＠\p{M}]", r"(^|[^A-Za-z0-9_+%@]|\bRT)@+[A-Za-z0-9_]+(?:@+[A-Za-z0-9_]+)*"),
}
# Everything but Latin letters, punctuation, symbols and emoji, which never compose with the preceding character.
_MAY_COMPOSE = (
    r"[^\x{00}-\x{2FF}\x{2010}-\x{2027}\x{2030}-\x{205E}\x{20A0}-\x{20BF}\x{2190}-\x{2328}\x{232B}-\x{2ADB}"
    r"\x{FE0E}\x{FE0F}\x{1F000}-\x{1FAFF}]"
)

_MAY_HOLD_ENTITY = r"&#?[A-Za-z0-9]+;"
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def resolve(clean: str, tokenizer: Any, emoji: str = "auto") -> str:
    """Resolve `clean` and `emoji` to the name of a preset, which is stored in the recipe.

    Args:
        clean: name of a preset, or `auto`: `bertweet` for a tokenizer of BERTweet, `timelms` for one of the Cardiff
            models, recognised by their hub name only (their vocabulary is RoBERTa's), else `tweets`.
        tokenizer: tokenizer that will encode the text; None: not known yet.
        emoji: `separate`, `names`, `tokens` (the same preset as `separate`) or `auto`, the preset's default.

    Raises:
        UserError: there is no such preset.
    """
    preset = _preset_for(tokenizer) if clean == "auto" else clean
    if emoji != "auto":
        preset = preset.partition("+")[0]
        handling = "separate" if emoji == "tokens" else emoji
        if handling != _DEFAULT_EMOJI.get(preset):
            preset = f"{preset}+{handling}"
    _known(preset)
    return preset


def rules_of(preset: str) -> Rules:
    """Rules of a preset, each a name and its arguments, followed by the version of a library that it depends on.

    Raises:
        UserError: there is no such preset, or a library that it needs is not installed.
    """
    return [[*rule, _LIBRARY_VERSIONS[rule[0]]()] if rule[0] in _LIBRARY_VERSIONS else rule for rule in _known(preset)]


def rules_fingerprint(preset: str) -> str:
    """sha256 (hex) of the canonical JSON of `rules_of(preset)`."""
    return hashlib.sha256(json.dumps(rules_of(preset), sort_keys=True).encode()).hexdigest()


def clean(texts: pa.Array, preset: str) -> pa.Array:
    """Clean a column of texts. Cleaning a second time changes nothing (except with `bertweet`, as in its source).

    Args:
        texts: string [rows], without nulls.
        preset: key of `PRESETS`.

    Returns:
        string [rows]; empty where nothing is left.

    Raises:
        UserError: see `rules_of`.
    """
    rules = _known(preset)
    more = pc.match_substring_regex(texts, _NOT_PLAIN)
    cleaned = _where(pc.invert(more), texts, lambda rows: _apply(rows, _for_plain(rules)))
    return _where(more, cleaned, lambda rows: _clean_any(rows, rules))


def _clean_any(texts: pa.Array, rules: Rules) -> pa.Array:
    cleaned = _apply(texts, rules)
    if ["entities"] not in rules:
        return cleaned
    # `&am&#8203;p;` becomes an entity only after the rules are applied: such rows are cleaned again, and each round
    # leaves fewer ampersands.
    while True:
        holds = pc.match_substring_regex(cleaned, _MAY_HOLD_ENTITY)
        rows = cleaned.filter(holds)
        once_more = _apply(rows, rules)
        if once_more.equals(rows):
            return cleaned
        cleaned = pc.replace_with_mask(cleaned, holds, once_more)


# As in the output of any preset; TimeLMs includes the colon in the name.
_RETWEET = r"(?i)^(?:rt\s*[@＠]+[a-z0-9_]+\s*:?\s*)+"
_LINK_OR_MENTION = rf"(?i)https?://\S*|\b{LINK}(?:url)?\b|[@＠]+[a-z0-9_]+"
# They do not separate words: `don't`, `don’t` and `dont` are the same.
_APOSTROPHE = r"['’‘ʼ＇]"
_PUNCTUATION = r"!\"#%&()*,-./:;?@[\]_{}`^|~"
_OTHER_PUNCTUATION = rf"\p{{P}}|{_OTHER_THAN_BLANK[_SPACE]}"
_AS_SPACE = bytes(32 if chr(code) in _PUNCTUATION + "\t\n\v\f\r" else code for code in range(256))


def duplicate_key(cleaned: pa.Array) -> pa.Array:
    """The key that copies of a tweet share: lower case, no links, mentions, punctuation or repeated spaces.

    Apostrophes are removed, other punctuation separates words. Retweet marks at the beginning (`RT @user:`) are removed
    too: a retweet is a copy.

    Args:
        cleaned: string [rows], cleaned by any preset.

    Returns:
        string [rows]; the cleaned text itself where nothing else is left.
    """
    marked = pc.starts_with(cleaned, "rt", ignore_case=True)
    original = _where(marked, cleaned, lambda rows: _replace(rows, _RETWEET, ""))
    key = pc.replace_substring(_replace(pc.utf8_lower(original), _LINK_OR_MENTION, " "), "'", "")
    key = _translated(key, _AS_SPACE)
    beyond_ascii = pc.invert(pc.string_is_ascii(key))
    key = _where(beyond_ascii, key, lambda rows: _replace(_replace(rows, _APOSTROPHE, ""), _OTHER_PUNCTUATION, " "))
    key = pc.utf8_trim(_squeezed(key), " ")
    for whole in (original, cleaned):
        key = pc.if_else(pc.equal(key, ""), whole, key)
    return key


def _known(preset: str) -> Rules:
    if preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS)
        raise UserError(f"clean: there is no preset {preset!r}{hint}; choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def _preset_for(tokenizer: Any) -> str:
    if tokenizer is None:
        return "tweets"
    # A folder in the hub's cache has a name such as models--vinai--bertweet-large.
    name = str(tokenizer.name_or_path).replace("--", "/")
    if "vinai/bertweet" in name or {"@USER", "HTTPURL"} <= tokenizer.get_vocab().keys():
        return "bertweet"
    return "timelms" if "cardiffnlp/twitter-" in name else "tweets"


def _apply(texts: pa.Array, rules: Rules) -> pa.Array:
    for name, *arguments in rules:
        texts = _RULES[name](texts, *arguments)
    return texts


def _for_plain(rules: Rules) -> Rules:
    """The rules that can change plain texts, with simpler patterns where possible."""
    idle = ("entities", "normalize", "names")
    left = [rule for rule in rules if rule[0] not in idle and not _IDLE_IN_PLAIN.intersection(rule)]
    return [[_SHORTCUTS.get(part, ("", None))[1] or part for part in rule] for rule in left]


def _where(rows: pa.Array, texts: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Texts, string [rows], with `change` applied to some rows, bool [rows]."""
    selected = texts.filter(rows)
    if not len(selected):
        return texts
    return change(selected) if len(selected) == len(texts) else pc.replace_with_mask(texts, rows, change(selected))


def _replace(texts: pa.Array, pattern: str, replacement: str) -> pa.Array:
    if pattern in _OTHER_THAN_BLANK and replacement == " ":
        return _squeezed(_replace(texts, _OTHER_THAN_BLANK[pattern], " "))
    if pattern not in _SHORTCUTS:
        return pc.replace_substring_regex(texts, pattern, replacement)
    special, simpler = _SHORTCUTS[pattern]
    rows = pc.match_substring_regex(texts, special)
    replaced = _where(rows, texts, lambda some: pc.replace_substring_regex(some, pattern, replacement))
    if simpler is None:
        return replaced
    return _where(pc.invert(rows), replaced, lambda rest: pc.replace_substring_regex(rest, simpler, replacement))


def _translated(texts: pa.Array, table: bytes) -> pa.Array:
    """Replace each byte by the table's; the table must not change bytes of non-ASCII characters."""
    offsets, data = _buffers(texts)
    return _from_buffers(offsets, data.tobytes().translate(table))


def _squeezed(texts: pa.Array) -> pa.Array:
    """Replace each run of spaces by one."""
    offsets, data = _buffers(texts)
    blank = data == ord(" ")
    keep = np.ones(len(data), dtype=np.bool_)
    keep[1:] = ~(blank[1:] & blank[:-1])
    # The first byte of a row is never a repetition; empty rows at the end begin after the last byte.
    starts = offsets[:-1]
    keep[starts[starts < len(data)]] = True
    return _from_buffers(offsets - np.searchsorted(np.flatnonzero(~keep), offsets), data[keep])


def _buffers(texts: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Offsets, int32 [rows + 1], and bytes, uint8 [bytes], of strings without nulls."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if not len(ends) or data is None:
        return np.zeros(len(texts) + 1, dtype=np.int32), np.zeros(0, dtype=np.uint8)
    return ends - ends[0], np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]]


def _from_buffers(offsets: npt.NDArray[Any], data: Any) -> pa.Array:
    ends = pa.py_buffer(offsets.astype(np.int32))
    return pa.StringArray.from_buffers(len(offsets) - 1, ends, pa.py_buffer(data))


def _emoji_to_names(texts: pa.Array) -> pa.Array:
    """Replace emoji between spaces by their names; those without a name stay."""
    pieces = pc.split_pattern(texts, " ")
    flat = pieces.flatten()
    table = emoji_names()
    # Not all keyboards write the variation selector.
    found = pc.index_in(pc.replace_substring(flat, "\ufe0f", ""), value_set=pa.array(table, flat.type))
    named = pc.coalesce(pc.take(pa.array(table.values(), flat.type), found), flat)
    return pc.binary_join(pa.ListArray.from_arrays(pieces.offsets, named), " ")


def _words(texts: pa.Array) -> pa.Array:
    """The words of NLTK's TweetTokenizer, separated by spaces; it also decodes HTML entities."""
    tokenize = optional_library("nltk.tokenize.casual").TweetTokenizer().tokenize
    return pa.array([" ".join(tokenize(text)) for text in texts.to_pylist()], texts.type)


def _normalize(texts: pa.Array, form: str) -> pa.Array:
    rows = pc.match_substring_regex(texts, _MAY_COMPOSE)
    return _where(rows, texts, lambda some: pc.utf8_normalize(some, form))


def _unescape_entities(texts: pa.Array) -> pa.Array:
    """Decode HTML entities, including nested ones (`&amp;lt;`)."""
    holds = pc.match_substring_regex(texts, _MAY_HOLD_ENTITY)
    return _where(holds, texts, lambda rows: pa.array(map(_unescape, rows.to_pylist()), rows.type))


def _unescape(text: str) -> str:
    while (once := _ENTITY.sub(_character, text)) != text:
        text = once
    return text


def _character(entity: re.Match[str]) -> str:
    # Only complete names: html.unescape would turn `&notice;` into `¬ice;`.
    name = entity.group()
    return html.unescape(name) if name[1] == "#" else html5.get(name[1:], name)


_RULES: dict[str, Callable[..., pa.Array]] = {
    "entities": _unescape_entities,
    "replace": _replace,
    "normalize": _normalize,
    "strip": pc.utf8_trim_whitespace,
    "names": lambda texts: _where(pc.invert(pc.string_is_ascii(texts)), texts, _emoji_to_names),
    "words": _words,
}
# Versions of the libraries that two of the rules depend on.
_LIBRARY_VERSIONS: dict[str, Callable[[], str]] = {
    "names": names_fingerprint,
    "words": lambda: f"nltk {optional_library('nltk').__version__}",
}

"""Emoji: their pattern, and their names in the `emoji` library, such as `:face_with_medical_mask:`."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import import_module
from types import ModuleType

from bert_tweets.common.errors import UserError

# Pictographs, and the blocks of arrows, shapes and signs that are drawn like emoji and missing from vocabularies too.
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


def optional_library(module: str) -> ModuleType:
    """Import a module of the extra `bertweet`, or raise UserError if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        library = module.partition(".")[0]
        raise UserError(
            f"clean and emoji: this preset needs the library {library}, which is not installed; "
            "pip install 'bert_tweets[bertweet]'"
        ) from None


@cache
def emoji_names() -> dict[str, str]:
    """English name, with colons, of each emoji without variation selectors; see `optional_library` for errors.

    Joined sequences, flags and keycaps are included.
    """
    library = optional_library("emoji")
    if hasattr(library, "EMOJI_DATA"):
        table = {emoji: about["en"] for emoji, about in library.EMOJI_DATA.items()}
    else:  # before version 1.7
        table = dict(library.UNICODE_EMOJI)
    plain = {emoji: name for emoji, name in table.items() if "\ufe0f" not in emoji}
    # Version 0.6.0 has two names for some, such as red_heart and red_heart_selector.
    return {emoji.replace("\ufe0f", ""): name for emoji, name in table.items()} | plain


@cache
def names_fingerprint() -> str:
    """sha256 (hex) of the canonical JSON of `emoji_names()`: a release that renames an emoji makes another recipe."""
    return hashlib.sha256(json.dumps(emoji_names(), sort_keys=True).encode()).hexdigest()

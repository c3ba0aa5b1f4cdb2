"""The most common part of speech of an English word, from the lexicon in TextBlob, if that is installed.

The lexicon is Brill's (1992, "A simple rule-based part of speech tagger"), of the Brown corpus and the Penn Treebank,
with words of tweets added by Gimpel et al. (2011, "Part-of-speech tagging for Twitter"). The file is read
directly: no library is imported and nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

_KINDS = {"NN": "noun", "VB": "verb", "JJ": "adjective", "RB": "adverb", "MD": "verb", "PR": "pronoun", "WP": "pronoun"}


def part_of_speech(word: str) -> str | None:
    """noun, verb, adjective, adverb, pronoun or other; None without a lexicon, or if it lacks the case-folded word."""
    tag = _lexicon().get(word)
    return None if tag is None else _KINDS.get(tag[:2], "other")


@cache
def _lexicon() -> dict[str, str]:
    """Penn Treebank tag by word."""
    spec = find_spec("textblob")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "en" / "en-lexicon.txt"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            entries = (line.split(" ") for line in lines if not line.startswith(";;;"))
            return {entry[0]: entry[1] for entry in entries if len(entry) == 2}
    return {}

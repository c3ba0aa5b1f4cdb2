"""A word is found as a whole word, and nowhere else."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.words.occurrences.matching import Word, fold, is_word_character, words_of


def found(word: str, text: str) -> list[str]:
    """The texts of the spans that are found; the vectorised filter must not lose any of them."""
    target = Word(word)
    spans = target.spans(text)
    if spans:
        assert target.candidates(pa.array([text])).to_pylist() == [True]
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("word", "text", "count"),
    [
        ("virus", "Virus, VIRUS! virus's (virus)", 4),
        ("virus", "#virus @virus _virus virus_ viruses 2virus", 0),
        ("virus", "＃virus ＠virus a-virus", 1),
        ("no", "no, nobody said No", 2),
        ("on", "on and on", 2),
        ("007", "007 0070 1007 agent-007", 2),
        ("null", "null nullify", 1),
        ("#metoo", "#MeToo! #metoos x#metoo ##metoo", 2),
        ("@user", "@user: @user's @users a@user", 2),
        ("new york", "New   York, new\u00a0york; newyork new yorker", 2),
        ("no no", "xno no no", 1),
        ("cafe", "cafe cafe\u0301 café", 1),
        ("café", "café CAFE\u0301 cafe", 2),
        ("nai\u0308ve", "naïve", 1),
        ("c++", "c++ c++11", 1),
        ("😷", "😷😷 a😷b 😷\ufe0f", 4),
        ("😷", "😷\U0001f3fd 😷\u200d💻 💻\u200d😷", 0),
        ("😷\ufe0f", "😷 😷\ufe0f", 2),
        ("👩", "👩\U0001f3fd\u200d💻", 0),
        ("👩\U0001f3fd\u200d💻", "a 👩\U0001f3fd\u200d💻!", 1),
        ("❤", "❤️ ❤ ❤️\u200d🔥", 2),
        ("🇸🇬", "🇺🇸🇬🇧 🇸🇬🇸🇬", 2),
        ("🏴", "🏴\U000e0067\U000e0062\U000e007f 🏴", 1),
        ("1\ufe0f\u20e3", "1\ufe0f\u20e3 1 1\u20e3", 2),
        ("1", "1\ufe0f\u20e3 1", 1),
        ("می\u200cخواهم", "می\u200cخواهم میخواهم", 2),
        ("क्या", "क्या क्याा", 1),
        (".*", "a.* b", 1),
    ],
)
def test_whole_words_and_only_those(word: str, text: str, count: int) -> None:
    assert len(found(word, text)) == count


FRAGMENTS = [
    "a",
    "Z",
    "é",
    "e\u0301",
    "9",
    "_",
    "#",
    "@",
    " ",
    "  ",
    ".",
    "'",
    "😷",
    "👩",
    "\u200d",
    "\ufe0f",
    "ß",
    "й",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=6), st.lists(st.sampled_from(FRAGMENTS), max_size=6))
def test_the_characters_around_a_word_decide(before: list[str], after: list[str]) -> None:
    left, right = "".join(before), "".join(after)
    text = f"{left}mask{right}"
    visible_left, visible_right = left.rstrip("\u200d\ufe0f"), right.lstrip("\u200d\ufe0f")
    whole = not (
        (visible_left and (is_word_character(visible_left[-1]) or visible_left[-1] in "#@"))
        or (visible_right and is_word_character(visible_right[0]))
    )
    assert Word("mask").spans(text) == ([(len(left), len(left) + 4)] if whole else [])


@given(st.text(max_size=30), st.text(st.characters(categories=["L", "N", "So"]), min_size=1, max_size=4))
def test_a_word_between_spaces_is_always_found(text: str, word: str) -> None:
    (target,) = words_of([word])
    start = len(text) + 1
    spans = target.spans(f"{text} {target.text} {text}")
    assert (start, start + len(target.text)) in spans
    assert target.candidates(pa.array([f"{text} {target.text} {text}"])).to_pylist() == [True]


def test_spellings_of_one_word_are_one() -> None:
    target = words_of(["Mask", "mask", "cafe\u0301", "café", " new   york ", "😷", "😷\ufe0f"])
    assert [word.text for word in target] == ["Mask", "café", "new york", "😷"]


@pytest.mark.parametrize("letter", "iI\u0130\u0131")
@pytest.mark.parametrize("other", "iI\u0130\u0131")
def test_the_turkish_letters_i_are_four_of_three_words(letter: str, other: str) -> None:
    """Spellings that `fold` equates match each other, however Python ignores case; and what is found is a candidate."""
    word, text = Word(f"k{letter}sa"), f"K{other}SA dir"
    found = word.spans(text) == [(0, 4)]
    assert found == (fold(letter) == fold(other)) == word.candidates(pa.array([text])).to_pylist()[0]

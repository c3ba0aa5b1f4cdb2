"""Several words count as one, and a regular expression matches whole words wherever Python matches."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.config import EmbedConfig
from bert_tweets.words.occurrences.matching import ChosenWord, Word, words_of
from bert_tweets.words.occurrences.queries import Lemma, Pattern, chosen_words, with_words_of_file


def found(target: ChosenWord, text: str) -> list[str]:
    """The texts of the spans that are found; the vectorised filter must not lose any of them."""
    spans = target.spans(text)
    if spans:
        assert target.candidates(pa.array([text])).to_pylist() == [True]
    return [text[start:end] for start, end in spans]


def lemma(*words: str) -> Lemma:
    return Lemma("name", tuple(words_of(words)))


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (("virus", "viruses", "covid"), "Viruses, virus: #virus COVID antivirus", ["Viruses", "virus", "COVID"]),
        (("new", "new york", "york city"), "new york city, new york", ["new york", "new york"]),
        (("york", "new york city"), "new york city", ["new york city"]),
        (("😷", "mask", "#mask"), "mask😷 #mask", ["mask", "😷", "#mask"]),
        (("other",), "name", []),
    ],
)
def test_words_of_a_lemma_are_one_word(words: tuple[str, ...], text: str, expected: list[str]) -> None:
    assert found(lemma(*words), text) == expected


@given(st.lists(st.sampled_from(["a", "b", "a b", "b a", "c"]), min_size=1), st.text("abc ", max_size=20))
def test_a_lemma_finds_what_its_words_find_without_overlap(words: list[str], text: str) -> None:
    spans = lemma(*words).spans(text)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    every = {span for word in words for span in Word(word).spans(text)}
    assert set(spans) <= every
    for start, end in every:
        assert any(start < other_end and other_start < end for other_start, other_end in spans)


@pytest.mark.parametrize(
    ("expression", "text", "expected"),
    [
        (
            "covid(-?19)?",
            "Covid, COVID-19 covid19 covid-1 covids #covid xcovid",
            ["Covid", "COVID-19", "covid19", "covid"],
        ),
        ("mask|masks", "masks mask masked", ["masks", "mask"]),
        (
            r"\w*virus",
            "coronavirus ñandúvirus virus-like 漢virus #virus",
            ["coronavirus", "ñandúvirus", "virus", "漢virus"],
        ),
        (r"[\w-]*19", "covid-19 é19", ["covid-19", "é19"]),
        (r"[^\W\d]+ ?on", "mask on é9 on", ["mask on"]),
        (r"\d+", "a٣ ٣ 12 1a", ["٣", "12"]),
        ("#?mask", "#mask mask @mask ##mask", ["#mask", "mask", "#mask"]),
        ("😷+", "a😷😷b", ["😷😷"]),
        ("covid ?", "covid 19", ["covid"]),
        (r"\bmask\b|^on$", "mask on", ["mask"]),
        ("a{,2}b", "aab b aaab", ["aab", "b"]),
        ("(?:new|old)\\s+york", "New\u2003York oldyork", ["New\u2003York"]),
        ("é", "e\u0301 é", ["é"]),
    ],
)
def test_a_pattern_is_matched_whole(expression: str, text: str, expected: list[str]) -> None:
    assert found(Pattern("name", expression).checked(), text) == expected


PARTS = ["a", "é", "Σ", "k", "9", "_", "-", "#", " ", r"\w", r"\d", r"\s", r"\W", r"\D", r"\S", r"\b", ".", "$", "^"]
CLASSES = st.tuples(
    st.sampled_from(["[", "[^"]), st.lists(st.sampled_from([*PARTS[:15], "a-f", "[", r"\]"]), min_size=1)
)
ATOMS = st.sampled_from(PARTS) | CLASSES.map(lambda pair: pair[0] + "".join(pair[1]).replace("#-", "#") + "]")
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["?", "+", "{,2}", "{1,}", "*?"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=6,
)


@given(
    EXPRESSIONS,
    st.lists(st.sampled_from([*"aéÉΣσςkK\u212a9٣_-# \n", "e\u0301", "\u2003", "😷"]), max_size=12).map("".join),
)
def test_the_filter_keeps_every_text_that_a_pattern_matches(expression: str, text: str) -> None:
    try:
        pattern = Pattern("name", expression).checked()
    except UserError:
        return
    found(pattern, text)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("covid(", "not a valid regular expression"),
        ("(?<=a)b", "is not supported by RE2"),
        (r"(a)\1", "is not supported by RE2"),
        ("a*", "matches the empty text"),
        ("[[:alpha:]]", "not a valid regular expression"),
        ("a{99999999999}", "not a valid regular expression"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_one_line(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Pattern("name", expression).checked()
    assert "\n" not in str(caught.value) and "patterns: name" in str(caught.value)


def test_words_lemmas_and_patterns_have_names(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeff#metoo\n\n new  york \nmask\n", encoding="utf-8")
    config = EmbedConfig(words=["mask", "Mask"], words_file=str(file), lemmas={"virus": ["virus", "covid"]})
    config.patterns = {"covid": "covid(-?19)?"}
    chosen = chosen_words(with_words_of_file(config))
    assert [word.text for word in chosen] == ["mask", "#metoo", "new york", "virus", "covid"]
    assert [word.covers("covid") for word in chosen] == [False, False, False, True, True]


@pytest.mark.parametrize(
    "settings",
    [
        {"words": []},
        {"words": [" "]},
        {"words": ["new york", "new_york"]},
        {"words": ["New_York"], "lemmas": {"new york": ["nyc"]}},
        {"words": ["covid"], "patterns": {"Covid": "covid-?19"}},
        {"lemmas": {"virus": [" "]}},
        {"lemmas": {" ": ["virus"]}},
    ],
)
def test_no_words_or_ambiguous_names_are_rejected(settings: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"words|lemmas"):
        chosen_words(EmbedConfig(**settings))


def test_a_file_of_words_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    binary, empty = tmp_path / "binary", tmp_path / "empty"
    binary.write_bytes(b"\xff\xfe\x00m")
    empty.write_text("\n\n")
    for path in (binary, empty, tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="words_file="):
            with_words_of_file(EmbedConfig(words_file=str(path)))


def test_a_pattern_loses_no_turkish_letter() -> None:
    """Ignoring case, \u0130 is an i to Python but not to RE2: the filter must not lose what Python finds."""
    for expression in ("istanbul\\w*", "[a-z]+stanbul", "[^x]stanbul"):
        assert found(Pattern("city", expression).checked(), "\u0130STANBUL and more") == ["\u0130STANBUL"]

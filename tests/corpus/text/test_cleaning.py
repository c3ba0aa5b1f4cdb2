"""Cleaning: what the `tweets` preset does to a tweet, that doing it twice changes nothing, what copies share."""

from __future__ import annotations

import re
import sys
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_tweets.corpus.text import cleaning

SNIPPETS = [
    *("a", "Z", "7", "_", "é", "e\u0301", "Å", "日本", "ᄀ", "ᅡ", "\u0301", "\u212b", "\u2329"),
    *(" ", "\n", "\t", "\x00", "\u2028", "\u3000", "\u200b", "\u200c", "\u200d", "\ufe0f", "\u00ad"),
    *("@", "＠", "RT", "user", "#", "&", ";", "&amp;", "&lt;", "&#8203;", "&#x200d;", "&#64;", "amp;"),
    *("http://", "https://t.co/x", "www.", "pic.twitter.com/", "…", ".", "/", ":", "-"),
    *("😷", "👩", "💻", "🏽", "🇺", "🇸", "1", "\u20e3", "❤", "☎", "→", "🏴", "\U000e0067", "\U000e007f"),
]
TEXTS = st.lists(st.sampled_from(SNIPPETS), max_size=12).map("".join) | st.text(max_size=20)


def clean(text: str, preset: str = "tweets") -> str:
    return cleaning.clean(pa.array([text]), preset)[0].as_py()


def key(text: str) -> str:
    return cleaning.duplicate_key(pa.array([clean(text)]))[0].as_py()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # links
        ("see https://t.co/aB3 now", "see http now"),
        ("end https://t.co/aB3.", "end http ."),
        ("glued:http://t.co/x", "glued: http"),
        ("これhttps://t.co/xは", "これ http は"),
        ("cut https://t.co/ab…", "cut http"),
        ("www.example.org and pic.twitter.com/abc", "http and http"),
        ("https is a word, http too", "https is a word, http too"),
        # mentions
        ("@bob_1: hi", "@user: hi"),
        (".@bob and (@ann) RT@joe さん@kim", ".@user and (@user) RT@user さん@user"),
        ("＠bob", "@user"),
        ("mail a@b.com or a.b+c@d.org", "mail a@b.com or a.b+c@d.org"),
        ("@ alone", "@ alone"),
        ("@a_name_longer_than_any_handle_can_be", "@user"),
        # entities, before all else
        ("Tom &amp; Jerry &lt;3 &#128512;", "Tom & Jerry <3 😀"),
        ("twice &amp;amp;amp;lt;", "twice <"),
        ("R&D, AT&T; &notice; &nbsp;x", "R&D, AT&T; &notice; x"),
        ("http://x.y/?a=1&amp;b=2 z", "http z"),
        ("&#64;bob", "@user"),
        # characters
        ("cafe\u0301", "café"),
        ("zero\u200bwidth\ufeff and\u00adhyphen", "zerowidth andhyphen"),
        ("a\u200db \ufe0fc", "ab c"),
        ("nul\x00 bell\x07", "nul bell"),
        (" many \t\n\u3000 spaces\u00a0", "many spaces"),
        # emoji
        ("virus😷", "virus 😷"),
        ("😷virus😷😂!", "😷 virus 😷 😂 !"),
        ("by👩🏽‍💻now", "by 👩🏽‍💻 now"),
        ("🇺🇸🇬🇧x", "🇺🇸 🇬🇧 x"),
        ("n1️⃣#️⃣", "n 1️⃣ #️⃣"),
        ("I❤️you", "I ❤️ you"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿!", "🏴󠁧󠁢󠁥󠁮󠁧󠁿 !"),
        ("a→b", "a → b"),
        ("covid-19 costs 5 #ok *", "covid-19 costs 5 #ok *"),
        ("", ""),
        (" \u200b ", ""),
    ],
)
def test_tweets(text, expected):
    assert clean(text) == expected


def test_raw_leaves_text_as_it_stands():
    assert clean(" a\x00b  &amp; @bob😷\n\nhttp://x ", "raw") == "ab  &amp; @bob😷\n\nhttp://x"


# Libraries of an extra: NLTK reads `:name:` as a word between colons, so bertweet is its authors' in this, too.
NEEDS_LIBRARIES = {"tweets+names", "timelms+names", "raw+names", "bertweet", "bertweet+separate"}


@pytest.mark.parametrize("preset", [name for name in cleaning.PRESETS if not name.startswith("bertweet")])
@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
@example(text="&am&#8203;p;lt;")
@example(text="@bob\u0301")
@example(text="e\u200c\u0301")
@example(text="&#38;#&#51;8;")
@example(text="😷  😷😷 a\n😷")
def test_cleaning_twice_is_cleaning_once(preset, text):
    if preset in NEEDS_LIBRARIES:
        pytest.importorskip("emoji")
    once = clean(text, preset)
    assert clean(once, preset) == once


@settings(max_examples=300)
@given(TEXTS)
def test_what_must_not_be_left(text):
    cleaned = clean(text)
    assert cleaned == cleaned.strip()
    assert not set("\x00\n\t\u200b\u3000") & set(cleaned)
    assert "  " not in cleaned
    assert "://t.co" not in cleaned


@given(st.lists(TEXTS, max_size=6))
def test_a_row_is_cleaned_without_regard_to_its_neighbours(texts):
    assert cleaning.clean(pa.array(texts, pa.string()), "tweets").to_pylist() == [clean(text) for text in texts]


def replaced_everywhere(texts, rules):
    """Cleaning without a shortcut: every rule on every row."""
    array, done = pa.array(texts, pa.string()), None
    while done is None or not array.equals(done):
        done = array
        for name, *arguments in rules:
            if name == "replace":
                array = pc.replace_substring_regex(array, *arguments)
            elif name == "normalize":
                array = pc.utf8_normalize(array, *arguments)
            else:
                array = cleaning._RULES[name](array, *arguments)
    return array.to_pylist()


@pytest.mark.parametrize("preset", ["tweets", "timelms", "raw", "raw+separate", "timelms+separate"])
@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=6))
@example(["e\u0301", "ᄀ\u1161", "か\u3099", "a\u0338", "\u212b", "\u2329", "≠\u0338", "❤\u0338"])
@example(["", "a", "", "  ", "", " "])
@example(["@a＠b", "x@\u0301", "é@bob", "@bob\u0301 @ann"])
def test_shortcuts_change_no_result(preset, texts):
    assert cleaning.clean(pa.array(texts, pa.string()), preset).to_pylist() == replaced_everywhere(
        texts, cleaning.PRESETS[preset]
    )


def key_in_full(cleaned):
    """`duplicate_key` of a text that is no retweet, rule by rule on every row."""
    key = pc.utf8_lower(pa.array([cleaned]))
    for pattern in (
        r"(?i)https?://\S*|\bhttp(?:url)?\b|[@＠][a-z0-9_]+",
        cleaning._APOSTROPHE,
        r"[\p{P}`^|~]+",
        cleaning._SPACE,
    ):
        key = pc.replace_substring_regex(key, pattern, "" if pattern == cleaning._APOSTROPHE else " ")
    return pc.utf8_trim(key, " ")[0].as_py() or cleaned


@settings(max_examples=500, deadline=None)
@given(TEXTS | st.text("aB @_!^`'’ʼ\t\n\u2028“”。é😷ſK", max_size=12))
@example("a\u3000  b\n“c”")
def test_shortcuts_change_no_key(text):
    keys = cleaning.duplicate_key(pa.array(["x", text, ""])).to_pylist()
    if not text.lower().startswith("rt"):
        assert keys == ["x", key_in_full(text), ""]


@given(st.lists(st.text(" aé", max_size=6), max_size=8))
def test_runs_of_blanks_become_one_in_every_row(texts):
    squeezed = cleaning._squeezed(pa.array(texts, pa.string()))
    assert squeezed.to_pylist() == [re.sub(" +", " ", text) for text in texts]


def test_a_slice_of_a_column_is_cleaned_like_the_column():
    texts = pa.array(["first  one", "@ann  b", "", "😷c", "last  one"])
    for preset in ("tweets", "raw"):
        assert cleaning.clean(texts[1:4], preset).equals(cleaning.clean(texts, preset)[1:4])
    assert cleaning.duplicate_key(texts[1:4]).equals(cleaning.duplicate_key(texts)[1:4])


def test_what_need_not_be_composed_composes_with_nothing():
    may_compose = re.compile(re.sub(r"\\x\{(\w+)\}", lambda code: chr(int(code[1], 16)), cleaning._MAY_COMPOSE))
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    parts = [unicodedata.decomposition(character).split() for character in every]
    second = {chr(int(pair[1], 16)) for pair in parts if len(pair) == 2 and pair[0][0] != "<"}
    for character in every:
        if not may_compose.match(character):
            assert unicodedata.normalize("NFC", character) == character and character not in second
            assert not unicodedata.combining(character)


def test_copies_have_one_key():
    copies = ["RT this: Masks WORK!!! https://t.co/a", "rt this masks, work @bob", "RT  this “masks” work http://b.c/d"]
    assert {key(copy) for copy in copies} == {"rt this masks work"}
    assert {key(copy) for copy in ("I don't know", "I don’t know", "I dontʼ know", "i dont know")} == {"i dont know"}
    assert {key(copy) for copy in ("'well-known'", "‘well’ known", "well known")} == {"well known"}
    assert key("masks work 😷") != key("masks work")
    assert key("@bob https://t.co/x") == "@user http"
    assert key("!!!") == "!!!"
    assert key("https://t.co/x") == key("https://t.co/y") == "http"
    assert cleaning.duplicate_key(pa.array(["https://t.co/x", "a www.b.c"])).to_pylist() == [
        "https://t.co/x",
        "a www b c",
    ]


@pytest.mark.parametrize("preset", cleaning.PRESETS)
@pytest.mark.parametrize("mark", ["RT @ann: ", "rt @Ann : ", "Rt @ann_1: RT @bob: ", "RT @ann: RT @bob: rt @c: "])
@pytest.mark.parametrize(
    "text", ["Masks work, don't they 😷 https://t.co/x", "@eve Masks work", "https://t.co/x", "RT if you agree"]
)
def test_a_retweet_has_the_key_of_its_original(preset, mark, text):
    if preset in NEEDS_LIBRARIES:
        pytest.importorskip("emoji")
        pytest.importorskip("nltk")
    cleaned = cleaning.clean(pa.array([text, mark + text, mark.strip()]), preset)
    original, retweet, only_mark = cleaning.duplicate_key(cleaned).to_pylist()
    assert original == retweet
    assert only_mark == cleaned[2].as_py()


def test_who_is_retweeted_within_a_text_is_no_mark():
    assert key("so true RT @ann: masks work") == "so true rt masks work"
    assert key("art @ann: masks") == "art masks"


def test_a_changed_rule_is_another_recipe(monkeypatch):
    before = cleaning.rules_fingerprint("tweets")
    assert before == cleaning.rules_fingerprint("tweets") != cleaning.rules_fingerprint("raw")
    monkeypatch.setitem(cleaning.PRESETS, "tweets", cleaning.PRESETS["tweets"][1:])
    assert cleaning.rules_fingerprint("tweets") != before


def test_old_recipes_mean_what_they_meant():
    for preset, fingerprint in {
        "tweets": "7aa5673118ee539aba15036444430d40226dc94626449f46536783f588a82f74",
        "raw": "7a70d60c7ae6dc5d460d6278c8d22640fe363ae516dc4dcf907f5c5ad0842180",
    }.items():
        assert cleaning.rules_fingerprint(preset) == fingerprint
        assert cleaning.rules_of(preset) == cleaning.PRESETS[preset]


def test_auto_is_the_tweets_preset(tiny_tokenizer):
    assert cleaning.resolve("auto", tiny_tokenizer) == cleaning.resolve("auto", None) == "tweets"
    assert cleaning.resolve("raw", tiny_tokenizer) == "raw"

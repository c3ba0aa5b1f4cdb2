"""Cleaning: what the `tweets` preset does to a tweet, and that doing it twice changes nothing more."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_tweets.text import cleaning

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


@pytest.mark.parametrize("preset", cleaning.PRESETS)
@settings(max_examples=500)
@given(text=TEXTS)
@example(text="&am&#8203;p;lt;")
@example(text="@bob\u0301")
@example(text="e\u200c\u0301")
@example(text="&#38;#&#51;8;")
def test_cleaning_twice_is_cleaning_once(preset, text):
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


def test_copies_have_one_key():
    copies = ["RT this: Masks WORK!!! https://t.co/a", "rt this masks, work @bob", "RT  this “masks” work http://b.c/d"]
    assert {key(copy) for copy in copies} == {"rt this masks work"}
    assert key("masks work 😷") != key("masks work")
    assert key("@bob https://t.co/x") == "@user http"
    assert key("!!!") == "!!!"


def test_near_copies_share_their_first_six_words():
    texts = pa.array(
        ["One two, three four five six seven", "one two three FOUR five six! eight nine", "one two three", ""]
    )
    assert cleaning.cluster_key(texts).to_pylist() == ["one two three four five six"] * 2 + ["one two three", ""]


def test_a_changed_rule_is_another_recipe(monkeypatch):
    before = cleaning.rules_fingerprint("tweets")
    assert before == cleaning.rules_fingerprint("tweets") != cleaning.rules_fingerprint("raw")
    monkeypatch.setitem(cleaning.PRESETS, "tweets", cleaning.PRESETS["tweets"][1:])
    assert cleaning.rules_fingerprint("tweets") != before


def test_auto_is_the_tweets_preset(tiny_tokenizer):
    assert cleaning.resolve("auto", tiny_tokenizer) == "tweets"
    assert cleaning.resolve("raw", tiny_tokenizer) == "raw"

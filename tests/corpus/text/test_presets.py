"""Presets of other authors match their publications; emoji are handled as requested, without [UNK] words."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.text import cleaning
from bert_tweets.corpus.text import emoji as emoji_names
from bert_tweets.corpus.text.tokenizer import load_tokenizer

WORDS = ["virus", "protects", "everyone", "masks"]
EMOJI = [
    "😷",
    "👾",
    "❤️",
    "❤",
    "👩🏽‍💻",
    "🇺🇸",
    "1️⃣",
    "#⃣",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "☎",
    "⚡️",
    "→",
    "🥹",
    "🏽",
]
GLUED = st.lists(st.sampled_from(WORDS + EMOJI), min_size=1, max_size=8)


def clean(text: str, preset: str) -> str:
    return cleaning.clean(pa.array([text]), preset)[0].as_py()


def tokenizer(name: str = "", vocabulary: tuple[str, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(name_or_path=name, get_vocab=lambda: dict.fromkeys(vocabulary, 0))


def require_libraries_of(preset: str) -> None:
    if "names" in preset or "bertweet" in preset:
        pytest.importorskip("emoji")
        pytest.importorskip("nltk")


# github.com/VinAIResearch/BERTweet (MIT): the raw tweet of TweetNormalizer.py, the normalised one of the README.
def test_the_example_of_bertweets_authors():
    require_libraries_of("bertweet")
    link = (
        "https://postandcourier.com/health/covid19/sc-has-first-two-presumptive-cases-of-coronavirus-dhec-confirms/"
        "article_bddfe4ae-5fd3-11ea-9ce4-5f495366cee6.html?utm_medium=social&utm_source=twitter&utm_campaign=user-share"
    )
    text = f"SC has first two presumptive cases of coronavirus, DHEC confirms {link} via @postandcourier"
    normal = "SC has first two presumptive cases of coronavirus , DHEC confirms HTTPURL via @USER"
    assert clean(text, "bertweet") == normal
    # Their raw tweet has an ellipsis behind the link, which the README's leaves out and their program does not.
    assert clean(text.replace(link, f"{link}…"), "bertweet") == normal.replace("HTTPURL", "HTTPURL ...")
    assert clean(f"{text} 😢", "bertweet") == f"{normal} :crying_face:"
    assert clean(f"{text} 😢", "bertweet+separate") == f"{normal} 😢"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can’t, don't and cannot stop", "I can't , do n't and can not stop"),
        ("we're here, she's in… I'd've", "we 're here , she 's in ... I'd've"),
        ("ain't it at 5 p.m. or 6 a.m. now", "ain't it at 5 p.m. or 6 a.m. now"),
        ("Tom &amp; Jerry WWW.x.com HTTP://x.y @ noon", "Tom & Jerry HTTPURL HTTPURL @USER noon"),
        ("virus😷now 😷😷😷😷😷", "virus :face_with_medical_mask: now" + " :face_with_medical_mask:" * 3),
        ("I❤️you", "I :red_heart: you"),
        ("😷 @bob: hi", ":face_with_medical_mask: @USER : hi"),
    ],
)
def test_what_bertweet_does_to_words(text, expected):
    require_libraries_of("bertweet")
    assert clean(text, "bertweet") == expected


# By the cards of the models, such as huggingface.co/cardiffnlp/twitter-roberta-base-2021-124m: a word that begins
# with the only @ it has, and a word that begins with http; the inputs of their examples come out as they are.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So glad I'm <mask> vaccinated .", "So glad I'm <mask> vaccinated ."),
        ("She is pure heart #SanaTheBBWinner", "She is pure heart #SanaTheBBWinner"),
        ("@a @b  @c\n@d: see\x1dhttps://t.co/x, httpd", "@user @user @user @user see http http"),
        ("@ann@bob @ @@ (@ann) HTTP://X x@y", "@ann@bob @ @@ (@ann) HTTP://X x@y"),
        ("virus😷 &amp; e\u0301", "virus😷 &amp; e\u0301"),
        (" \n", ""),
    ],
)
def test_what_timelms_does(text, expected):
    assert clean(text, "timelms") == expected


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(["@", "a", "@a", "http", " ", "  ", "\n", "\x1c", "\u3000", "😷", "é"])).map("".join))
def test_timelms_word_by_word(text):
    expected = []
    for word in text.split():
        if re.fullmatch("@[^@]+", word):
            word = "@user"
        expected.append("http" if word.startswith("http") else word)
    assert clean(text, "timelms") == " ".join(expected)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("tweets", "a 😷 😷 b 👩🏽‍💻 http"),
        ("tweets+names", "a :face_with_medical_mask: :face_with_medical_mask: b {coder} http"),
        ("timelms", "a😷 😷b\t👩🏽‍💻 http"),
        ("timelms+separate", "a 😷 😷 b 👩🏽‍💻 http"),
        ("timelms+names", "a :face_with_medical_mask: :face_with_medical_mask: b {coder} http"),
        ("bertweet", "a :face_with_medical_mask: :face_with_medical_mask: b {coder} HTTPURL"),
        ("bertweet+separate", "a 😷 😷 b 👩🏽‍💻 HTTPURL"),
        ("raw", "a😷 😷b\t👩🏽‍💻 http://x.y"),
        ("raw+separate", "a 😷 😷 b\t 👩🏽‍💻 http://x.y"),
        ("raw+names", "a :face_with_medical_mask: :face_with_medical_mask: b\t {coder} http://x.y"),
    ],
)
def test_ways_with_emoji(preset, expected):
    require_libraries_of(preset)
    coder = ":woman_technologist_medium_skin_tone:"
    expected = expected.format(coder=coder).replace("\t", " " if "raw" not in preset else "\t")
    assert clean("a😷 😷b\t👩🏽‍💻 http://x.y", preset) == expected


def test_two_settings_make_one_name():
    settings = {
        ("tweets", "auto"): "tweets",
        ("tweets", "separate"): "tweets",
        ("tweets", "tokens"): "tweets",
        ("tweets", "names"): "tweets+names",
        ("tweets+names", "auto"): "tweets+names",
        ("tweets+names", "tokens"): "tweets",
        ("timelms", "auto"): "timelms",
        ("timelms", "tokens"): "timelms+separate",
        ("bertweet", "names"): "bertweet",
        ("bertweet", "separate"): "bertweet+separate",
        ("raw", "auto"): "raw",
        ("raw", "names"): "raw+names",
        ("auto", "names"): "tweets+names",
    }
    for (name, emoji), expected in settings.items():
        assert cleaning.resolve(name, None, emoji) == expected in cleaning.PRESETS


def test_auto_picks_by_tokenizer():
    picked = {
        "bertweet": [
            tokenizer("vinai/bertweet-large"),
            tokenizer("/cache/models--vinai--bertweet-base/snapshots/5c1e"),
            tokenizer("anything", ("the", "HTTPURL", "@USER")),
        ],
        "timelms": [
            tokenizer("cardiffnlp/twitter-roberta-base-2021-124m"),
            tokenizer("/cache/models--cardiffnlp--twitter-roberta-base/snapshots/3b"),
        ],
        "tweets": [
            tokenizer("FacebookAI/roberta-base"),
            tokenizer("/home/ann/bertweet-study"),
            tokenizer("", ("HTTPURL",)),
        ],
    }
    for preset, tokenizers in picked.items():
        assert {cleaning.resolve("auto", one) for one in tokenizers} == {preset}


def test_an_unknown_preset_is_reported_in_one_line():
    for call in (lambda: cleaning.resolve("tweet", None), lambda: cleaning.clean(pa.array(["a"]), "tweet")):
        with pytest.raises(UserError, match=r"there is no preset 'tweet' \(did you mean 'tweets'") as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("preset", "module"), [("bertweet", "nltk"), ("bertweet", "emoji"), ("tweets+names", "emoji")])
def test_a_missing_library_is_reported_in_one_line(monkeypatch, preset, module):
    require_libraries_of(preset)
    forget_names()
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "nltk.tokenize.casual", None) if module == "nltk" else None
    for call in (lambda: cleaning.rules_fingerprint(preset), lambda: clean("a 😷", preset)):
        with pytest.raises(UserError, match=rf"{module}.*pip install 'bert_tweets\[bertweet\]'") as error:
            call()
        assert "\n" not in str(error.value)


def forget_names() -> None:
    emoji_names.emoji_names.cache_clear()
    emoji_names.names_fingerprint.cache_clear()


def test_another_release_of_a_library_is_another_recipe(monkeypatch):
    require_libraries_of("bertweet")
    fingerprints = {preset: cleaning.rules_fingerprint(preset) for preset in cleaning.PRESETS}
    assert len(set(fingerprints.values())) == len(fingerprints)
    monkeypatch.setattr("nltk.__version__", "0.0")
    changed = {preset for preset in fingerprints if cleaning.rules_fingerprint(preset) != fingerprints[preset]}
    assert changed == {"bertweet", "bertweet+separate"}
    monkeypatch.undo()
    forget_names()
    renamed = emoji_names.emoji_names() | {"😷": ":mask:"}
    forget_names()
    monkeypatch.setattr(emoji_names, "emoji_names", lambda: renamed)
    changed = {preset for preset in fingerprints if cleaning.rules_fingerprint(preset) != fingerprints[preset]}
    monkeypatch.undo()
    forget_names()
    assert changed == {"tweets+names", "timelms+names", "raw+names", "bertweet"}


def lost_words(parts: list[str], preset: str, bert) -> list[str]:
    """The words among parts whose pieces are not in the text that the parts make when glued together."""
    known = [bert.tokenize(word) for word in WORDS]
    assert not any("[UNK]" in pieces for pieces in known)
    pieces = bert.tokenize(clean("".join(parts), preset))
    # Words that touch each other are one word: only those between emoji, or at an end, are looked for.
    lonely = [
        word
        for before, word, after in zip(["😷", *parts], parts, [*parts[1:], "😷"], strict=False)
        if word in WORDS and before not in WORDS and after not in WORDS
    ]
    text = " " + " ".join(pieces) + " "
    return [word for word in lonely if " " + " ".join(bert.tokenize(word)) + " " not in text]


APART = [preset for preset in cleaning.PRESETS if preset not in ("raw", "timelms")]


@pytest.mark.parametrize("preset", APART)
@settings(max_examples=100, deadline=None)
@given(parts=GLUED)
def test_no_emoji_turns_the_adjacent_word_into_unk(tiny_tokenizer, preset, parts):
    require_libraries_of(preset)
    assert lost_words(parts, preset, tiny_tokenizer) == []


def test_unseparated_emoji_turn_adjacent_words_into_unk(tiny_tokenizer):
    assert lost_words(["virus", "👾"], "raw", tiny_tokenizer) == ["virus"]


@pytest.mark.real_data
@pytest.mark.parametrize("preset", APART)
def test_no_emoji_turns_the_adjacent_word_into_unk_in_berts_own_vocabulary(real_data, preset):
    require_libraries_of(preset)
    bert = load_tokenizer(str(real_data.parent / "models" / "minilm-l6"))
    for emoji in EMOJI:
        assert lost_words(["virus", emoji, "protects", emoji, emoji, "everyone"], preset, bert) == []


def test_every_emoji_of_the_library_has_a_pattern():
    library = pytest.importorskip("emoji")
    every = getattr(library, "EMOJI_DATA", None) or library.UNICODE_EMOJI
    apart = cleaning.clean(pa.array([f"a{one}b" for one in every]), "raw+separate").to_pylist()
    assert [text for text in apart if not re.fullmatch("a .+ b", text)] == []
    spelled = cleaning.clean(pa.array([f"a{one}b" for one in every]), "raw+names").to_pylist()
    assert [text for text in spelled if not re.fullmatch("a (:[^ :]+:( |(?= b)))+ ?b", text)] == []

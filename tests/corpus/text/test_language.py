"""Telling languages apart: by words alone, and silent where there are none."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.text import language

TWEETS = {
    "en": "I can't believe they cancelled the football match because of the weather",
    "de": "Ich kann nicht glauben, dass sie das Spiel wegen des Wetters abgesagt haben",
    "es": "No puedo creer que hayan cancelado el partido por culpa del tiempo",
    "fr": "Je n'arrive pas à croire qu'ils ont annulé le match à cause du temps",
    "ja": "天気のせいで試合が中止になったなんて信じられない",
    "ru": "Не могу поверить, что они отменили матч из-за погоды",
}
NOISE = [
    "😂😂😂 {}",
    "@jean_dupont @friend {}",
    "{} https://t.co/abcDEF",
    "{} HTTPURL @USER",
    "#{} :face_with_tears_of_joy:",
]


@pytest.fixture
def installed() -> None:
    pytest.importorskip("py3langid", reason="needs the extra 'language'")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("noise", ["{}", *NOISE])
def test_languages_are_detected_from_words_only(noise):
    found = language.detect(pa.array([noise.format(text) for text in TWEETS.values()]))
    assert found.to_pylist() == list(TWEETS)


@pytest.mark.usefixtures("installed")
def test_without_words_the_language_is_null():
    texts = ["", None, "😂", "https://t.co/a", "@ann @bob", "123 !!", "http @user", "ok"]
    texts += [
        "@je_ne_sais_pas_quoi @vous_etes_la",
        "https://a.de/das-ist-nicht-gut-fuer-uns",
        ":visage_qui_pleure_de_joie:",
    ]
    assert language.detect(pa.array(texts)).to_pylist() == [None] * len(texts)
    assert language.detect(pa.array([], pa.string())).to_pylist() == []


@pytest.mark.usefixtures("installed")
@given(st.lists(st.text(max_size=40)))
def test_any_text_has_a_language_or_none(texts):
    found = language.detect(pa.array(texts, pa.string()))
    assert len(found) == len(texts) and found.type == pa.string()
    assert all(code is None or (len(code) == 2 and code.islower()) for code in found.to_pylist())


def test_a_language_includes_its_regions_and_a_region_only_itself():
    spoken = pa.array(["en", "EN ", "en-GB", "en_US", "eng", "de-en", "", None])
    for wanted, expected in (
        (["en"], [True, True, True, True, False, False, False, False]),
        (["En-gb"], [False, False, True, False, False, False, False, False]),
        (["de", "en-us"], [False, False, False, True, False, True, False, False]),
    ):
        assert language.is_among(spoken, wanted).to_pylist() == expected


@pytest.mark.usefixtures("installed")
def test_unknown_languages_are_reported_with_the_known_ones():
    language.require_known(["en", "DE"])
    with pytest.raises(UserError, match=r"filter\.languages: english, en-GB: not known .*\bde, .*\ben, ") as caught:
        language.require_known(["english", "de", "en-GB"])
    assert "\n" not in str(caught.value)


def test_a_missing_extra_is_reported_with_the_command_to_install_it(monkeypatch):
    language._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(UserError, match=r"pip install 'bert_tweets\[language\]'"):
        language.detect(pa.array(["hello"]))

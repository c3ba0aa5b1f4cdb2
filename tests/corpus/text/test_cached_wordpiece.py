"""Word by word the tokens are those of the whole text, for every text; what cannot be read so, is not."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.corpus.text import cached_wordpiece, cleaning
from bert_tweets.corpus.text.added_tokens import add_emoji
from bert_tweets.corpus.text.tokenizer import BatchTokenizer, load_tokenizer, private_backend
from tests.helpers import generated_tweets

ODD = "aZé ñ̃Σσς漢字가각İıŒ﷽ \t\n\u00a0\u2028\u200b\x00\x07#@_-'’.,!?😷👩🏽‍💻🇩🇪❤️##x[SEP] \u0301\u0345"
TEXTS = st.lists(st.one_of(st.text(), st.text(ODD, max_size=30), st.sampled_from(generated_tweets(40))), max_size=8)


def by_text(tokenizer, max_length, texts):
    """The same by the tokenizer's own way, text by text, with its word ids."""
    encoder = BatchTokenizer(tokenizer, max_length)
    encoder._backend.enable_truncation(max_length)
    return encoder._by_text(texts)


def assert_same(tokenizer, texts, max_length=24):
    encoder = BatchTokenizer(tokenizer, max_length)
    assert encoder._words is not None
    plain = by_text(tokenizer, max_length, texts)
    for _ in range(2):  # from an empty store and from a full one
        found = encoder(pa.array(texts, pa.string()))
        for name in ("lengths", "input_ids", "word_starts", "truncated"):
            assert np.array_equal(getattr(found, name), getattr(plain, name)), name


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(3, 40))
def test_tokens_are_those_of_the_whole_text(tiny_tokenizer, texts, max_length):
    assert_same(tiny_tokenizer, texts, max_length)


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS)
def test_added_emoji_are_found_inside_of_words(tiny_tokenizer, texts):
    assert_same(add_emoji(tiny_tokenizer, [pa.array(["😷 👩🏽‍💻 ❤️ 🇩🇪"])], 10), [*texts, "a😷b ❤️❤ 👩🏽‍💻x"])


@pytest.mark.parametrize("limit", ["MOST_WORDS", "MOST_CHARACTERS"])
def test_what_is_remembered_is_bounded_and_forgetting_changes_nothing(tiny_tokenizer, limit, monkeypatch):
    monkeypatch.setattr(cached_wordpiece, limit, 50)
    encoder = BatchTokenizer(tiny_tokenizer, 64)
    for first in range(0, 2000, 20):
        texts = [f"the mask of number{number}" for number in range(first, first + 20)]
        found, plain = encoder(pa.array(texts)), by_text(tiny_tokenizer, 64, texts)
        assert np.array_equal(found.input_ids, plain.input_ids)
        store = encoder._words
        # What came last is added to a store that was full at most.
        assert len(store._numbers) == len(store._starts) == len(store._counts) <= 50 + 23
        assert store._characters < 50 * 10 + 23 * 10 and len(store._ids) <= store._characters


def test_a_word_is_encoded_once(tiny_tokenizer, monkeypatch):
    encoder = BatchTokenizer(tiny_tokenizer, 64)
    asked = []
    real = encoder._words._backend

    class Counting:
        def encode_batch_fast(self, texts, add_special_tokens):
            asked.extend(texts)
            return real.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    encoder._words._backend = Counting()
    for _ in range(3):
        encoder(pa.array(["the mask the virus", "mask, (mask)", "(zoom)"]))
    # Plain words are strung together.
    assert sorted(text for text in asked if text) == ["(", ")", ",", "the mask virus", "zoom"]


def test_an_added_token_inside_of_plain_words_is_found(tiny_tokenizer):
    from tokenizers import AddedToken

    backend = private_backend(tiny_tokenizer)
    backend.add_tokens([AddedToken("york", normalized=False)])
    assert cached_wordpiece.can_encode(backend)
    assert_same(backend, ["yorkshire newyork york the mask", "york", "new york mask 19 yorkyork"])


def test_an_added_token_that_holds_punctuation_is_not_taken_apart(tiny_tokenizer):
    from tokenizers import AddedToken

    backend = private_backend(tiny_tokenizer)
    backend.add_tokens([AddedToken("#x", normalized=False)])
    assert cached_wordpiece.can_encode(backend)
    assert_same(backend, ["a #x b", "mask#x, #y", "#xy"])


def test_more_new_words_than_one_call_takes(tiny_tokenizer):
    plain, others = ([f"{word}{number}" for number in range(6000)] for word in ("mask", "é"))
    texts = [" ".join(words[first : first + 20]) for words in (plain, others) for first in range(0, 6000, 20)]
    assert_same(tiny_tokenizer, texts, 400)


def test_no_text_and_empty_texts(tiny_tokenizer):
    assert BatchTokenizer(tiny_tokenizer, 8)(pa.array([], pa.string())).lengths.tolist() == []
    assert BatchTokenizer(tiny_tokenizer, 8)(pa.array(["", " ", "  a "])).lengths.tolist()[:2] == [2, 2]
    column = pa.array(["not this", "the mask", "nor this"]).slice(1, 1)
    assert np.array_equal(
        BatchTokenizer(tiny_tokenizer, 8)(column).input_ids, BatchTokenizer(tiny_tokenizer, 8)(["the mask"]).input_ids
    )


def test_other_tokenizers_are_read_text_by_text(tiny_tokenizer):
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

    backend = private_backend(tiny_tokenizer)
    assert cached_wordpiece.can_encode(backend)
    for change in (
        lambda b: setattr(b, "pre_tokenizer", pre_tokenizers.WhitespaceSplit()),
        lambda b: setattr(b, "normalizer", normalizers.NFKC()),
        lambda b: b.add_tokens([AddedToken("new york", normalized=False)]),
        lambda b: b.add_tokens([AddedToken("york", normalized=False, lstrip=True)]),
        lambda b: b.add_tokens([AddedToken("york", normalized=False, single_word=True)]),
        lambda b: b.add_tokens([AddedToken("york", normalized=True)]),
        lambda b: setattr(b, "post_processor", processors.TemplateProcessing("$A", "$A $B", [])),
    ):
        other = private_backend(backend)
        change(other)
        assert not cached_wordpiece.can_encode(other)
    assert not cached_wordpiece.can_encode(Tokenizer(models.BPE()))
    parts = json.loads(backend.to_str())
    parts["model"]["continuing_subword_prefix"] = "@@"
    assert not cached_wordpiece.can_encode(Tokenizer.from_str(json.dumps(parts)))


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["btc_ccby40.csv", "fivethirtyeight_mayweather_ccby40.csv", "everyday_en.csv.gz"])
def test_real_tweets_under_the_real_tokenizer(real_data, name):
    tokenizer = load_tokenizer(str(real_data.parent / "models" / "bert-base-uncased-tokenizer"))
    opening = gzip.open if name.endswith("gz") else open
    with opening(real_data / name, "rt", encoding="utf-8", errors="replace", newline="") as file:
        texts = [row["text"] for row, _ in zip(csv.DictReader(file), range(8000), strict=False)]
    assert_same(tokenizer, texts)
    assert_same(tokenizer, cleaning.clean(pa.array(texts), "tweets").to_pylist(), 128)

"""Substitutes are the words that the stock model predicts at a mask in place of the word, in any batch."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.data.layout import Layout
from bert_tweets.distributed.world import World
from bert_tweets.model.loading import load_model
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.words.embedding.extractor import Extractor
from bert_tweets.words.embedding.substitutes import Substitutes, substitutes_of, word_tokens
from bert_tweets.words.occurrences import find as occurrences_module
from bert_tweets.words.occurrences.find import FOUND, align, find, open_corpus
from bert_tweets.words.occurrences.matching import words_of
from tests.helpers import make_shards

WORDS = ["mask", "photographer", "the internet", "😷", "grandmothers", "internet"]
# The last one takes the place of a control word.
TARGETS = 5
COUNT = 4


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_shards(tmp_path_factory.mktemp("substitutes"), max_length=24)
    manifest, corpus = Manifest.read(folder), open_corpus(str(folder), Manifest.read(folder))
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    found = align(corpus, find(corpus, words_of(WORDS)), tokenizer, manifest.unknown_id)
    model = load_model(ModelConfig(name="scratch"), manifest).model
    with torch.no_grad():
        # So that the likeliest tokens are not the same everywhere.
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return SimpleNamespace(manifest=manifest, corpus=corpus, tokenizer=tokenizer, found=found, model=model)


def predict(study: Any, tokens_per_device: int = 4096) -> Substitutes:
    layout = Layout(study.manifest.max_length, tokens_per_device, study.manifest.pad_id)
    read = Extractor(PackedMaskedLM(study.model).eval(), [1], layout, "fp32", torch.device("cpu"))
    world = World(0, 0, 1, 1, torch.device("cpu"))
    return substitutes_of(read, study.corpus, study.found, TARGETS, COUNT, study.tokenizer, world, Path())


def test_equal_to_the_stock_model_an_occurrence_at_a_time(study: Any) -> None:
    found, tokenizer = study.found, study.tokenizer
    substitutes = predict(study)
    stock = deepcopy(study.model)
    stock.set_attn_implementation("eager")
    is_word, _ = word_tokens(tokenizer, study.manifest.vocabulary_size)
    included = (found.status == FOUND) & (found.places.word < TARGETS)
    assert 0 < included.sum() < len(included) and (found.subword_counts[included] > 1).any()
    np.testing.assert_array_equal((substitutes.ids >= 0).all(axis=1), included)
    assert (substitutes.ids[~included] == -1).all()
    ends = np.cumsum(found.subword_counts)
    rows = np.flatnonzero(included)
    for row in rows[:: max(1, len(rows) // 60)].tolist():
        ids = study.corpus.gather(found.places.tweet[row : row + 1]).input_ids.tolist()
        tokens = found.subword_positions[ends[row] - found.subword_counts[row] : ends[row]].tolist()
        own = ids[tokens[0]] if len(tokens) == 1 else -1
        masked = [*ids[: tokens[0]], tokenizer.mask_token_id, *ids[tokens[-1] + 1 :]]
        with torch.no_grad():
            logits = stock(input_ids=torch.tensor([masked])).logits[0, tokens[0]].numpy()
        logits = np.where(is_word & (np.arange(len(logits)) != own), logits, -np.inf)
        # As good as the best, for those that rounding could swap.
        np.testing.assert_allclose(logits[substitutes.ids[row]], np.sort(logits)[::-1][:COUNT], atol=1e-4)


def test_layout_changes_nothing(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = predict(study).ids
    assert len(np.unique(expected[expected >= 0])) > 10
    monkeypatch.setattr(occurrences_module, "CHUNK_TWEETS", 7)
    assert (predict(study, 128).ids != expected).mean() < 0.01


def test_substitutes_are_words_and_never_the_word_itself(study: Any) -> None:
    substitutes = predict(study)
    column = substitutes.column(np.arange(len(study.found))).to_pylist()
    for word, status, number in zip(column, study.found.status.tolist(), study.found.places.word.tolist(), strict=True):
        if status != FOUND or number >= TARGETS:
            assert word is None
            continue
        assert len(word) == len(set(word)) == COUNT and WORDS[number] not in word
        assert all(one.isalpha() and len(one) > 1 for one in word)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["[CLS]", "flu", "##s", "!", "a", "2020", "[unused1]", "masks"], ["flu", "masks"]),
        (["<s>", "Ġflu", "s", "Ġ!", "Ġa", "Ġmasks", "flu", "Ċ"], ["flu", "masks"]),
        (["<s>", "▁flu", "s", "▁", "▁a", "▁masks", "flu", "."], ["flu", "masks"]),
    ],
)
def test_words_are_tokens_that_begin_one(tokens: list[str], expected: list[str]) -> None:
    class Tokenizer:
        all_special_ids = (0,)

        def __len__(self) -> int:
            return len(tokens)

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [tokens[number] for number in ids]

        def convert_tokens_to_string(self, parts: list[str]) -> str:
            return "".join(parts).replace("Ġ", " ").replace("▁", " ")

    is_word, words = word_tokens(Tokenizer(), 10)
    assert [word for word in words.to_pylist() if word] == expected
    assert is_word.tolist() == [bool(word) for word in words.to_pylist()] and len(words) == 10

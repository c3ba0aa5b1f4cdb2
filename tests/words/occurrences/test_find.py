"""The tokens of an occurrence are the tokens of exactly that word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.words.occurrences import find as module
from bert_tweets.words.occurrences.find import STATUSES, Occurrences, align, find, open_corpus, sample, tweet_columns
from bert_tweets.words.occurrences.matching import words_of
from tests.helpers import make_shards

WORDS = ["no", "on", "007", "#metoo", "@user", "😷", "mask", "mask on", "photographer", "café", "null"]


def aligned(folder: Path, words: list[str]) -> tuple[Split, Occurrences, Any]:
    manifest = Manifest.read(folder)
    corpus, tokenizer = open_corpus(str(folder), manifest), load_tokenizer(str(folder / "tokenizer"))
    return corpus, align(corpus, find(corpus, words_of(words)), tokenizer, manifest.unknown_id), tokenizer


def rows_of(corpus: Split, found: Occurrences, tokenizer: Any) -> list[tuple[str, str, str, list[str]]]:
    """For each occurrence: id of the tweet, text of its span, status, its tokens in the shard."""
    table = tweet_columns(corpus, found.places.tweet, ["id", "text"])
    ends = np.cumsum(found.subword_counts)
    rows = []
    for row, (name, text) in enumerate(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)):
        ids = corpus.gather(found.places.tweet[row : row + 1]).input_ids
        positions = found.subword_positions[ends[row] - found.subword_counts[row] : ends[row]]
        span = text[found.places.start[row] : found.places.end[row]]
        tokens = tokenizer.convert_ids_to_tokens(ids[positions].tolist())
        rows.append((name, span, STATUSES[found.status[row]], tokens))
    return rows


def written(tokenizer: Any, text: str) -> str:
    """The tokens of a text joined together: normalised, without spaces."""
    return tokenizer.backend_tokenizer.normalizer.normalize_str(text).replace(" ", "")


def joined(tokens: list[str]) -> str:
    return "".join(token.removeprefix("##") for token in tokens)


FRAGMENTS = [
    "mask",
    "Mask on",
    "#metoo",
    "#mask",
    "@alice",
    "😷",
    "👩🏽‍💻",
    "no",
    "on!",
    "007",
    "null",
    "café",
    "cafe\u0301",
]
FRAGMENTS += ["photographer", "unmasked", "...", "grandmothers'", "(mask)", "mask😷", "ñandú", "1007", "漢字", "&amp;"]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=40).map(" ".join), min_size=8, max_size=8))
def test_the_tokens_spell_the_word(tokenizer_folder: Path, tmp_path_factory: Any, texts: list[str]) -> None:
    folder = make_shards(tmp_path_factory.mktemp("s"), texts, tokenizer=str(tokenizer_folder), max_length=40)
    corpus, found, tokenizer = aligned(folder, WORDS)
    for _, span, status, tokens in rows_of(corpus, found, tokenizer):
        if status == "found":
            assert joined(tokens) == written(tokenizer, span)
        else:
            assert not tokens


def test_every_kind_of_word_is_found(tokenizer_folder: Path, tmp_path: Path) -> None:
    texts = [
        "no mask on, said 007",
        "#MeToo and #metoos",
        "@alice: NULL! @bob_",
        "mask😷 (mask) #mask unmasked",
        "the photographer's café; CAFE\u0301",
        "nothing here",
    ]
    folder = make_shards(tmp_path, texts, tokenizer=str(tokenizer_folder))
    corpus, found, tokenizer = aligned(folder, [*WORDS, "absent"])
    rows = rows_of(corpus, found, tokenizer)
    expected = {
        "0": ["mask", "mask on", "no", "on", "007"],
        "1": ["#MeToo"],
        "2": ["@user", "NULL", "@user"],
        "3": ["mask", "mask", "😷"],
        "4": ["photographer", "café", "CAFÉ"],
        "5": [],
    }
    for name, spans in expected.items():
        assert sorted(span for tweet, span, *_ in rows if tweet == name) == sorted(spans)
    assert any(len(tokens) > 1 for *_, tokens in rows), "no word of several subwords is tested"
    assert {span for _, span, status, _ in rows if status == "unknown"} <= {"NULL", "007"}


def test_a_word_that_the_tokenizer_lacks_is_unknown(tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = make_shards(tmp_path, ["mask 🦤 mask", "mask 漢字"], tokenizer=str(tokenizer_folder))
    corpus, found, tokenizer = aligned(folder, ["🦤", "漢字", "mask"])
    statuses = [(span, status) for _, span, status, _ in rows_of(corpus, found, tokenizer)]
    assert sorted(statuses) == sorted([("🦤", "unknown"), ("漢字", "unknown")] + [("mask", "found")] * 3)


def test_the_edge_of_the_longest_tweet(tokenizer_folder: Path, tmp_path: Path, tiny_tokenizer: Any) -> None:
    word = "photographtheinternet"
    count = len(tiny_tokenizer.tokenize(word))
    assert count > 1
    # [CLS], fillers, the word's subwords, [SEP]: the word ends just before, at, and beyond the edge.
    texts = ["! " * (14 - count - late) + word for late in (1, 0, -1, -count)]
    folder = make_shards(tmp_path, texts, tokenizer=str(tokenizer_folder), max_length=16)
    corpus, found, tokenizer = aligned(folder, [word])
    rows = {name: (status, joined(tokens)) for name, _, status, tokens in rows_of(corpus, found, tokenizer)}
    whole, cut = ("found", word), ("truncated", "")
    assert rows == {"0": whole, "1": whole, "2": cut, "3": cut}


def test_byte_level_tokens(tmp_path: Path) -> None:
    """RoBERTa's tokens include the space before a word, and an emoji is several of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=262, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    texts = ["the mask 😷😷 mask!", "Mask on 😷 #metoo", "a café, @bob: photographer"] * 3
    backend.train_from_iterator(texts, trainer)
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), special, strict=True))
    for trim in (True, False):
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=trim)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            cls_token="<s>",
            sep_token="</s>",
            **{f"{role}_token": token for role, token in names.items()},
        )
        fast.save_pretrained(tmp_path / f"bpe-{trim}")
        folder = make_shards(tmp_path / str(trim), texts, tokenizer=str(tmp_path / f"bpe-{trim}"))
        corpus, found, tokenizer = aligned(folder, WORDS)
        rows = rows_of(corpus, found, tokenizer)
        assert len(rows) == 36
        assert all(len(tokens) > 1 for _, span, _, tokens in rows if span == "😷")
        for _, span, status, tokens in rows:
            assert status == "found"
            assert not (trim and "Ġ" in tokens)
            # With trimmed offsets, a token that is only the space in a phrase covers no character.
            assert tokenizer.convert_tokens_to_string(tokens).replace(" ", "") == span.replace(" ", "")


def test_tokens_of_another_tokenizer_are_rejected(
    shards: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest.read(shards)
    corpus = open_corpus(str(shards), manifest)
    places = find(corpus, words_of(["mask"]))
    backend = module.private_backend(load_tokenizer(str(shards / "tokenizer")))
    from tokenizers import normalizers

    backend.normalizer = normalizers.Sequence([normalizers.Replace("mask", "virus"), backend.normalizer])
    monkeypatch.setattr(module, "private_backend", lambda _: backend)
    with pytest.raises(AssertionError, match=r"differ from those in its shard|fewer tokens"):
        align(corpus, places, tiny_tokenizer, manifest.unknown_id)


def test_chunks_change_nothing(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole, _ = aligned(shards, ["mask", "the"])
    monkeypatch.setattr(module, "CHUNK_TWEETS", 7)
    _, chunked, _ = aligned(shards, ["mask", "the"])
    for name in ("status", "cluster", "subword_counts", "subword_positions"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(chunked, name))
    slices = list(module.tweet_chunks(chunked.places.tweet))
    assert [s.start for s in slices[1:]] == [s.stop for s in slices[:-1]] and slices[-1].stop == len(whole)


def test_both_splits_are_searched(shards: Path) -> None:
    manifest = Manifest.read(shards)
    corpus = open_corpus(str(shards), manifest)
    places = find(corpus, words_of(["mask"]))
    assert len(corpus) == manifest.rows("train") + manifest.rows("validation") == 400
    assert places.tweet.max() >= manifest.rows("train") > places.tweet.min()


def test_a_sample_depends_on_seed_and_word_alone(shards: Path) -> None:
    corpus = open_corpus(str(shards), Manifest.read(shards))

    def drawn(texts: list[str], seed: int) -> set[tuple[int, int]]:
        words = words_of(texts)
        some = sample(find(corpus, words), [word.key for word in words], 10, seed)
        assert (np.bincount(some.word) == 10).all()
        mine = some.word == texts.index("mask")
        return set(zip(some.tweet[mine].tolist(), some.start[mine].tolist(), strict=True))

    assert drawn(["mask"], 0) == drawn(["the", "mask"], 0) == drawn(["mask", "virus", "the"], 0)
    assert drawn(["mask"], 0) != drawn(["mask"], 1)

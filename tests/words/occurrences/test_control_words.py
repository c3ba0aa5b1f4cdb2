"""Control words are words of the tweets, as frequent as the asked one, and stand where they are said to stand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.distributed.work_split import WorkSplit
from bert_tweets.words.embedding.neighbours import words_in
from bert_tweets.words.occurrences import control_words as module
from bert_tweets.words.occurrences.bottom_k import BottomKSampler, salts_of
from bert_tweets.words.occurrences.control_words import (
    MatchTarget,
    choose_controls,
    count_words,
    find_controls,
    summed,
    with_spans,
)
from bert_tweets.words.occurrences.find import Places, open_corpus
from bert_tweets.words.occurrences.matching import Asked, fold, words_of
from bert_tweets.words.occurrences.queries import Lemma, Pattern
from tests.helpers import make_shards

FRAGMENTS = [
    "mask",
    "Mask",
    "MASK",
    "virus",
    "#virus",
    "@user",
    "a",
    "ab",
    "é9",
    "x_y",
    "Straße",
    "don't",
    "😷",
    "...",
    "क्या",
]
FRAGMENTS += ["漢字", "http", "virus,virus", "virus😷mask", "(mask)", "co-op", "1st"]


def one_piece(words: list[str]) -> list[int]:
    return [1] * len(words)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=12).map(" ".join), min_size=6, max_size=12))
def test_counts_and_places_are_those_of_a_look_at_each_tweet(
    tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = make_shards(tmp_path_factory.mktemp("s"), texts, tokenizer=str(tokenizer_folder), shard_tweets=4)
    corpus = open_corpus(str(folder), Manifest.read(folder))
    expected = Counter(
        word for text in corpus.texts(np.arange(len(corpus))) for word, *_ in words_in(text) if word[0] not in "#@"
    )
    counted = summed([count_words(corpus, WorkSplit(rank, 2)) for rank in range(2)])
    assert counted.equals(count_words(corpus))
    forms: Counter[str] = Counter()
    for form, count in zip(counted.column("values").to_pylist(), counted.column("counts").to_pylist(), strict=True):
        forms[fold(form)] += count
    assert forms == expected

    everything = choose_controls(counted, [], [MatchTarget(n, 1, None) for n in {1, 2, 4, 8, 16, 32}], 99, one_piece, 0)
    assert {one.text: one.matches for one in everything} == {
        word: count for word, count in expected.items() if word != "http" and count <= 64
    }
    ordinals = find_controls(corpus, everything, BottomKSampler(salts_of(0, [one.key for one in everything]), 0))
    places = Places.join([with_spans(corpus, ordinals, WorkSplit(rank, 2)) for rank in range(2)])
    found = Counter(
        zip(places.tweet.tolist(), places.word.tolist(), places.start.tolist(), places.end.tolist(), strict=True)
    )
    number = {one.text: index for index, one in enumerate(everything)}
    assert found == Counter(
        (tweet, number[word], start, end)
        for tweet, text in enumerate(corpus.texts(np.arange(len(corpus))))
        for word, start, end in words_in(text)
        if word in number
    )


def counts_of(**words: int) -> object:
    import pyarrow as pa

    return pa.table({"values": pa.array(list(words)), "counts": pa.array(list(words.values()), pa.int64())})


def test_controls_are_like_the_asked_word(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {f"w{chr(97 + number // 26)}{chr(97 + number % 26)}": number for number in range(1, 300)}
    pieces = {word: 1 + len(word) % 2 + number % 5 for number, word in enumerate(words)}

    def pieces_of(forms: list[str]) -> list[int]:
        return [pieces[form] for form in forms]

    asked = words_of(["wab", "phrase of words"])
    wanted = [MatchTarget(100, 3, None), MatchTarget(20, 2, None)]
    chosen = choose_controls(counts_of(**words), asked, wanted, 12, pieces_of, 0)
    for one in wanted:
        mine = [c for c in chosen if one.matches / 2 <= c.matches <= 2 * one.matches]
        mine = [c for c in mine if min(c.pieces, 3) == min(one.pieces, 3)]
        low, high, kind = one.matches / 2, 2 * one.matches, min(one.pieces, 3)
        alike = [word for word, n in words.items() if low <= n <= high and min(pieces[word], 3) == kind]
        assert len(mine) >= min(12, len(set(alike) - {"wab"})) > 5
    assert len(chosen) <= 24 and "wab" not in {one.text for one in chosen}
    assert {one.text for one in chosen} != {
        one.text for one in choose_controls(counts_of(**words), asked, wanted, 12, pieces_of, 1)
    }
    # Another asked word changes nothing for this one; two that are alike share theirs.
    alone = choose_controls(counts_of(**words), asked[:1], wanted[:1], 12, pieces_of, 0)
    assert set(alone) <= set(chosen) and len(alone) == 12
    assert alone == choose_controls(counts_of(**words), asked[:1], [wanted[0], wanted[0]], 12, pieces_of, 0)

    monkeypatch.setattr(module, "part_of_speech", lambda word: "noun" if words[word] % 2 else "verb")
    nouns = choose_controls(counts_of(**words), [], [MatchTarget(100, 3, "noun")], 12, pieces_of, 0)
    assert {one.part_of_speech for one in nouns} == {"noun"} and len(nouns) == 12
    everything = choose_controls(counts_of(**words), [], [MatchTarget(100, 3, "noun")], 999, pieces_of, 0)
    assert {one.part_of_speech for one in everything} == {"noun", "verb"}


@pytest.mark.parametrize("asked", [Lemma("Health", tuple(words_of(["vaccine"]))), Pattern("health", "vacc\\w+")])
def test_no_control_has_the_name_of_what_is_asked(asked: Asked) -> None:
    """`health` for vaccine: the table would hold the word health under the same name."""
    counted = counts_of(health=10, vaccine=10, other=10)
    assert [one.text for one in choose_controls(counted, [asked], [MatchTarget(10, 1, None)], 9, one_piece, 0)] == [
        "other"
    ]


def test_a_word_that_was_not_found_has_no_controls() -> None:
    assert (
        choose_controls(counts_of(mask=3), [], [MatchTarget(0, 0, None), MatchTarget(3, 0, None)], 9, one_piece, 0)
        == []
    )


def test_parts_of_speech_come_out_of_the_lexicon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.machinery import ModuleSpec

    from bert_tweets.words.occurrences import part_of_speech

    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "en-lexicon.txt").write_text(";;; a remark\nmask NN\nran VBD\nmy PRP$\nof IN\n\nbad\n")
    spec = ModuleSpec("textblob", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    for there, said in ((spec, ["noun", "verb", "pronoun", "other", None]), (None, [None] * 5)):
        part_of_speech._lexicon.cache_clear()
        monkeypatch.setattr(part_of_speech, "find_spec", lambda _, there=there: there)
        assert [part_of_speech.part_of_speech(word) for word in ("mask", "ran", "my", "of", "virus")] == said
    part_of_speech._lexicon.cache_clear()

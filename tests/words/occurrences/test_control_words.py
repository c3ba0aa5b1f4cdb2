"""Control words are words of the tweets, about as frequent as the chosen word, and their places are correct."""

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
    MatchCriteria,
    choose_controls,
    count_words,
    find_controls,
    sum_counts,
    with_spans,
)
from bert_tweets.words.occurrences.find import Places, open_corpus
from bert_tweets.words.occurrences.matching import ChosenWord, fold, words_of
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


def one_subword(words: list[str]) -> list[int]:
    return [1] * len(words)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=12).map(" ".join), min_size=6, max_size=12))
def test_counts_and_places_agree_with_a_loop_over_tweets(
    tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = make_shards(tmp_path_factory.mktemp("s"), texts, tokenizer=str(tokenizer_folder), shard_tweets=4)
    corpus = open_corpus(str(folder), Manifest.read(folder))
    expected = Counter(
        word for text in corpus.texts(np.arange(len(corpus))) for word, *_ in words_in(text) if word[0] not in "#@"
    )
    counted = sum_counts([count_words(corpus, WorkSplit(rank, 2)) for rank in range(2)])
    assert counted.equals(count_words(corpus))
    forms: Counter[str] = Counter()
    for form, count in zip(counted.column("values").to_pylist(), counted.column("counts").to_pylist(), strict=True):
        forms[fold(form)] += count
    assert forms == expected

    everything = choose_controls(
        counted, [], [MatchCriteria(n, 1, None) for n in {1, 2, 4, 8, 16, 32}], 99, one_subword, 0
    )
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


def test_control_words_resemble_the_chosen_word(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {f"w{chr(97 + number // 26)}{chr(97 + number % 26)}": number for number in range(1, 300)}
    subwords = {word: 1 + len(word) % 2 + number % 5 for number, word in enumerate(words)}

    def count_subwords(forms: list[str]) -> list[int]:
        return [subwords[form] for form in forms]

    chosen_words = words_of(["wab", "phrase of words"])
    criteria = [MatchCriteria(100, 3, None), MatchCriteria(20, 2, None)]
    chosen = choose_controls(counts_of(**words), chosen_words, criteria, 12, count_subwords, 0)
    for one in criteria:
        mine = [c for c in chosen if one.matches / 2 <= c.matches <= 2 * one.matches]
        mine = [c for c in mine if min(c.subwords, 3) == min(one.subwords, 3)]
        low, high, kind = one.matches / 2, 2 * one.matches, min(one.subwords, 3)
        alike = [word for word, n in words.items() if low <= n <= high and min(subwords[word], 3) == kind]
        assert len(mine) >= min(12, len(set(alike) - {"wab"})) > 5
    assert len(chosen) <= 24 and "wab" not in {one.text for one in chosen}
    assert {one.text for one in chosen} != {
        one.text for one in choose_controls(counts_of(**words), chosen_words, criteria, 12, count_subwords, 1)
    }
    # Another chosen word changes nothing for this one; two similar ones share their control words.
    alone = choose_controls(counts_of(**words), chosen_words[:1], criteria[:1], 12, count_subwords, 0)
    assert set(alone) <= set(chosen) and len(alone) == 12
    assert alone == choose_controls(
        counts_of(**words), chosen_words[:1], [criteria[0], criteria[0]], 12, count_subwords, 0
    )

    monkeypatch.setattr(module, "part_of_speech", lambda word: "noun" if words[word] % 2 else "verb")
    nouns = choose_controls(counts_of(**words), [], [MatchCriteria(100, 3, "noun")], 12, count_subwords, 0)
    assert {one.part_of_speech for one in nouns} == {"noun"} and len(nouns) == 12
    everything = choose_controls(counts_of(**words), [], [MatchCriteria(100, 3, "noun")], 999, count_subwords, 0)
    assert {one.part_of_speech for one in everything} == {"noun", "verb"}


@pytest.mark.parametrize("target", [Lemma("Health", tuple(words_of(["vaccine"]))), Pattern("health", "vacc\\w+")])
def test_no_control_word_has_the_name_of_a_chosen_word(target: ChosenWord) -> None:
    """`health` for vaccine: the word health would have the same name in the table."""
    counted = counts_of(health=10, vaccine=10, other=10)
    chosen = choose_controls(counted, [target], [MatchCriteria(10, 1, None)], 9, one_subword, 0)
    assert [one.text for one in chosen] == ["other"]


def test_a_word_that_was_not_found_has_no_control_words() -> None:
    criteria = [MatchCriteria(0, 0, None), MatchCriteria(3, 0, None)]
    assert choose_controls(counts_of(mask=3), [], criteria, 9, one_subword, 0) == []


def test_parts_of_speech_are_those_of_the_lexicon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.machinery import ModuleSpec

    from bert_tweets.words.occurrences import part_of_speech

    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "en-lexicon.txt").write_text(";;; a remark\nmask NN\nran VBD\nmy PRP$\nof IN\n\nbad\n")
    spec = ModuleSpec("textblob", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    for found, expected in ((spec, ["noun", "verb", "pronoun", "other", None]), (None, [None] * 5)):
        part_of_speech._lexicon.cache_clear()
        monkeypatch.setattr(part_of_speech, "find_spec", lambda _, found=found: found)
        assert [part_of_speech.part_of_speech(word) for word in ("mask", "ran", "my", "of", "virus")] == expected
    part_of_speech._lexicon.cache_clear()

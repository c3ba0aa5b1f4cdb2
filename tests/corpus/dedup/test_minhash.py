"""Copies and near-duplicates are found by hashes that never change; sketches estimate the similarity of sets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.corpus.dedup import minhash
from bert_tweets.corpus.dedup.minhash import MinHash, banding, jaccard

texts_of_words = st.lists(st.text("abcdé😷", min_size=1, max_size=4), max_size=12).map(" ".join)

KNOWN_EXACT = [
    "0x87304be6e939f662",
    "0x6793246d95837d79",
    "0xb4b2797457a0a6e4",
    "0xd9ebc7dfdf4bb139",
]
KNOWN_BAND = [
    "0x7df7231a39942038",
    "0xf8ddadef64b8a6d9",
    "0x771afafd860d4fa6",
    "0x5fc96c21557c996c",
]
KNOWN_BANDS = [
    "0xf01ca4e6848c1be2",
    "0xfd3c900bb148eddf",
    "0x1b25d2c274f28a2b",
    "0x701590d878bae967",
]
KNOWN_SKETCH = [
    "0x500844200200000",
    "0x2100000000000000",
    "0x100000008000000",
    "0x180000000000000",
]


def hashed(texts: list[str], shingle_words: int = 2) -> minhash.Keys:
    return MinHash(0.7, shingle_words)(pa.array(texts, pa.string()))


def shingles(text: str, shingle_words: int) -> set[tuple[str, ...]]:
    words = text.split(" ")
    return {tuple(words[at : at + shingle_words]) for at in range(max(1, len(words) - shingle_words + 1))}


def test_the_split_depends_only_on_text_and_seed_and_has_the_requested_size():
    hashes = minhash.hash_keys(pa.array([f"tweet {number}" for number in range(20_000)]))
    drawn = minhash.in_validation_split(hashes, 1, 0.1)
    assert 0.09 < drawn.mean() < 0.11
    assert (minhash.in_validation_split(hashes[::-1], 1, 0.1)[::-1] == drawn).all()
    other = minhash.in_validation_split(hashes, 2, 0.1)
    assert 0.005 < (other & drawn).mean() < 0.015
    assert not minhash.in_validation_split(hashes, 1, 0.0).any()


def test_keys_are_what_they_were_in_every_version():
    keys = hashed(["stay home and wear a mask", "mask", "", "maske 😷"])
    assert [hex(value) for value in keys.exact] == KNOWN_EXACT
    assert [hex(value) for value in keys.bands[:, 0]] == KNOWN_BAND
    assert [hex(value) for value in np.bitwise_xor.reduce(keys.bands, axis=1)] == KNOWN_BANDS
    assert [hex(value) for value in np.bitwise_xor.reduce(keys.sketch, axis=1)] == KNOWN_SKETCH


@settings(deadline=None)
@given(st.lists(texts_of_words, max_size=8), texts_of_words, st.integers(1, 4))
def test_the_keys_of_a_text_do_not_depend_on_other_texts(others: list[str], text: str, shingle_words: int) -> None:
    alone, among = hashed([text], shingle_words), hashed([*others, text, *others], shingle_words)
    for column in ("exact", "bands", "sketch"):
        assert (getattr(alone, column)[0] == getattr(among, column)[len(others)]).all()


def test_the_block_size_does_not_change_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"number {number % 7} is {number}" for number in range(50)]
    whole = hashed(texts)
    monkeypatch.setattr(minhash, "_BLOCK_ROWS", 7)
    cut = hashed(texts)
    assert (whole.bands == cut.bands).all() and (whole.sketch == cut.sketch).all()


@settings(deadline=None)
@given(texts_of_words, texts_of_words, st.integers(1, 4))
def test_equal_sets_of_shingles_have_equal_bands_and_others_do_not(left: str, right: str, shingle_words: int) -> None:
    keys = hashed([left, right], shingle_words)
    equal = shingles(left, shingle_words) == shingles(right, shingle_words)
    assert (keys.bands[0] == keys.bands[1]).all() == equal
    assert (keys.sketch[0] == keys.sketch[1]).all() or not equal
    assert (keys.exact[0] == keys.exact[1]) == (left == right)


def test_no_texts_have_no_keys():
    keys = hashed([])
    assert keys.exact.shape == (0,) and keys.bands.shape == (0, banding(0.7)[0]) and keys.sketch.shape == (0, 4)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_find_nine_of_ten_pairs_at_the_threshold(threshold: float) -> None:
    bands, band_rows = banding(threshold)
    assert 1 - (1 - threshold**band_rows) ** bands >= 0.9
    assert bands <= minhash.MOST_BANDS and 1 <= band_rows <= minhash.MOST_BAND_ROWS


@pytest.mark.parametrize("similarity", [0.4, 0.7, 0.9])
def test_a_band_is_shared_as_often_as_minhash_promises(similarity: float) -> None:
    """Pairs of sets of 20 shingles of one word; the s-curve, within the error of 4,000 pairs."""
    common = round(40 * similarity / (1 + similarity))
    draw, texts = np.random.default_rng(0), []
    for _ in range(4000):
        words = [f"w{word}" for word in draw.choice(10**9, 40 - common)]
        texts += [" ".join(words[:20]), " ".join(words[20 - common :])]
    exact = common / (40 - common)
    keys = hashed(texts, 1)
    shared = keys.bands[::2] == keys.bands[1::2]
    bands, band_rows = banding(0.7)
    assert abs(shared.mean() - exact**band_rows) < 0.02
    assert abs(shared.any(axis=1).mean() - (1 - (1 - exact**band_rows) ** bands)) < 0.03


@pytest.mark.parametrize(("size", "tolerance"), [(3, 0.02), (12, 0.02), (30, 0.03), (100, 0.06), (1000, 0.15)])
def test_sketches_estimate_the_similarity_of_sets(size: int, tolerance: float) -> None:
    draw = np.random.default_rng(size)
    texts, exact = [], []
    for _ in range(400):
        common = int(draw.integers(size // 2, size + 1))
        words = [f"w{word}" for word in draw.choice(10**9, 2 * size - common, replace=False)]
        texts += [" ".join(words[:size]), " ".join(words[size - common :])]
        exact.append(common / len(words))
    sketch = hashed(texts, 1).sketch
    error = jaccard(sketch[::2], sketch[1::2]) - np.array(exact)
    assert np.abs(error).mean() < tolerance
    assert abs(error.mean()) < tolerance / 2


def test_sketches_of_strangers_are_far_from_any_threshold():
    texts = [" ".join(f"{number} {place}w" for place in range(15)) for number in range(2000)]
    sketch = hashed(texts).sketch
    assert jaccard(sketch[::2], sketch[1::2]).max() < 0.3


@given(st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8))
def test_similarity_is_symmetric_and_between_zero_and_one(words: list[int]) -> None:
    left, right = np.array(words, np.uint64).reshape(2, 1, 4)
    assert 0 <= jaccard(left, right)[0] <= 1
    assert jaccard(left, right) == jaccard(right, left)
    assert jaccard(left, left)[0] == 1


def test_a_repeated_shingle_counts_once():
    """`ha ha` two or three times is the same set; an odd sketch would distinguish even from odd."""
    keys = hashed(["ha ha ha so", "ha ha ha ha so"])
    assert (keys.bands[0] == keys.bands[1]).all() and (keys.sketch[0] == keys.sketch[1]).all()
    assert keys.exact[0] != keys.exact[1]

"""Masks select only ordinary tokens, in the stated proportions, as a function of the token's address only."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.data.batches import MicroBatch
from bert_tweets.data.masking import Masking, philox, philox_first_word
from bert_tweets.data.packing import PackedRows
from tests.devices import each_device

VOCABULARY, SPECIALS, MASK = 1000, [0, 1, 2, 3, 4], 4


def make_masking(seed: int = 7, probability: float = 0.15, whole_word: bool = False) -> Masking:
    is_ordinary = torch.ones(VOCABULARY, dtype=torch.bool)
    is_ordinary[SPECIALS] = False
    return Masking(seed, probability, whole_word, MASK, torch.nonzero(is_ordinary).squeeze(1), is_ordinary)


def batch_of(rows: int, length: int = 128, epoch: int = 0) -> MicroBatch:
    """A tweet a row: [CLS] ordinary… [SEP] padding…, words of up to three pieces."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(len(SPECIALS), VOCABULARY, (rows, length), generator=generator)
    ids[:, 0], ids[:, -11], ids[:, -10:] = 2, 3, 0
    segments = torch.arange(1, rows + 1)[:, None].repeat(1, length)
    segments[:, -10:] = 0
    positions = torch.arange(length).repeat(rows, 1)
    starts = torch.rand(rows, length, generator=generator) < 0.6
    starts[:, :2], starts[:, -11:] = True, True
    words = torch.where(starts, positions, -1).cummax(dim=1).values
    return MicroBatch(
        ids.int(),
        positions.int(),
        segments.int(),
        words.int(),
        torch.arange(-1, rows).clamp(min=0),
        torch.full((rows + 1,), epoch),
    )


@each_device
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(
    device: str, counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    words = philox(tuple(torch.tensor([c], device=device) for c in counter), key)  # type: ignore[arg-type]
    assert tuple(int(word) for word in words) == expected
    assert int(philox_first_word(tuple(np.array([c], np.uint64) for c in counter), key)[0]) == expected[0]  # type: ignore[arg-type]


@given(
    counter=st.tuples(*[st.lists(st.integers(0, 2**32 - 1), min_size=5, max_size=5)] * 4),
    key=st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    shared=st.tuples(*[st.booleans()] * 4),
)
def test_the_first_word_on_the_cpu_is_that_of_philox(
    counter: tuple[list[int], ...], key: tuple[int, int], shared: tuple[bool, ...]
) -> None:
    """For any parts of the counter that are a single value, and without changing the arguments."""
    parts = [values[:1] if once else values for values, once in zip(counter, shared, strict=True)]
    arrays = [np.array(part, np.uint64) for part in parts]
    mine = philox_first_word(tuple(arrays), key)  # type: ignore[arg-type]
    expected = philox(tuple(torch.tensor(part) for part in parts), key)[0]  # type: ignore[arg-type]
    assert mine.tolist() == expected.tolist()
    assert [array.tolist() for array in arrays] == parts


@pytest.mark.parametrize("whole_word", [False, True])
@pytest.mark.parametrize("epochs", [[3], [3, 4]])
def test_counts_on_the_cpu_equal_the_selection(whole_word: bool, epochs: list[int]) -> None:
    batch = batch_of(300)
    tweets = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(300) * 2**27])
    epoch = torch.cat([torch.zeros(1, dtype=torch.long), torch.tensor(epochs).repeat(300 // len(epochs))])
    moved = replace(batch, tweet_index=tweets, epoch=epoch)
    names = ("input_ids", "position_ids", "segment_ids", "word_positions")
    rows = PackedRows(*(getattr(batch, name).numpy() for name in names))
    masking = make_masking(whole_word=whole_word)
    counts = masking.count_by_row(rows, rows.segment_ids - np.int64(1), tweets[1:].numpy(), epoch[1:].numpy())
    assert counts.tolist() == masking.select(moved).sum(dim=1).tolist()


@each_device
@pytest.mark.parametrize(("whole_word", "checksum"), [(False, 2392440231), (True, 2349485352)])
def test_every_device_draws_the_same_masks(device: str, whole_word: bool, checksum: int) -> None:
    """Bit by bit; of tweets and seeds beyond 32 bits too."""
    batch = batch_of(500, epoch=3)
    batch = replace(batch, tweet_index=batch.tweet_index * 2**27)
    masking = make_masking(seed=2**40 + 5, whole_word=whole_word)
    expected = masking.apply(batch)
    found = masking.to(torch.device(device)).apply(batch.to(torch.device(device)))
    assert all(torch.equal(mine.cpu(), theirs) for mine, theirs in zip(found, expected, strict=True))
    assert zlib.crc32(found[0].cpu().numpy().tobytes()) == checksum


@pytest.mark.slow
def test_philox_is_the_same_when_compiled() -> None:
    counter = tuple(torch.arange(64) * step for step in (1, 3, 5, 7))
    compiled = torch.compile(philox, fullgraph=True)(counter, (123, 456))
    assert all(torch.equal(a, b) for a, b in zip(compiled, philox(counter, (123, 456)), strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("whole_word", [False, True])
def test_only_ordinary_tokens_are_selected_or_drawn(whole_word: bool) -> None:
    batch, masking = batch_of(2000), make_masking(whole_word=whole_word)
    corrupted, selected = masking.apply(batch)
    special = torch.isin(batch.input_ids, torch.tensor(SPECIALS))
    assert not (selected & special).any()
    assert torch.equal(corrupted[~selected], batch.input_ids[~selected].long())
    drawn = corrupted[selected & (corrupted != MASK)]
    assert not torch.isin(drawn, torch.tensor(SPECIALS)).any()
    assert torch.equal(selected, masking.select(batch))


@pytest.mark.parametrize("whole_word", [False, True])
def test_proportions_over_a_million_tokens(whole_word: bool) -> None:
    batch = batch_of(10_000)
    corrupted, selected = make_masking(whole_word=whole_word).apply(batch)
    maskable = (batch.segment_ids > 0) & ~torch.isin(batch.input_ids, torch.tensor(SPECIALS))
    tokens, chosen = int(maskable.sum()), int(selected.sum())
    assert tokens > 10**6

    def close(count: int, of: int, share: float, dependence: float = 1.0) -> bool:
        return abs(count / of - share) < 3 * math.sqrt(dependence * share * (1 - share) / of)

    # Pieces of a word are selected together: the variance grows by the mean squared word over the mean word.
    words = batch.tweet_index[batch.segment_ids] * 1000 + batch.word_positions
    sizes = torch.unique(words[maskable], return_counts=True)[1].double()
    assert close(chosen, tokens, 0.15, float((sizes**2).mean() / sizes.mean()) if whole_word else 1.0)
    masked = int((corrupted[selected] == MASK).sum())
    kept = int((corrupted[selected] == batch.input_ids[selected]).sum())
    ordinary = VOCABULARY - len(SPECIALS)
    assert close(masked, chosen, 0.8)
    assert close(kept, chosen, 0.1 + 0.1 / ordinary)
    assert close(chosen - masked - kept, chosen, 0.1 - 0.1 / ordinary)


def test_random_replacements_cover_the_ordinary_vocabulary_evenly() -> None:
    batch = batch_of(10_000)
    corrupted, selected = make_masking(probability=0.9).apply(batch)
    changed = selected & (corrupted != MASK) & (corrupted != batch.input_ids)
    counts = torch.bincount(corrupted[changed], minlength=VOCABULARY)[len(SPECIALS) :].double()
    expected = counts.mean()
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    degrees = VOCABULARY - len(SPECIALS) - 1
    assert abs(chi_squared - degrees) < 4 * math.sqrt(2 * degrees)


def test_masks_depend_only_on_seed_epoch_tweet_and_position() -> None:
    batch, masking = batch_of(64), make_masking()
    selected = masking.select(batch)
    rows = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    moved = MicroBatch(
        *(getattr(batch, name)[rows] for name in ("input_ids", "position_ids", "segment_ids", "word_positions")),
        batch.tweet_index,
        batch.epoch,
    )
    assert torch.equal(masking.select(moved), selected[rows])
    assert not torch.equal(masking.select(batch_of(64, epoch=1)), selected)
    assert not torch.equal(make_masking(seed=8).select(batch), selected)
    assert not torch.equal(make_masking(seed=7 + 2**32).select(batch), selected)
    assert not torch.equal(selected[0, 1:-11], selected[1, 1:-11])


def test_masks_are_the_same_in_every_version() -> None:
    selected = make_masking().select(batch_of(2))
    assert torch.nonzero(selected[0]).flatten().tolist()[:8] == KNOWN


def test_whole_words_are_selected_together() -> None:
    batch = batch_of(500)
    selected = make_masking(whole_word=True).select(batch)
    first = selected.gather(1, batch.word_positions.long())
    ordinary = (batch.segment_ids > 0) & ~torch.isin(batch.input_ids, torch.tensor(SPECIALS))
    assert torch.equal(selected & ordinary, first & ordinary)
    assert (selected & (batch.word_positions != batch.position_ids)).any()


# Positions that seed 7 selects in tweet 0 of epoch 0.
KNOWN = [4, 6, 16, 21, 27, 35, 43, 48]

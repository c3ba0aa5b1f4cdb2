"""The loader: whatever the ranks, micro-batches and workers, a step is the same tweets under the same masks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split, Tweets, open_split
from bert_tweets.data import loader
from bert_tweets.data.batches import Step
from bert_tweets.data.layout import FixedShape, Layout, fixed_shape, validation_batch
from bert_tweets.data.loader import StepLoader
from bert_tweets.data.masking import masking_for
from bert_tweets.data.packing import best_fit
from bert_tweets.data.permutation import Stream
from bert_tweets.data.sampler import Sampler, SamplerState
from bert_tweets.prepare import prepare
from tests.helpers import make_shards

BATCH = 48


class Meeting:
    """Ranks as threads: `gather` waits until each has spoken."""

    def __init__(self, world_size: int):
        self.barrier = threading.Barrier(world_size, timeout=60)
        self.said: list[dict[int, list[int]]] = []

    def gather_of(self, rank: int) -> Callable[[list[int]], Callable[[], list[list[int]]]]:
        turn = iter(range(10**6))

        def gather(values: list[int]) -> Callable[[], list[list[int]]]:
            round_number = next(turn)
            while len(self.said) <= round_number:
                self.said.append({})
            self.said[round_number][rank] = values

            def wait() -> list[list[int]]:
                self.barrier.wait()
                heard = self.said[round_number]
                return [heard[other] for other in sorted(heard)]

            return wait

        return gather


def steps_of(
    shards: Path,
    world_size: int,
    tokens_per_device: int = 4096,
    workers: int = 0,
    whole_word: bool = False,
    blocks: tuple[int, int] = (0, 0),
) -> list[list[Step]]:
    """Every rank's steps over two and a half epochs."""
    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "train")
    stream = Stream(len(split), 3, BATCH, len(split) * 5 // 2, *blocks)
    masking = masking_for(manifest, 3, 0.15, whole_word)
    layout = Layout(manifest.max_length, tokens_per_device, manifest.pad_id)
    meeting = Meeting(world_size)

    def run(rank: int) -> list[Step]:
        gather = meeting.gather_of(rank)
        return list(StepLoader(split, stream, masking, layout, rank, world_size, gather, workers).steps())

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run, range(world_size)))


def content(shards: Path, by_rank: list[list[Step]], whole_word: bool = False) -> list[np.ndarray]:
    """Each step without its layout: a sorted row (epoch, tweet, position, token, corrupted, masked) per token."""
    masking = masking_for(Manifest.read(shards), 3, 0.15, whole_word)
    contents = []
    for step in zip(*by_rank, strict=True):
        parts = []
        for batch in (batch for of_rank in step for batch in of_rank.micro_batches):
            corrupted, selected = masking.apply(batch)
            real = batch.segment_ids > 0
            tweet, epoch = batch.tweet_index[batch.segment_ids], batch.epoch[batch.segment_ids]
            columns = (epoch, tweet, batch.position_ids, batch.input_ids, corrupted, selected)
            parts.append(torch.stack([column[real].long() for column in columns], dim=1))
            assert int(selected.sum()) <= batch.masked_capacity
        rows = torch.cat(parts).numpy()
        contents.append(rows[np.lexsort(rows[:, 2::-1].T)])
        for of_rank in step:
            assert of_rank.masked_tokens == rows[:, 5].sum()
            assert of_rank.tokens == len(rows)
            assert of_rank.tweets == len(np.unique(rows[:, :2], axis=0))
    return contents


@pytest.fixture(scope="module")
def reference(shards: Path) -> list[np.ndarray]:
    return content(shards, steps_of(shards, 1))


def test_the_steps_are_the_stream(shards: Path, reference: list[np.ndarray]) -> None:
    manifest = Manifest.read(shards)
    rows, tokens = manifest.rows("train"), manifest.tokens("train")
    everything = np.concatenate(reference)
    assert len(reference) == -(-(rows * 5 // 2) // BATCH)
    for epoch in (0, 1):
        seen = everything[everything[:, 0] == epoch]
        assert len(seen) == tokens and len(np.unique(seen[:, :3], axis=0)) == tokens
    straddling = [step for step in reference if len(np.unique(step[:, 0])) == 2]
    assert len(straddling) == 2
    # Another epoch masks other tokens of the same tweets.
    first, second = (everything[everything[:, 0] == epoch] for epoch in (0, 1))
    order_first, order_second = (np.lexsort(part[:, 2:0:-1].T) for part in (first, second))
    assert (first[order_first][:, 5] != second[order_second][:, 5]).any()


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_the_same_at_any_world_size(shards: Path, reference: list[np.ndarray], world_size: int) -> None:
    by_rank = steps_of(shards, world_size)
    for mine, expected in zip(content(shards, by_rank), reference, strict=True):
        assert np.array_equal(mine, expected)


@pytest.mark.parametrize("tokens_per_device", [128, 300])
def test_the_same_at_any_accumulation(shards: Path, reference: list[np.ndarray], tokens_per_device: int) -> None:
    by_rank = steps_of(shards, 2, tokens_per_device)
    assert max(len(step.micro_batches) for step in by_rank[0]) > 1
    for mine, expected in zip(content(shards, by_rank), reference, strict=True):
        assert np.array_equal(mine, expected)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_with_any_number_of_workers(
    shards: Path, reference: list[np.ndarray], world_size: int, workers: int
) -> None:
    for mine, expected in zip(content(shards, steps_of(shards, world_size, workers=workers)), reference, strict=True):
        assert np.array_equal(mine, expected)


@pytest.mark.parametrize("at_once", [1, 100, 10**6])
def test_the_same_however_many_steps_are_made_in_one_go(
    shards: Path, reference: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(loader, "_TWEETS_AT_ONCE", at_once)
    for mine, expected in zip(content(shards, steps_of(shards, 2)), reference, strict=True):
        assert np.array_equal(mine, expected)


def test_blocks_are_the_same_tweets_in_another_order_at_any_world_size(
    shards: Path, reference: list[np.ndarray]
) -> None:
    alone, three = (content(shards, steps_of(shards, size, blocks=(16, 4))) for size in (1, 3))
    assert all(np.array_equal(mine, expected) for mine, expected in zip(three, alone, strict=True))
    assert not np.array_equal(alone[0], reference[0])
    first_epochs = [rows[rows[:, 0] == 0] for rows in map(np.concatenate, (alone, reference))]
    one, other = (rows[np.lexsort(rows[:, 2::-1].T)] for rows in first_epochs)
    assert np.array_equal(one, other)


def test_whole_words_are_masked_the_same_at_any_world_size(shards: Path) -> None:
    alone, three = (content(shards, steps_of(shards, size, whole_word=True), whole_word=True) for size in (1, 3))
    assert all(np.array_equal(mine, expected) for mine, expected in zip(three, alone, strict=True))


def test_ranks_make_the_same_number_of_micro_batches_of_the_same_rows(shards: Path) -> None:
    for step in zip(*steps_of(shards, 3, tokens_per_device=512), strict=True):
        shapes = [[tuple(batch.input_ids.shape) for batch in of_rank.micro_batches] for of_rank in step]
        assert shapes[0] == shapes[1] == shapes[2]


def test_positions_are_those_of_all_ranks(shards: Path) -> None:
    for step in zip(*steps_of(shards, 3, tokens_per_device=512), strict=True):
        laid_out = sum(batch.input_ids.numel() for of_rank in step for batch in of_rank.micro_batches)
        assert {of_rank.positions for of_rank in step} == {laid_out}


def fixed_layout(shards: Path, tokens_per_device: int, stream: Stream, world_size: int = 1) -> Layout:
    manifest = Manifest.read(shards)
    length, split = manifest.max_length, open_split(shards, manifest, "train")
    fixed = fixed_shape(length, tokens_per_device, stream, split, world_size, 0.15)
    return Layout(length, tokens_per_device, manifest.pad_id, fixed)


def shapes_of(steps: Iterable[Step]) -> set[tuple[object, ...]]:
    """Everything that a compiled step depends on."""
    batches = (batch for step in steps for batch in step.micro_batches)
    return {
        (*(tuple(value.shape) if isinstance(value, torch.Tensor) else value for value in vars(batch).values()),)
        for batch in batches
    }


@pytest.mark.parametrize("tokens_per_device", [300, 1024, 4096])
def test_a_fixed_shape_is_that_of_every_micro_batch(
    shards: Path, reference: list[np.ndarray], tokens_per_device: int
) -> None:
    """The short last step included; the tweets and their masks are the same."""
    split = open_split(shards, Manifest.read(shards), "train")
    stream = Stream(len(split), seed=3, batch_size=BATCH, length=len(split) * 5 // 2)
    masking = masking_for(Manifest.read(shards), 3, 0.15, False)
    steps = list(StepLoader(split, stream, masking, fixed_layout(shards, tokens_per_device, stream)).steps())
    assert stream.length % BATCH and len(shapes_of(steps)) == 1
    for mine, expected in zip(content(shards, [steps]), reference, strict=True):
        assert np.array_equal(mine, expected)


@given(
    tokens_per_device=st.integers(1, 2**17), batch_size=st.integers(1, 5000), world_size=st.sampled_from([1, 2, 8, 64])
)
@settings(max_examples=30)
def test_a_fixed_shape_keeps_to_the_capacity_of_the_device(
    shards: Path, tokens_per_device: int, batch_size: int, world_size: int
) -> None:
    rows = Manifest.read(shards).rows("train")
    layout = fixed_layout(shards, tokens_per_device, Stream(rows, 0, batch_size, 2 * rows), world_size)
    assert layout.fixed and layout.fixed.rows * layout.row_length <= max(tokens_per_device, layout.row_length)


def test_a_run_resumes_at_any_step(shards: Path, reference: list[np.ndarray]) -> None:
    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "train")
    stream = Stream(len(split), seed=3, batch_size=BATCH, length=len(split) * 5 // 2)
    layout = Layout(manifest.max_length, 4096, manifest.pad_id)
    stopped = StepLoader(split, stream, masking_for(manifest, 3, 0.15, False), layout, data=manifest.fingerprint)
    first = stopped.state(9).step(stream, manifest.fingerprint)
    for mine, expected in zip(content(shards, [list(stopped.steps(first))]), reference[9:], strict=True):
        assert np.array_equal(mine, expected)


class CountingSplit(Split):
    """Counts the tweets that are looked up."""

    looked_up = 0

    def gather(self, indices: np.ndarray) -> Tweets:
        self.looked_up += indices.size
        return super().gather(indices)


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_resuming_costs_the_same_early_and_late(shards: Path, world_size: int) -> None:
    manifest = Manifest.read(shards)
    looked_up = []
    for first in (10, 10**7):
        split = CountingSplit(shards, manifest.splits["train"], manifest.vocabulary_size)
        stream = Stream(len(split), 3, BATCH, 10**12)
        layout = Layout(manifest.max_length, 4096, manifest.pad_id)
        steps = StepLoader(
            split, stream, masking_for(manifest, 3, 0.15, False), layout, 0, world_size, lambda said: lambda: [said]
        ).steps(first)
        assert next(steps).index == first
        looked_up.append(split.looked_up)
    assert looked_up[0] == looked_up[1] <= 3 * BATCH // world_size


@pytest.fixture(scope="module")
def real_shards(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of real tweets with the tokenizer next to them."""
    folder = tmp_path_factory.mktemp("real") / "shards"
    tokenizer = real_data.parent / "models" / "bert-base-uncased-tokenizer"
    prepare(PrepareConfig([str(real_data / "everyday_en.csv.gz")], str(folder), tokenizer=str(tokenizer)))
    return folder


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(("world_size", "real"), [(1, 0.98), (8, 0.98), (64, 0.978)])
def test_rows_of_real_tweets_are_full_at_512_tweets_per_rank(real_shards: Path, world_size: int, real: float) -> None:
    """Empty rows included: every rank has as many rows as the fullest."""
    manifest = Manifest.read(real_shards)
    split = open_split(real_shards, manifest, "train")
    stream = Stream(len(split), 0, 512 * world_size, 10**9)
    tokens = positions = 0
    for step in range(64 // world_size + 7):
        lengths = [
            split.lengths_of(Sampler(stream, split, rank, world_size).share(step, step + 1)[1][0])
            for rank in range(world_size)
        ]
        tokens += sum(int(mine.sum()) for mine in lengths)
        positions += world_size * 128 * max(best_fit(mine, 128).rows for mine in lengths)
    assert tokens / positions >= real


@given(usual=st.integers(1, 500), masked=st.integers(0, 10**6))
def test_every_masked_token_has_a_place(usual: int, masked: int) -> None:
    few = Layout(128, 2**18, 0, FixedShape(512, 3000, 64 * usual))
    places = few.places(masked)
    assert max(masked, 64 * usual) <= places <= max(64 * usual, masked + 8 * usual) and places % 8 == 0
    assert Layout(128, 2**18, 0).places(masked) == max(1, masked)


@pytest.mark.real_data
@pytest.mark.parametrize("tokens_per_device", [65_536, 131_072])
def test_real_tweets_have_one_shape_in_300_steps_and_validation(real_shards: Path, tokens_per_device: int) -> None:
    """Each shape is compiled, for up to a minute on a GPU."""
    manifest = Manifest.read(real_shards)
    mean = manifest.tokens("train") / manifest.rows("train")
    batch_size = int(0.95 * tokens_per_device / mean)
    training = Stream(manifest.rows("train"), 0, batch_size, 300 * batch_size - 999)
    validation = Stream(manifest.rows("validation"), 0, validation_batch(training), 2000)
    layout, masking = fixed_layout(real_shards, tokens_per_device, training), masking_for(manifest, 0, 0.15, False)
    shapes, tokens, positions, usual = set(), 0, 0, set[int]()
    for name, stream in (("train", training), ("validation", validation)):
        split = open_split(real_shards, manifest, name)
        for step in StepLoader(split, stream, masking, layout).steps():
            shapes |= shapes_of([step])
            if step.tweets == batch_size:
                tokens, positions = tokens + step.tokens, positions + step.positions
                usual.add(len(step.micro_batches))
    assert len(shapes) == 1 == len(usual)
    assert tokens / positions >= 0.955


def test_a_fixed_shape_follows_lengths_that_change_within_the_run(tmp_path: Path) -> None:
    """Blocks are read near to where they lie, so that the steps of a corpus whose tweets grow longer do too."""
    texts = ["rain " * (3 + 9 * (number >= 2000)) + str(number) for number in range(4000)]
    shards = make_shards(tmp_path, texts, validation_fraction=0)
    manifest = Manifest.read(shards)
    stream = Stream(manifest.rows("train"), 0, 100, 4000, block_size=50, shuffle_blocks=2)
    layout = fixed_layout(shards, 2**16, stream)
    split, masking = open_split(shards, manifest, "train"), masking_for(manifest, 0, 0.15, False)
    assert {len(step.micro_batches) for step in StepLoader(split, stream, masking, layout).steps()} == {1}


def test_the_example_of_the_documentation_runs(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "data-plane.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(shards.parent)
    names: dict[str, object] = {}
    exec(code, names)
    split, state, labels = names["split"], names["state"], names["labels"]
    assert isinstance(split, Split) and isinstance(state, SamplerState) and isinstance(labels, torch.Tensor)
    assert state.position == 3 * len(split) and len(labels)

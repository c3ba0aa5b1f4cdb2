"""Clusters equal those of a plain search at any units, ranges, memory and executor, in bounded memory."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.common.executors import Workers
from bert_tweets.corpus.dedup import candidate_pairs, clustering, disk_buckets
from bert_tweets.corpus.dedup.clustering import CLUSTER, find_clusters
from bert_tweets.corpus.dedup.connected_components import Components, unite
from bert_tweets.corpus.dedup.key_file import write_keys
from bert_tweets.corpus.dedup.minhash import Keys, MinHash, jaccard

THRESHOLD = 0.6
WORDS = [f"w{number}" for number in range(12)]
texts_of_few_words = st.lists(st.lists(st.sampled_from(WORDS[:6]), max_size=7).map(" ".join), max_size=40)


class Inline(Executor):
    """Runs a task when it is submitted."""

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(task(*arguments, **named))
        return done


class Forgetful(Inline):
    """Runs every task twice, as a cluster that lost a worker may."""

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        super().submit(task, *arguments, **named)
        return super().submit(task, *arguments, **named)


def keys_of(texts: Sequence[str]) -> Keys:
    return MinHash(THRESHOLD, 1)(pa.array(texts, pa.string()))


def part(keys: Keys, begin: int, end: int) -> Keys:
    return Keys(keys.exact[begin:end], keys.bands[begin:end], keys.sketch[begin:end])


def found(
    keys: Keys, cuts: Sequence[int] = (), executor: Executor | None = None, threshold: float = THRESHOLD
) -> np.ndarray:
    """The clusters of rows that are cut into units."""
    bounds = [0, *sorted(min(cut, len(keys.exact)) for cut in cuts), len(keys.exact)]
    with tempfile.TemporaryDirectory() as name:
        folder, units = Path(name) / "made", list(pairwise(bounds))
        folder.mkdir()
        files = [Path(name) / f"{number}.keys" for number in range(len(units))]
        for file, unit in zip(files, units, strict=True):
            write_keys(file, part(keys, *unit))
        rows = [end - begin for begin, end in units]
        made = find_clusters(files, rows, folder, Workers(executor or Inline(), 2), threshold)
        assert sorted(folder.iterdir()) == made, "nothing else is left"
        by_unit = [np.fromfile(file, CLUSTER) for file in made]
        assert [len(unit) for unit in by_unit] == rows
        return np.concatenate(by_unit)


def plain_search(keys: Keys) -> list[tuple[int, int, bool]]:
    """The same by dictionaries: heads of (band, next band), heads with the first and the previous one, union-find."""
    parent = list(range(len(keys.exact)))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    def connect(later: int, earlier: int, verify: bool) -> None:
        near = jaccard(keys.sketch[[later]], keys.sketch[[earlier]])[0] >= THRESHOLD
        if near or not verify:
            high, low = sorted((root(later), root(earlier)), reverse=True)
            parent[high] = low

    first_of: dict[int, int] = {}
    copy = []
    for row, exact in enumerate(keys.exact.tolist()):
        copy.append(exact in first_of)
        connect(row, first_of.setdefault(exact, row), verify=False)
    bands = keys.bands.shape[1]
    for band in range(bands):
        groups: dict[int, dict[int, int]] = {}
        for row in range(len(keys.exact)):
            heads = groups.setdefault(int(keys.bands[row, band]), {})
            tag = int(keys.bands[row, (band + 1) % bands]) % 65535
            if tag in heads:
                connect(row, heads[tag], verify=True)
                continue
            for other in list(heads.values())[:1] + list(heads.values())[-1:]:
                connect(row, other, verify=True)
            heads[tag] = row
    return [(root(row), int(keys.exact[root(row)]), copy[row]) for row in range(len(copy))]


@settings(max_examples=120, deadline=None)
@given(
    texts=texts_of_few_words,
    cuts=st.lists(st.integers(0, 40), max_size=4),
    entries=st.sampled_from([2, 7, 50, 2**21]),
    range_rows=st.sampled_from([1, 2, 5, 16, 2**20]),
    read_bytes=st.sampled_from([16, 200, 2**24]),
    executor=st.sampled_from([Inline, Forgetful]),
)
def test_clusters_equal_those_of_a_plain_search_however_the_work_is_divided(
    texts: list[str],
    cuts: list[int],
    entries: int,
    range_rows: int,
    read_bytes: int,
    executor: type[Executor],
) -> None:
    keys = keys_of(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustering, "ENTRIES_AT_ONCE", entries)
        patch.setattr(clustering, "RANGE_ROWS", range_rows)
        patch.setattr(disk_buckets, "READ_BYTES", read_bytes)
        made = found(keys, cuts, executor())
    assert made.tolist() == plain_search(keys)


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40), range_rows=st.integers(1, 31))
def test_components_of_any_pairs(pairs: list[tuple[int, int]], range_rows: int) -> None:
    expected = list(range(30))
    for left, right in pairs:
        joined = {expected[left], expected[right]}
        expected = [min(joined) if label in joined else label for label in expected]
    ordered = [(max(pair), min(pair)) for pair in pairs]
    with tempfile.TemporaryDirectory() as folder:
        components = Components(Path(folder), 30, range_rows)
        components.connect(np.array(ordered, candidate_pairs.PAIR))
        labels = list(components.labels(lambda begin, end: np.arange(begin, end, dtype=np.uint64) + np.uint64(100)))
        assert not any(Path(folder).iterdir())
    assert np.concatenate([label for label, _ in labels]).tolist() == expected
    assert np.concatenate([value for _, value in labels]).tolist() == [label + 100 for label in expected]


@pytest.mark.parametrize(
    "pairs",
    [
        [(3, 1), (3, 2)],
        [(3, 2), (3, 1), (5, 4), (5, 3)],
        [(node + 1, node) for node in range(63)],
        [(63 - node, 62 - node) for node in range(63)],
        [(63, node) for node in range(63)],
        [(node + 32, node) for node in range(32)] + [(node + 33, node) for node in range(31)],
    ],
)
def test_trees_that_meet_in_one_root_or_in_a_long_chain_become_one(pairs: list[tuple[int, int]]) -> None:
    root, expected = np.arange(64), list(range(64))
    for left, right in pairs:
        joined = {expected[left], expected[right]}
        expected = [min(joined) if label in joined else label for label in expected]
    unite(root, *np.array(pairs).T)
    assert root.tolist() == expected


def test_a_large_group_makes_few_pairs() -> None:
    rows = 20_000
    draw = np.random.default_rng(0)
    tags = draw.integers(1, 2**16, rows).astype(np.uint16)
    entries = candidate_pairs.Entries(np.full(rows, 7, np.uint64), tags, np.arange(rows))
    copies, pairs, heads = candidate_pairs.pair_equal_hashes(entries)
    assert not len(copies) and len(pairs) <= 2 * rows and len(heads.rows) == len(np.unique(tags))


def test_without_bands_only_copies_are_clusters() -> None:
    exact = np.array([5, 6, 5, 7, 6, 5], np.uint64)
    made = found(Keys(exact, np.empty((6, 0), np.uint64), np.empty((6, 0), np.uint64)), [2, 2])
    assert made["cluster"].tolist() == [0, 1, 0, 3, 1, 0]
    assert made["key"].tolist() == exact.tolist()
    assert made["copy"].tolist() == [False, False, True, False, True, True]


@pytest.mark.dist
def test_processes_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    keys = keys_of([" ".join(draw.choice(WORDS, 8)) for _ in range(3000)])
    alone = found(keys)
    monkeypatch.setattr(clustering, "ENTRIES_AT_ONCE", 10_000)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert (found(keys, [100, 1700], executor) == alone).all()
    assert 2 < len(np.unique(alone["cluster"])) < 3000


class Counting(ThreadPoolExecutor):
    """Notes the most tasks that waited or ran at a time."""

    open = most = 0

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.open += 1
        self.most = max(self.most, self.open)
        running = super().submit(task, *arguments, **named)
        running.add_done_callback(self._done)
        return running

    def _done(self, _: Future[Any]) -> None:
        self.open -= 1


def test_tasks_are_submitted_as_workers_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "ENTRIES_AT_ONCE", 100)
    with Counting(1) as executor:
        found(keys_of([f"{number} {WORDS[number % 12]} more" for number in range(200)]), (), executor)
    assert executor.most == 4


def test_planted_near_copies_are_found_and_others_are_separate() -> None:
    """Each text has a distant near-copy with one to four words replaced; the exact similarity of sets decides."""
    draw = np.random.default_rng(2)
    vocabulary = np.array([f"word{number}" for number in range(3000)])
    # Words as frequent as words are, so that strangers share some.
    chance = 1 / np.arange(1, 3001)
    originals = [draw.choice(vocabulary, draw.integers(8, 30), p=chance / chance.sum()) for _ in range(4000)]
    near = []
    for words in originals:
        changed = words.copy()
        changes = draw.integers(1, 5)
        changed[draw.integers(0, len(words), changes)] = draw.choice(vocabulary, changes)
        near.append(changed)
    texts = [" ".join(words) for words in originals + near]
    sets = [set(pairwise(text.split())) for text in texts]
    exact = np.array([len(sets[row] & sets[row + 4000]) / len(sets[row] | sets[row + 4000]) for row in range(4000)])
    made = found(MinHash(0.7, 2)(pa.array(texts)), [1000], threshold=0.7)
    together = made["cluster"][:4000] == made["cluster"][4000:]
    assert (exact >= 0.75).sum() > 500 and together[exact >= 0.75].mean() >= 0.95
    assert (exact < 0.45).sum() > 500 and together[exact < 0.45].mean() <= 0.005

"""Rows are kept as the settings say, and counted once, for any units and any amount of memory."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.config import FilterConfig, PrepareConfig
from bert_tweets.corpus.dedup.clustering import CLUSTER
from bert_tweets.corpus.dedup.minhash import in_validation_split
from bert_tweets.corpus.pipeline import selection
from bert_tweets.corpus.pipeline.selection import FATES, FinishedUnits, Selection
from bert_tweets.corpus.pipeline.worker import COPIES, FACT, FACTS, NO_DAY, UnitReport, unit_folder
from bert_tweets.corpus.shards.funnel import Funnel
from bert_tweets.corpus.sources.schema import Columns

ROW = st.fixed_dictionaries(
    {
        "tokens": st.integers(2, 16),
        "day": st.sampled_from([NO_DAY, -3, 0, 1]),
        "author": st.integers(0, 3),
        "cluster": st.integers(0, 8),
        "copy": st.booleans(),
        "unknown": st.integers(0, 2),
        "truncated": st.booleans(),
        "time_lost": st.booleans(),
    }
)

PLAIN = {
    **{"tokens": 5, "day": 3, "author": 0, "unknown": 0},
    **dict.fromkeys(("copy", "truncated", "time_lost"), False),
}


# Authors of the copies that each unit left out by itself.
COPIED_BY = [0, 3]


def prepared(folder, units, **overrides):
    """A selection over units of rows as `ROW` draws them."""
    config = PrepareConfig(**{"max_length": 16, "validation_fraction": 0.3, **overrides})
    reports, clusters, first = [], [], 0
    earliest: dict[int, int] = {}
    for number, rows in enumerate(units):
        facts, cluster = np.zeros(len(rows), FACT), np.zeros(len(rows), CLUSTER)
        for index, row in enumerate(rows):
            for name in ("tokens", "day", "author", "unknown", "truncated", "time_lost"):
                facts[index][name] = row[name]
            facts[index]["bytes"] = 10
            origin = earliest.setdefault(row["cluster"], first + index)
            cluster[index] = (origin, 977 * origin, row["copy"] and origin != first + index)
        place = unit_folder(folder, number)
        place.mkdir()
        facts.tofile(place / FACTS)
        np.array(COPIED_BY, np.uint64).tofile(place / COPIES)
        cluster.tofile(folder / f"{number}.clusters")
        clusters.append(folder / f"{number}.clusters")
        reports.append(UnitReport(number, len(rows) + 1, len(rows), {"empty_text": 1}))
        first += len(rows)
    return Selection(config, FinishedUnits(folder, reports, clusters), folder / "work")


def expected(units, config):
    """The same, one row at a time."""
    rows = [row for unit in units for row in unit]
    earliest, fates = {}, []
    for number, row in enumerate(rows):
        origin = earliest.setdefault(row["cluster"], number)
        if row["copy"] and origin != number and config.deduplicate != "none":
            fates.append("duplicate")
        elif origin != number and config.deduplicate == "near":
            fates.append("near_duplicate")
        elif row["tokens"] < config.filter.min_tokens:
            fates.append("too_few_tokens")
        elif config.filter.max_tokens and row["tokens"] > config.filter.max_tokens:
            fates.append("too_many_tokens")
        else:
            fates.append("")
    limit = config.filter.max_tweets_per_author
    counts = Counter(author for author in [row["author"] for row in rows] + len(units) * COPIED_BY if author)
    for number, row in enumerate(rows):
        if limit and not fates[number] and counts[row["author"]] > limit:
            fates[number] = "author_over_limit"
    return rows, fates


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    units=st.lists(st.lists(ROW, max_size=12), min_size=1, max_size=5),
    deduplicate=st.sampled_from(["exact", "near", "none"]),
    filters=st.builds(
        FilterConfig,
        min_tokens=st.integers(0, 8),
        max_tokens=st.sampled_from([0, 10]),
        max_tweets_per_author=st.integers(0, 3),
        max_tweets_per_day=st.integers(0, 3),
    ),
    rows_at_once=st.sampled_from([2, 7, 10**6]),
    shard_tweets=st.integers(1, 9),
)
def test_every_row_has_the_fate_that_the_settings_say(
    tmp_path_factory, units, deduplicate, filters, rows_at_once, shard_tweets
):
    config = PrepareConfig(deduplicate=deduplicate, filter=filters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "ROWS_AT_ONCE", rows_at_once)
        chosen = prepared(
            tmp_path_factory.mktemp("w"), units, deduplicate=deduplicate, filter=filters, shard_tweets=shard_tweets
        )
        funnel = Funnel(Columns("text"), "recipe")
        plans = chosen.decide(funnel)
    found = [FATES[code] for unit in range(len(units)) for code in chosen.fates(unit).tolist()]
    rows, wanted = expected(units, config)
    by_day, left = defaultdict(int), defaultdict(int)
    for row, fate, want in zip(rows, found, wanted, strict=True):
        if want:
            assert fate == want
        else:
            assert fate in ("train", "validation", "day_over_limit")
            by_day[row["day"]] += 1
            left[row["day"]] += fate != "day_over_limit"
    share = filters.max_tweets_per_day
    for day, count in by_day.items():
        assert left[day] == (min(count, share) if share and day != NO_DAY else count)
    # The funnel counts every row once.
    assert funnel.read == len(rows) + len(units)
    assert {**dict.fromkeys(FATES[2:], 0), **Counter(found)} == {
        **{fate: funnel.dropped[fate] for fate in FATES[2:]},
        **{split: funnel.splits[split].tweets for split in FATES[:2] if funnel.splits[split].tweets},
    }
    kept = [row for row, fate in zip(rows, found, strict=True) if fate in FATES[:2]]
    assert sum(funnel.splits[split].tokens for split in FATES[:2]) == sum(row["tokens"] for row in kept)
    assert funnel.notes["unknown_tokens"] == sum(row["unknown"] for row in kept)
    assert funnel.notes["truncated"] == sum(row["truncated"] for row in kept)
    _plans_hold_each_row_once(chosen, plans, units, found, shard_tweets)


def _plans_hold_each_row_once(chosen, plans, units, found, shard_tweets):
    planned = {"train": [], "validation": []}
    for plan in plans:
        assert 0 < sum(piece.take for piece in plan.pieces) <= shard_tweets
        for piece in plan.pieces:
            of_fate = np.flatnonzero(chosen.fates(piece.unit) == plan.fate)
            rows = of_fate[piece.skip : piece.skip + piece.take]
            assert len(rows) == piece.take
            assert piece.first_row == sum(len(unit) + 1 for unit in units[: piece.unit])
            planned[FATES[plan.fate]] += (rows + chosen.first(piece.unit)).tolist()
    for split, rows in planned.items():
        assert rows == [number for number, fate in enumerate(found) if fate == split]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(units=st.lists(st.lists(ROW, max_size=12), min_size=1, max_size=4))
def test_a_cluster_is_on_one_side_of_the_split(tmp_path_factory, units):
    chosen = prepared(tmp_path_factory.mktemp("w"), units, deduplicate="none", validation_fraction=0.5)
    chosen.decide(Funnel(Columns("text"), "recipe"))
    for unit in range(len(units)):
        drawn = in_validation_split(chosen.clusters(unit)["key"], 0, 0.5)
        assert (chosen.fates(unit) == drawn).all()


def test_the_sample_of_a_day_depends_on_the_seed_and_not_on_the_units(tmp_path):
    rows = [{**PLAIN, "cluster": n} for n in range(200)]

    def chosen(name, units, seed):
        (tmp_path / name).mkdir()
        made = prepared(tmp_path / name, units, seed=seed, filter=FilterConfig(max_tweets_per_day=50))
        made.decide(Funnel(Columns("text"), "recipe"))
        return np.concatenate([made.fates(unit) < 2 for unit in range(len(units))])

    whole = chosen("whole", [rows], 1)
    assert whole.sum() == 50 and 10 < whole[:100].sum() < 40
    assert (chosen("cut", [rows[:30], rows[30:31], rows[31:]], 1) == whole).all()
    assert (chosen("seed", [rows], 2) != whole).any()


def test_a_day_under_the_limit_keeps_all_rows_while_another_is_sampled(tmp_path):
    rows = [{**PLAIN, "cluster": n, "day": 3 if n % 10 else n // 10} for n in range(100)]
    chosen = prepared(tmp_path, [rows[:50], rows[50:]], filter=FilterConfig(max_tweets_per_day=5))
    chosen.decide(Funnel(Columns("text"), "recipe"))
    fates = np.concatenate([chosen.fates(0), chosen.fates(1)])
    left = Counter(row["day"] for row, fate in zip(rows, fates, strict=True) if fate < 2)
    assert left == {**dict.fromkeys(range(10), 1), 3: 5}


def test_a_shard_is_closed_early_before_it_grows_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "LARGEST_SHARD", 25)
    rows = [{**PLAIN, "cluster": n} for n in range(7)]
    plans = prepared(tmp_path, [rows[:3], rows[3:]], validation_fraction=0.0).decide(Funnel(Columns("text"), "recipe"))
    assert [sum(piece.take for piece in plan.pieces) for plan in plans] == [2, 2, 2, 1]
    assert [plan.file for plan in plans] == [f"train/{number:05d}.arrow" for number in range(4)]

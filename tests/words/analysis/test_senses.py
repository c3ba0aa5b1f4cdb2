"""Senses: one use is one sense, two planted uses are found, and their description is correct.

The short tests run on synthetic occurrences; the campaign (`make soak`) runs on real tweets and prints the figures of
docs/statistics.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from bert_tweets import WordVectors, embed, prepare
from bert_tweets.common.errors import UserError
from bert_tweets.words.analysis.sense_report import (
    SenseModel,
    add_q_values,
    describe_senses,
    fit_senses,
    share_interval,
)
from bert_tweets.words.statistics import mixture_clusters as senses_module
from bert_tweets.words.statistics.mixture_clusters import FittedSenses, find_senses
from tests.words.synthetic import WIDTH, Array, spectrum

KINDS = ("normal", "skewed", "heavy-tailed", "flat")


def one_use(random: np.random.Generator, count: int, kind: str = "normal") -> Array:
    """float32 [count, WIDTH] with one peak, whatever its shape."""
    shape = (count, WIDTH)
    drawn = {
        "normal": random.standard_normal,
        "skewed": lambda shape: random.exponential(size=shape),
        "heavy-tailed": lambda shape: random.standard_t(3, shape),
        "flat": random.random,
    }[kind](shape)
    return (drawn * spectrum()).astype(np.float32)


def several_uses(random: np.random.Generator, sizes: list[int], apart: float = 5.0) -> tuple[Array, Array]:
    """Vectors and uses of shuffled occurrences; each use is shifted by `apart` standard deviations in a direction of
    its own, which is not among those of most variance."""
    use = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = one_use(random, len(use))
    for number in range(1, len(sizes)):
        vectors[use == number, 2 + number] += apart * spectrum()[2 + number]
    return vectors, use


def rand(labels: Array, truth: Array) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(labels, truth))


@pytest.mark.parametrize("kind", KINDS)
def test_one_use_of_any_shape_is_one_sense(kind: str) -> None:
    counts = [find_senses(one_use(np.random.default_rng(seed), 100, kind), "w").count for seed in range(3)]
    assert counts == [1] * 3


def test_planted_uses_are_recovered_without_their_number() -> None:
    for sizes in ([150, 150], [200, 70], [130, 120, 110]):
        vectors, use = several_uses(np.random.default_rng(sum(sizes)), sizes, 7.0)
        found = find_senses(vectors, "w")
        assert found.count == len(sizes) and rand(found.labels, use) >= 0.9
        assert found.stability > 0.9 and found.p_values[found.count] <= 0.05 / 4
        assert (np.diff(np.bincount(found.labels)) <= 0).all()
        np.testing.assert_array_equal(found.assign(vectors), found.labels)


def test_the_manner_of_one_author_is_not_a_sense() -> None:
    """A fifth of the occurrences are similar; they are a sense if many authors wrote them, not if one did."""
    author = np.concatenate([np.zeros(60, np.int64), 1 + np.arange(240) // 2])
    for seed in range(3):
        vectors, _ = several_uses(np.random.default_rng(seed), [240, 60], 7.0)
        vectors = vectors[np.argsort(vectors[:, 3] < 3.5 * spectrum()[3], kind="stable")]
        assert find_senses(vectors, "w", 3, unit=author).count == 1
        assert find_senses(vectors, "w", 3, unit=np.arange(300) // 3).count == 2
    everyone = np.zeros(300, np.int64)
    assert find_senses(vectors, "w", 3, unit=everyone).count == 1


def test_a_direction_of_large_variance_is_not_a_second_sense() -> None:
    vectors = one_use(np.random.default_rng(0), 300)
    vectors[:, 0] *= 20
    assert find_senses(vectors, "w").count == 1


def test_senses_depend_on_the_seed_alone_and_little_on_that() -> None:
    vectors, _ = several_uses(np.random.default_rng(1), [100, 80], 7.0)
    first, again, other = (find_senses(vectors, "w", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.p_values == again.p_values and rand(first.labels, other.labels) > 0.95


@pytest.mark.parametrize("vectors", [np.zeros((0, 4)), np.zeros((300, 4)), np.ones((30, 4)), np.eye(60)[:, :1]])
def test_few_or_equal_occurrences_have_one_sense(vectors: Array) -> None:
    found = find_senses(vectors.astype(np.float32), "w")
    assert not found.labels.any() and found.stability == 1 and len(found.labels) == len(vectors)
    assert find_senses(several_uses(np.random.default_rng(0), [100, 100])[0], "w", max_senses=1).count == 1


def test_no_more_senses_are_found_than_the_maximum() -> None:
    vectors, _ = several_uses(np.random.default_rng(2), [120, 120, 120], 8.0)
    assert find_senses(vectors, "w", max_senses=2).count <= 2


def test_missing_scikit_learn_is_reported_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(UserError, match=r"pip install 'bert_tweets\[words\]', or set senses=false"):
        senses_module.require_sklearn()


def rows_of(count: int, **columns: Any) -> pa.Table:
    plain = {
        "tweet_id": [str(number) for number in range(count)],
        "cluster": np.arange(count),
        "author": [None] * count,
    }
    places = {"start": np.zeros(count, np.int32), "end": np.full(count, 4, np.int32)}
    author = {"author": pa.array(columns.pop("author", [None] * count), pa.string())}
    return pa.table({**plain, **places, **author, **columns})


@pytest.fixture(scope="module")
def two() -> tuple[Array, Array]:
    return several_uses(np.random.default_rng(3), [120, 80], 7.0)


def test_the_description_of_a_sense_is_that_of_its_occurrences(two: tuple[Array, Array]) -> None:
    vectors, use = two
    links = np.where(use == 1, 2, 0) + np.random.default_rng(0).integers(0, 2, 200)
    casing = np.where(np.random.default_rng(1).random(200) < 0.5, "lower", "title")
    substitutes = [["flu"] if one else ["face", "cover"] for one in use]
    rows = rows_of(200, links=links, casing=casing, retweet=use == 1, substitutes=substitutes)
    model = fit_senses("mask", rows, vectors, 5, 0)
    groups = ["a" if use[int(tweet)] else "b" for tweet in model.rows.column("tweet_id").to_pylist()]
    record = describe_senses(model, groups, ["a", "b"], 199, 0)
    add_q_values([record])
    first, second = record["senses"]
    assert (record["count"], first["name"], second["name"]) == (2, "mask#1", "mask#2")
    assert first["size"] + second["size"] == 200 and first["share"] > second["share"] > 0.3
    assert [first["substitutes"][0][0], second["substitutes"]] == ["cover", [("flu", second["size"])]]
    tests = {test["covariate"]: test for test in second["associations"]}
    assert list(tests) == ["links", "retweet", "casing"]
    assert tests["links"]["statistic"] > 0.9 and tests["retweet"]["statistic"] > 0.9
    assert tests["links"]["p_value"] == 1 / 200 and tests["links"]["q_value"] <= 0.05
    assert tests["casing"]["p_value"] > 0.05 and 0 <= tests["casing"]["statistic"] < 0.3
    mirrored = {test["covariate"]: test["statistic"] for test in first["associations"]}
    assert mirrored["links"] == pytest.approx(-tests["links"]["statistic"])
    shares = {share["group"]: share["share"] for share in second["shares"]}
    assert shares["a"] > 0.8 and shares["b"] < 0.1
    for place, start, end in second["typical"]:
        assert use[int(place)] == 1 and (start, end) == (0, 4)


def test_copies_do_not_count_but_have_a_sense(two: tuple[Array, Array]) -> None:
    vectors, use = two
    copied = np.concatenate([np.arange(200), np.repeat(np.flatnonzero(use == 1)[:1], 100)])
    rows = rows_of(200).take(pa.array(copied))
    model = fit_senses("mask", rows, vectors[copied], 5, 0)
    assert len(model.rows) == 200 and len(model.all_labels) == 300
    assert np.bincount(model.fitted.labels).tolist()[0] > 100 and len(set(model.all_labels[200:])) == 1


def test_authors_are_exchanged_as_wholes(two: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four authors with one use each: two against two is no evidence, however much they wrote."""
    vectors, use = two
    # With four authors as units, two senses would not be found.
    monkeypatch.setattr(
        "bert_tweets.words.analysis.sense_report.find_senses", lambda rows, word, *_: find_senses(rows, word)
    )
    author = np.where(use == 1, "a", "c") + (np.arange(200) % 2).astype(str).astype(object)
    rows = rows_of(200, author=author.tolist(), links=use * 3)
    record = describe_senses(fit_senses("mask", rows, vectors, 5, 0), [None] * 200, [], 199, 0)
    assert (record["n"], record["authors"], record["count"]) == (200, 4, 2)
    assert all(2 <= cluster["authors"] <= 4 for cluster in record["senses"])
    assert record["senses"][0]["associations"][0]["p_value"] > 0.2


def test_five_percent_of_absent_associations_are_found(two: tuple[Array, Array]) -> None:
    vectors, _ = two
    found = find_senses(vectors, "mask")
    p_values = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        numbers = {name: random.integers(0, 4, 200) for name in ("links", "tweet_length", "position")}
        model = _with_senses(rows_of(200, **numbers), vectors, found)
        tests = describe_senses(model, [None] * 200, [], 99, seed)["senses"][0]["associations"]
        p_values += [test["p_value"] for test in tests]
    assert abs((np.array(p_values) <= 0.05).mean() - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / 120)


def _with_senses(rows: pa.Table, vectors: Array, found: FittedSenses) -> SenseModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bert_tweets.words.analysis.sense_report.find_senses", lambda *_: found)
        return fit_senses("mask", rows, vectors, 5, 0)


@pytest.mark.parametrize(("share", "units"), [(0.5, 60), (0.1, 80), (0.02, 60), (0.3, 8)])
def test_intervals_of_shares_have_their_nominal_coverage(share: float, units: int) -> None:
    """Authors with one to five occurrences each; most of them keep to one use."""
    covered = []
    for seed in range(300):
        random = np.random.default_rng(seed)
        owner = np.repeat(np.arange(units), random.integers(1, 6, units))
        own = random.random(units) < share
        member = np.where(random.random(len(owner)) < 0.8, own[owner], random.random(len(owner)) < share)
        found = share_interval(member, owner, np.ones(len(owner), bool))
        covered.append(found["low"] <= share <= found["high"])
        assert 0 <= found["low"] <= found["share"] <= found["high"] <= 1
    assert np.mean(covered) >= 0.92


def test_a_group_without_occurrences_has_no_share() -> None:
    empty = share_interval(np.ones(3, bool), np.arange(3), np.zeros(3, bool))
    assert empty == {"share": None, "low": None, "high": None, "n": 0}


def counts_of_one_use(replicates: int, size: int) -> dict[str, float]:
    """The share of samples of one use with one sense, by shape."""
    counts_of = {
        kind: [
            find_senses(one_use(np.random.default_rng([seed, size]), size, kind), "w").count
            for seed in range(replicates)
        ]
        for kind in KINDS
    }
    return {kind: float(np.mean(np.array(counts) == 1)) for kind, counts in counts_of.items()}


def without_joint_clusters(vectors: Array, random: np.random.Generator) -> Array:
    """Shuffle each principal component: each keeps its distribution, long tails included, but clusters in several of
    them are gone."""
    points = vectors - vectors.mean(axis=0, dtype=np.float64)
    left, sizes, right = np.linalg.svd(points, full_matrices=False)
    return (random.permuted(left * sizes, axis=0) @ right).astype(np.float32)


def recovered(pools: dict[str, Array], size: int, share: float, pairs: int) -> list[tuple[int, float]]:
    """Merge the occurrences of pairs of words; returns the number of senses and adjusted Rand index of each pair."""
    found = []
    for seed in range(pairs):
        random = np.random.default_rng([seed, size])
        rare = round(size * share)
        there = sorted(word for word, pool in pools.items() if len(pool) >= size - rare)
        first, second = random.choice(there, 2, replace=False)
        chosen = [
            pools[word][random.choice(len(pools[word]), count, replace=False)]
            for word, count in ((first, size - rare), (second, rare))
        ]
        senses = find_senses(np.concatenate(chosen), "w", seed=seed)
        found.append((senses.count, rand(senses.labels, np.repeat([0, 1], [size - rare, rare]))))
    return found


def campaign(pools: dict[str, Array], pairs: int) -> None:
    """Print the figures of docs/statistics.md."""
    by_word = {word: find_senses(pool, word) for word, pool in pools.items()}
    single = [word for word, one in by_word.items() if one.count == 1]
    print(f"\n{len(single)} of {len(pools)} words have one use; others:")
    print(", ".join(f"{word} {one.count} ({one.stability:.2f})" for word, one in by_word.items() if one.count > 1))
    again = np.mean([find_senses(pool, word, seed=1).count == by_word[word].count for word, pool in pools.items()])
    print(f"the same number by another seed: {again:.3f}", flush=True)
    shuffled = {
        word: [
            find_senses(without_joint_clusters(pool, np.random.default_rng(seed)), word).count == 1 for seed in range(2)
        ]
        for word, pool in pools.items()
    }
    ones = float(np.mean([shuffled[word] for word in single]))
    print(
        f"components shuffled: one use in {np.mean([*shuffled.values()]):.3f}, of words of one {ones:.3f}", flush=True
    )
    assert ones >= 0.95
    for size, share in ((100, 0.5), (100, 0.3), (200, 0.5), (200, 0.3), (200, 0.1)):
        found = recovered({word: pools[word] for word in single}, size, share, pairs)
        good = float(np.mean([one >= 0.9 for _, one in found]))
        two = float(np.mean([count == 2 for count, _ in found]))
        print(f"n {size}, {share:.0%}: two uses in {two:.3f}, adjusted Rand >= .9 in {good:.3f}", flush=True)
        assert share < 0.3 or good >= 0.9


@pytest.mark.soak
def test_the_campaign_on_synthetic_occurrences() -> None:
    for size in (60, 200, 800):
        shares = counts_of_one_use(40, size)
        print(f"\none use of {size}: {shares}", flush=True)
        assert min(shares.values()) >= 0.95


WORDS = (
    "tomorrow happy weekend school beautiful president family flight police music hours morning weather debate women "
    "friends summer birthday winter coffee dinner sunday brother team phone apple fire cold fly match trash mean kind "
    "left right light hot watch park train"
)


@pytest.mark.soak
@pytest.mark.real_data
def test_the_campaign_on_real_tweets(real_data: Path, tmp_path: Path) -> None:
    models = real_data.parent / "models"
    rows = csv.read_csv(real_data / "everyday_en.csv.gz", parse_options=csv.ParseOptions(newlines_in_values=True))
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), 150_000, replace=False))
    csv.write_csv(rows.select(["text"]).take(pa.array(chosen)), tmp_path / "tweets.csv")
    tokenizer = f"tokenizer={models / 'bert-base-uncased-tokenizer'}"
    prepare.stage([f"input={tmp_path / 'tweets.csv'}", tokenizer, f"output={tmp_path / 'shards'}", "deduplicate=none"])
    settings = [f"words=[{','.join(WORDS.split())}]", "max_occurrences=300", "background_tweets=300", "controls=0"]
    made = [f"data.path={tmp_path / 'shards'}", f"output={tmp_path / 'words'}"]
    embed.stage([f"model={models / 'minilm-l6'}", *made, *settings])
    campaign(pools_of(tmp_path / "words"), 40)


def pools_of(folder: Path) -> dict[str, Array]:
    """One occurrence of each near-duplicate cluster, by word."""
    vectors = WordVectors.load(folder)
    firsts = {word: np.unique(vectors.occurrences(word).column("cluster"), return_index=True)[1] for word in vectors}
    return {word: vectors.vectors(word)[rows] for word, rows in firsts.items()}

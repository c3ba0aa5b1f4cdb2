"""The scaling benchmark: the model follows its formulas, the fit recovers parameters, and parts of a step add up."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gpu_inputs, scaling, scaling_cluster, scaling_report
from benchmarks.scaling_model import Cluster, Job, Link, expected_maximum, fit, imbalance, predict, unhideable

LINK = Link(latency=1e-4, bandwidth=1e9)
CLUSTER = Cluster(2, LINK, LINK, 0.0)
JOB = Job(0.05, 1e-3, (3e6, 28e6, 60e6), 47e6, math.inf, 0.5, 0.0)


def test_all_reduce_takes_latency_plus_transfer_time() -> None:
    assert LINK.all_reduce(1e6, 1) == 0.0
    assert LINK.all_reduce(1e6, 2) == pytest.approx(2e-4 + 1e-3)
    assert LINK.all_reduce(1e6, 4) == pytest.approx(4e-4 + 1.5e-3)
    # With eight ranks per machine, all bytes move within it and an eighth of them between machines.
    cluster = Cluster(8, LINK, Link(1e-3, 1e8), 0.0)
    assert cluster.all_reduce(8e6, 32) == pytest.approx(LINK.all_reduce(8e6, 8) + Link(1e-3, 1e8).all_reduce(1e6, 4))


@given(window=st.floats(0, 10))
def test_a_backward_pass_cannot_hide_the_last_bucket(window: float) -> None:
    total = sum(CLUSTER.all_reduce(size, 2) for size in JOB.buckets)
    last = CLUSTER.all_reduce(JOB.buckets[-1], 2)
    # The last bucket is ready when the backward pass ends, however long it takes.
    assert last - 1e-12 <= unhideable(JOB, CLUSTER, 2, window) <= total + 1e-12
    assert unhideable(JOB, CLUSTER, 2, 0.0) == pytest.approx(total)
    assert unhideable(JOB, CLUSTER, 2, 1e3) == pytest.approx(last)


@given(
    fixed=st.floats(0, 0.2),
    per_token=st.floats(1e-4, 1e-2),
    overlap=st.floats(0, 1),
    latency=st.floats(1e-5, 1e-3),
    bandwidth=st.floats(1e8, 1e10),
    slowdown=st.floats(1, 1.5),
)
def test_the_fit_recovers_the_parameters(
    fixed: float, per_token: float, overlap: float, latency: float, bandwidth: float, slowdown: float
) -> None:
    job = replace(JOB, fixed=fixed, per_token=per_token, overlap=overlap, jitter=0.02)
    link = Link(latency, bandwidth)
    steps: list[dict[str, Any]] = []
    for ranks in (1, 2):
        for tokens in (1000.0, 2000.0, 5000.0):
            model = predict(job, Cluster(2, link, link, 0.0), ranks, tokens, 1.0)
            compute = model["compute"] * (slowdown if ranks > 1 else 1)
            row = {"ranks": ranks, "gradients": "fp32", "tokens_per_rank": tokens, "compute_seconds": compute}
            gradients = {"bucket_bytes": JOB.buckets, "embedding_bytes": JOB.embeddings}
            steps.append(row | gradients | {"exposed_seconds": model["exposed"], "jitter": 0.02})
    all_reduces = [{"ranks": 2, "bytes": size, "seconds": link.all_reduce(size, 2)} for size in scaling.SIZES]
    fitted, links, slowdowns = fit(steps, all_reduces)
    assert (fitted.fixed, fitted.per_token) == pytest.approx((fixed, per_token), rel=1e-6, abs=1e-9)
    assert (links[2].latency, links[2].bandwidth) == pytest.approx((latency, bandwidth), rel=1e-6)
    assert slowdowns[2] == pytest.approx(slowdown) and fitted.buckets == JOB.buckets
    assert fitted.overlap == pytest.approx(overlap, abs=1e-6)


def test_the_expected_maximum_agrees_with_random_draws() -> None:
    generator = np.random.default_rng(0)
    for count in (2, 8, 64, 1024):
        mean_maximum = generator.normal(size=(4000, count)).max(axis=1).mean()
        assert expected_maximum(count) == pytest.approx(mean_maximum, rel=0.06)
    assert expected_maximum(1) == 0.0


def test_imbalance_is_interpolated_between_measured_sizes() -> None:
    rows = [
        {"ranks": ranks, "tweets_per_rank": tweets, "dealt_by_length": ranks > 1, "rows_max_over_mean": value}
        for ranks, tweets, value in ((1, 32, 1.0), (1, 512, 1.0), (64, 32, 1.06), (64, 512, 1.02))
    ]
    rows.append({"ranks": 64, "tweets_per_rank": 32, "dealt_by_length": False, "rows_max_over_mean": 1.5})
    assert imbalance(rows, 64, 32) == pytest.approx(1.06) and imbalance(rows, 1, 100) == 1.0
    assert imbalance(rows, 64, 128) == pytest.approx(1.04) and imbalance(rows, 8, 32) == pytest.approx(1.03)
    assert imbalance(rows, 1024, 9999) == pytest.approx(1.02)


def test_the_predicted_efficiency_falls_with_the_number_of_gpus() -> None:
    rows = [row for row in scaling_cluster.rows([]) if row["kind"] == "predicted"]
    curves: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        assert row["step"] == pytest.approx(row["compute"] + row["waiting"] + row["exposed"])
        size = row["tokens_per_gpu"] if row["scaling"] == "weak" else 0
        curves.setdefault((row["network"], row["gradients"], row["scaling"], size), []).append(row["efficiency"])
    assert len(curves) == 12 and all(len(curve) == len(scaling_cluster.GPUS) for curve in curves.values())
    assert all(curve == sorted(curve, reverse=True) and 0 < curve[-1] < curve[0] < 1 for curve in curves.values())
    assert sum(scaling_cluster.job_of(4).buckets) == pytest.approx(4 * 109.5e6, rel=0.01)


def test_the_parts_of_a_step_add_up_to_the_step() -> None:
    common = {"tokens": [10.0, 10.0, 10.0], "data": [0.0, 0.1, 0.0]}
    ranks = [
        common | {"compute": [1.0, 2.0, 1.0], "step": [1.5, 2.7, 1.6]},
        common | {"compute": [1.2, 2.2, 1.2], "step": [1.5, 2.6, 1.5]},
    ]
    parts = scaling._parts(ranks, all_reduce=0.5)
    assert parts["compute_seconds"] == pytest.approx(1.1) and parts["waiting_seconds"] == pytest.approx(0.1)
    assert parts["exposed_seconds"] == pytest.approx(0.4) and parts["hidden_seconds"] == pytest.approx(0.1)
    assert parts["compute_seconds"] + parts["waiting_seconds"] + parts["exposed_seconds"] == pytest.approx(1.6)


def test_weak_scaling_compares_equal_ranks_and_strong_scaling_equal_steps() -> None:
    sizes = [(1, 64), (1, 128), (2, 64), (2, 128), (4, 32)]
    turns = {1: [100.0, 50.0, 100.0], 2: [180.0, 90.0, 170.0], 4: [200.0, 100.0, 200.0]}
    steps = [{"ranks": ranks, "tweets_per_rank": tweets, "turn_rates": turns[ranks]} for ranks, tweets in sizes]
    pairs = {
        scaling: [
            (one["tweets_per_rank"], several["ranks"], several["tweets_per_rank"])
            for one, several in scaling_report.pairs(steps, scaling)
        ]
        for scaling in ("weak", "strong")
    }
    assert pairs == {"weak": [(64, 2, 64), (128, 2, 128)], "strong": [(128, 2, 64), (128, 4, 32)]}
    one, row = next(scaling_report.pairs(steps, "weak"))
    assert scaling_report.efficiency(one, row) == pytest.approx(0.9)


@pytest.mark.dist
@pytest.mark.soak
def test_a_small_scaling_benchmark_writes_rows_tables_and_plot(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("needs two cores")
    gpu_inputs.save_model(str(shards), str(tmp_path / "model"), "32", "1", "2", "64")
    paths = (f"shards={shards}", f"model={tmp_path}/model", f"output={tmp_path}/out")
    small = ("ranks=1,2", "tweets=8,16", "precision=fp32", "seconds=0", "turns=1", "breakdown=2", "device=cpu")
    scaling.main([*paths, *small])

    rows = json.loads((tmp_path / "out.json").read_text())
    steps = [row for row in rows if row["kind"] == "step"]
    assert {(row["ranks"], row["tweets_per_rank"]) for row in steps} == {(1, 8), (1, 16), (2, 8), (2, 16)}
    for row in steps:
        assert row["tokens_per_second"] > 0 and row["compute_seconds"] > 0 and row["core"] == cores[0]
        assert row["tokens_per_step"] == pytest.approx(row["ranks"] * row["tokens_per_rank"])
        # Every gradient is in exactly one bucket, in fp32.
        assert sum(row["bucket_bytes"]) == (4 * row["parameters"] if row["ranks"] > 1 else 0)
        assert (row["all_reduce_seconds"] > 0) == (row["ranks"] > 1) and str(tmp_path) not in row["command"]
    assert len([row for row in rows if row["kind"] == "check"]) == 4
    assert {row["bytes"] for row in rows if row["kind"] == "all_reduce"} == set(scaling.SIZES)
    table = (tmp_path / "out.md").read_text()
    assert table in capsys.readouterr().out and "Weak scaling" in table and "Strong scaling" in table
    pytest.importorskip("matplotlib")
    assert (tmp_path / "out.png").stat().st_size > 1000

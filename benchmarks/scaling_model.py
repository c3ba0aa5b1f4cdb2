"""A model of the step's time on many ranks: compute on one rank, all-reduce, overlap, and waiting for slower ranks.

    step = compute · imbalance · jitter + all-reduce left after the backward pass + counts that arrive late

compute      fixed + per token · tokens: a line fitted to the steps of one rank
all-reduce   of each bucket, 2 log₂ p · latency + 2 (p − 1) / p · bytes / bandwidth (reduce-scatter and all-gather:
             Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication operations in MPICH",
             section 4.5); over machines of g GPUs: within each machine, then between machines 1/g of the bytes by each
             GPU, then within each machine
overlap      a bucket is reduced as soon as its gradients are ready and the bucket before it is done; the last bucket,
             with the embeddings, is ready when the backward pass ends; only a share of the time that could be hidden is
imbalance    rows of the fullest rank over the mean (benchmarks/results/imbalance.json)
jitter       the expected maximum of p normal deviations (Blom 1958, "Statistical Estimates and Transformed
             Beta-Variables"): of many ranks, one is slow in every step
counts       four integers per rank by gloo, p − 1 hops around a ring, gathered while the previous step is computed
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks.common import Row


@dataclass(frozen=True)
class Link:
    """A link between ranks: seconds per message, and bytes per second of each rank and direction."""

    latency: float
    bandwidth: float

    def all_reduce(self, size: float, ranks: int) -> float:
        """Seconds of an all-reduce of `size` bytes over `ranks` ranks."""
        if ranks == 1:
            return 0.0
        return 2 * math.log2(ranks) * self.latency + 2 * (ranks - 1) / ranks * size / self.bandwidth


@dataclass(frozen=True)
class Cluster:
    """Machines of several ranks each.

    Attributes:
        ranks_per_machine: number of ranks on each machine.
        within: link between ranks of one machine.
        between: link between machines.
        hop: seconds per small message between hosts, for the counts.
    """

    ranks_per_machine: int
    within: Link
    between: Link
    hop: float

    def all_reduce(self, size: float, ranks: int) -> float:
        local_ranks = min(ranks, self.ranks_per_machine)
        machines = -(-ranks // local_ranks)
        return self.within.all_reduce(size, local_ranks) + self.between.all_reduce(size / local_ranks, machines)


@dataclass(frozen=True)
class Job:
    """A training run and its costs on one rank.

    Attributes:
        fixed: seconds per step that do not depend on tokens, such as the optimizer.
        per_token: seconds per real token.
        buckets: bytes of each bucket of gradients, in the order in which they are reduced.
        embeddings: bytes of the embeddings' gradients, in the last bucket; all others become ready evenly during the
            backward pass.
        micro_batch: tokens per micro-batch; all-reduce overlaps with the last micro-batch only.
        overlap: hidden share of the all-reduce time that could be hidden.
        jitter: standard deviation of a rank's compute time, relative to the time.
        backward: share of the backward pass in compute.
    """

    fixed: float
    per_token: float
    buckets: tuple[float, ...]
    embeddings: float
    micro_batch: float
    overlap: float
    jitter: float
    backward: float = 2 / 3

    def compute(self, tokens: float) -> float:
        """Seconds of compute for `tokens` tokens."""
        return self.fixed + self.per_token * tokens


def predict(job: Job, cluster: Cluster, ranks: int, tokens: float, imbalance: float) -> dict[str, float]:
    """Predict a step of `tokens` real tokens per rank: seconds by part, and efficiency relative to one rank."""
    alone = job.compute(tokens)
    if ranks == 1:
        return {"compute": alone, "waiting": 0.0, "exposed": 0.0, "hidden": 0.0, "step": alone, "efficiency": 1.0}
    waiting = alone * (imbalance * (1 + job.jitter * expected_maximum(ranks)) - 1)
    all_reduce = sum(cluster.all_reduce(size, ranks) for size in job.buckets)
    window = job.backward * job.per_token * min(tokens, job.micro_batch)
    exposed = all_reduce - job.overlap * (all_reduce - unhideable(job, cluster, ranks, window))
    without_counts = alone + waiting + exposed
    late = max(0.0, (ranks - 1) * cluster.hop - without_counts)
    step = without_counts + late
    parts = {"compute": alone, "waiting": waiting + late, "exposed": exposed, "hidden": all_reduce - exposed}
    return {**parts, "step": step, "efficiency": alone / step}


def expected_maximum(count: int) -> float:
    """Expected maximum of `count` independent standard normal variables, by Blom's formula."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def unhideable(job: Job, cluster: Cluster, ranks: int, window: float) -> float:
    """Seconds of all-reduce left when a backward pass of `window` seconds ends, with perfect overlap."""
    without_embeddings = sum(job.buckets) - job.embeddings
    ready = done = 0.0
    for size in job.buckets:
        ready += size
        done = max(done, window * min(1.0, ready / without_embeddings)) + cluster.all_reduce(size, ranks)
    return max(0.0, done - window)


def imbalance(rows: list[Row], ranks: int, tweets: float) -> float:
    """Rows of the fullest rank over the mean, interpolated linearly in the logarithms of ranks and tweets.

    Args:
        rows: rows of imbalance.json.
        ranks: world size.
        tweets: tweets per rank and step.
    """
    table = {
        (row["ranks"], row["tweets_per_rank"]): row["rows_max_over_mean"]
        for row in rows
        if "rows_max_over_mean" in row and (row["dealt_by_length"] or row["ranks"] == 1)
    }
    all_ranks, all_tweets = (sorted({key[part] for key in table}) for part in (0, 1))
    by_ranks = [
        np.interp(math.log(max(1.0, tweets)), np.log(all_tweets), [table[count, size] for size in all_tweets])
        for count in all_ranks
    ]
    return float(np.interp(math.log(ranks), np.log(all_ranks), by_ranks))


def fit(steps: list[Row], all_reduces: list[Row]) -> tuple[Job, dict[int, Link], dict[int, float]]:
    """Fit the model to the measured steps and all-reduces of one precision.

    Args:
        steps: rows of kind `step`, of one rank and of several.
        all_reduces: rows of kind `all_reduce`.

    Returns:
        The job; the link by world size; and, by world size, how much slower compute is than on one rank alone.
    """
    single = [row for row in steps if row["ranks"] == 1]
    tokens = np.array([row["tokens_per_rank"] for row in single])
    fixed, per_token = fit_line(tokens, np.array([row["compute_seconds"] for row in single]))
    several = [row for row in steps if row["ranks"] > 1]
    jitter = float(np.median([row["jitter"] for row in steps]))
    divisor = 2 if steps[0]["gradients"] == "bf16" else 1
    buckets = tuple(size / divisor for size in several[0]["bucket_bytes"])
    embeddings = several[0]["embedding_bytes"] / divisor
    job = Job(fixed, per_token, buckets, embeddings, math.inf, 0.0, jitter)
    links, slowdowns = {}, {}
    for ranks in sorted({row["ranks"] for row in several}):
        of_ranks = [row for row in all_reduces if row["ranks"] == ranks]
        sizes = np.array([row["bytes"] for row in of_ranks])
        latency, per_byte = fit_line(sizes, np.array([row["seconds"] for row in of_ranks]))
        links[ranks] = Link(latency / 2 / math.log2(ranks), 2 * (ranks - 1) / ranks / per_byte)
        ratios = [
            row["compute_seconds"] / job.compute(row["tokens_per_rank"]) for row in several if row["ranks"] == ranks
        ]
        slowdowns[ranks] = float(np.median(ratios))
    shares = [_overlap(job, links[row["ranks"]], row) for row in several]
    return replace(job, overlap=float(np.median(shares))), links, slowdowns


def fit_line(x: Any, seconds: Any) -> tuple[float, float]:
    """Fit a line with the least relative error; return its intercept and slope, both at least zero."""
    weights = 1 / seconds
    slope, intercept = np.polyfit(x, seconds, 1, w=weights) if len(set(x.tolist())) > 1 else (0.0, -1.0)
    if intercept < 0:
        return 0.0, float((seconds * weights).sum() / (x * weights).sum())
    if slope < 0:
        return float(np.mean(seconds)), 0.0
    return float(intercept), float(slope)


def _overlap(job: Job, link: Link, row: Row) -> float:
    """Hidden share of the all-reduce time that could be hidden."""
    cluster = Cluster(row["ranks"], link, link, 0.0)
    all_reduce = sum(cluster.all_reduce(size, row["ranks"]) for size in job.buckets)
    window = job.backward * job.per_token * row["tokens_per_rank"]
    hideable = all_reduce - unhideable(job, cluster, row["ranks"], window)
    return min(1.0, max(0.0, (all_reduce - row["exposed_seconds"]) / hideable)) if hideable > 0 else 0.0

"""A model of the step's time on many ranks: what one rank does alone, all-reduce, what overlaps, who waits for whom.

    step = compute · imbalance · jitter + all-reduce that is left when the backward pass ends + counts that come late

compute      fixed + per token · tokens: a line through the steps of one rank
all-reduce   of each bucket, 2 log₂ p · latency + 2 (p − 1) / p · bytes / bandwidth (reduce-scatter and all-gather:
             Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication operations in MPICH",
             section 4.5); over machines of g GPUs: within each, of 1/g of the bytes by each GPU between them, within
overlap      a bucket is reduced once its gradients are there and the one before it is done; the last, which holds the
             embeddings, is there when the backward pass ends. What could be hidden so is hidden by a share
imbalance    rows of the fullest rank over the mean (benchmarks/results/imbalance.json)
jitter       the expected maximum of p normal deviations (Blom 1958, "Statistical Estimates and Transformed
             Beta-Variables"): the slowest of many ranks is slow in every step
counts       four integers of each rank by gloo, p − 1 hops around a ring, gathered while the step before is computed
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True)
class Link:
    """A way between ranks: seconds of a message, and bytes a second of each rank in each direction."""

    latency: float
    bandwidth: float

    def all_reduce(self, size: float, ranks: int) -> float:
        """Seconds of an all-reduce of `size` bytes over so many ranks."""
        if ranks == 1:
            return 0.0
        return 2 * math.log2(ranks) * self.latency + 2 * (ranks - 1) / ranks * size / self.bandwidth


@dataclass(frozen=True)
class Cluster:
    """Machines of some ranks each."""

    ranks_a_machine: int
    within: Link
    between: Link
    hop: float  # seconds of a small message of the host, for the counts

    def all_reduce(self, size: float, ranks: int) -> float:
        here = min(ranks, self.ranks_a_machine)
        machines = -(-ranks // here)
        return self.within.all_reduce(size, here) + self.between.all_reduce(size / here, machines)


@dataclass(frozen=True)
class Job:
    """A training run, and how a rank runs it.

    Attributes:
        fixed, per_token: seconds of a step alone: optimizer and the like, and each real token.
        buckets: bytes of each bucket of gradients, in the order in which they are reduced.
        embeddings: bytes of those in the last bucket; all others come evenly during the backward pass.
        micro_batch: tokens that are computed at a time; all-reduce runs beside the last of them alone.
        overlap: share of what could be hidden that is.
        jitter: standard deviation of a rank's compute, as a share of it.
        backward: share of compute.
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
        return self.fixed + self.per_token * tokens


def predicted(job: Job, cluster: Cluster, ranks: int, tokens: float, imbalance: float) -> dict[str, float]:
    """Seconds of a step of so many real tokens a rank, by part, and its efficiency beside one rank alone."""
    alone = job.compute(tokens)
    if ranks == 1:
        return {"compute": alone, "waiting": 0.0, "exposed": 0.0, "hidden": 0.0, "step": alone, "efficiency": 1.0}
    waiting = alone * (imbalance * (1 + job.jitter * expected_maximum(ranks)) - 1)
    whole = sum(cluster.all_reduce(size, ranks) for size in job.buckets)
    window = job.backward * job.per_token * min(tokens, job.micro_batch)
    exposed = whole - job.overlap * (whole - left_over(job, cluster, ranks, window))
    beside = alone + waiting + exposed
    late = max(0.0, (ranks - 1) * cluster.hop - beside)
    step = beside + late
    parts = {"compute": alone, "waiting": waiting + late, "exposed": exposed, "hidden": whole - exposed}
    return {**parts, "step": step, "efficiency": alone / step}


def expected_maximum(count: int) -> float:
    """Of so many independent standard normal variables, by Blom's formula."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def left_over(job: Job, cluster: Cluster, ranks: int, window: float) -> float:
    """All-reduce that is not done when a backward pass of `window` seconds ends, with perfect overlap."""
    evenly = sum(job.buckets) - job.embeddings
    there = done = 0.0
    for size in job.buckets:
        there += size
        done = max(done, window * min(1.0, there / evenly)) + cluster.all_reduce(size, ranks)
    return max(0.0, done - window)


def imbalance(rows: list[Row], ranks: int, tweets: float) -> float:
    """Rows of the fullest rank over the mean, between what was counted: linear in the logarithms of both.

    Args:
        rows: of imbalance.json.
        ranks: of the step.
        tweets: of each.
    """
    table = {
        (row["ranks"], row["tweets_a_rank"]): row["rows_max_over_mean"]
        for row in rows
        if "rows_max_over_mean" in row and (row["dealt"] or row["ranks"] == 1)
    }
    known_ranks, known_tweets = (sorted({key[place] for key in table}) for place in (0, 1))
    of_ranks = [
        np.interp(math.log(max(1.0, tweets)), np.log(known_tweets), [table[count, each] for each in known_tweets])
        for count in known_ranks
    ]
    return float(np.interp(math.log(ranks), np.log(known_ranks), of_ranks))


def fitted(steps: list[Row], reduces: list[Row]) -> tuple[Job, dict[int, Link], dict[int, float]]:
    """What the measured steps and all-reduces of one precision say.

    Args:
        steps: rows of kind `step`, of one rank and of several.
        reduces: rows of kind `all_reduce`.

    Returns:
        The job; by number of ranks the link; and by number of ranks how much slower compute is beside the others.
    """
    ones = [row for row in steps if row["ranks"] == 1]
    tokens = np.array([row["tokens_a_rank"] for row in ones])
    fixed, per_token = line(tokens, np.array([row["compute_seconds"] for row in ones]))
    several = [row for row in steps if row["ranks"] > 1]
    jitter = float(np.median([row["jitter"] for row in steps]))
    half = steps[0]["gradients"] == "bf16"
    buckets = tuple(size / 2 if half else size for size in several[0]["bucket_bytes"])
    embeddings = several[0]["embedding_bytes"] / (2 if half else 1)
    job = Job(fixed, per_token, buckets, embeddings, math.inf, 0.0, jitter)
    links, slower = {}, {}
    for ranks in sorted({row["ranks"] for row in several}):
        of_ranks = [row for row in reduces if row["ranks"] == ranks]
        sizes = np.array([row["bytes"] for row in of_ranks])
        latency, per_byte = line(sizes, np.array([row["seconds"] for row in of_ranks]))
        links[ranks] = Link(latency / 2 / math.log2(ranks), 2 * (ranks - 1) / ranks / per_byte)
        with_others = [row for row in several if row["ranks"] == ranks]
        slower[ranks] = float(
            np.median([row["compute_seconds"] / job.compute(row["tokens_a_rank"]) for row in with_others])
        )
    shares = [_overlap(job, links[row["ranks"]], row) for row in several]
    return replace(job, overlap=float(np.median(shares))), links, slower


def line(places: Any, seconds: Any) -> tuple[float, float]:
    """The line of least relative error through some times, neither of its numbers below zero."""
    weights = 1 / seconds
    slope, start = np.polyfit(places, seconds, 1, w=weights) if len(set(places.tolist())) > 1 else (0.0, -1.0)
    if start < 0:
        return 0.0, float((seconds * weights).sum() / (places * weights).sum())
    if slope < 0:
        return float(np.mean(seconds)), 0.0
    return float(start), float(slope)


def _overlap(job: Job, link: Link, row: Row) -> float:
    """The share of the all-reduce that could be hidden which was."""
    here = Cluster(row["ranks"], link, link, 0.0)
    whole = sum(here.all_reduce(size, row["ranks"]) for size in job.buckets)
    window = job.backward * job.per_token * row["tokens_a_rank"]
    could = whole - left_over(job, here, row["ranks"], window)
    return min(1.0, max(0.0, (whole - row["exposed_seconds"]) / could)) if could > 0 else 0.0

"""BERT-base on a cluster of GPUs, by the model of `scaling_model`: what is assumed, and step and efficiency from it.

Nothing here was measured on a cluster. What was measured is the imbalance of real tweets, and on this machine how far
the model is from the step's time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.common import ROOT
from benchmarks.scaling_model import Cluster, Job, Link, fitted, imbalance, predicted

Row = dict[str, Any]

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
TOKENS_A_TWEET = 25.6  # the everyday tweets, under bert-base-uncased's tokenizer
WEAK_TOKENS = (16_384, 65_536)
STRONG_TWEETS = 65_536
_LAYER, _LAYERS, _EMBEDDINGS = 7.09e6, 12, 24.4e6  # parameters of BERT-base; the head's own are with the embeddings
_BUCKET = 25 * 2**20  # DDP's, in bytes of fp32


@dataclass(frozen=True)
class Assumption:
    """A figure that the prediction stands on."""

    what: str
    value: float
    shown: str
    source: str


ASSUMED = {
    "rate": Assumption("a GPU alone", 700e3, "700,000 real tokens/s", "64 % of what NOTES.md computes; not measured"),
    "fixed": Assumption("optimizer and launches of a step", 2e-3, "2 ms", "1.1 ms of memory traffic in NOTES.md"),
    "micro_batch": Assumption("tokens computed at a time", 16_384, "16,384", "tokens_per_device's default"),
    "machine": Assumption("GPUs of a machine", 8, "8", "DGX H100 and its like"),
    "nvlink": Assumption("NVLink, each direction of a GPU", 360e9, "360 GB/s", "80 % of NVLink 4's 450 GB/s"),
    "nvlink_latency": Assumption("NVLink, a message", 3e-6, "3 µs", "order of NCCL's small all-reduces"),
    "ib": Assumption("InfiniBand, each direction of a GPU", 40e9, "40 GB/s", "80 % of 400 Gb/s"),
    "ib_latency": Assumption("InfiniBand, a message", 10e-6, "10 µs", "order of NCCL's small all-reduces"),
    "overlap": Assumption("of what could be hidden", 0.8, "80 %", "NCCL's kernels take some of the GPU's units"),
    "jitter": Assumption("deviation of a GPU's compute", 0.01, "1 %", "assumed"),
    "hop": Assumption("a hop of the counts, gloo over TCP", 25e-6, "25 µs", "assumed; the ring has p - 1"),
}


def rows(measured: list[Row]) -> list[Row]:
    """The fit to what was measured, the model beside each measured step, and the prediction for a cluster."""
    known = json.loads((ROOT / "benchmarks/results/imbalance.json").read_text(encoding="utf-8"))
    found: list[Row] = []
    for way in _ways(measured):
        found += _beside_measured(way, measured, known)
    return found + _cluster_rows(known)


def _ways(measured: list[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["precision"], row["gradients"]) for row in measured if row["kind"] == "step"))


def _beside_measured(way: tuple[str, str], measured: list[Row], known: list[Row]) -> list[Row]:
    of_way = [row for row in measured if (row["precision"], row["gradients"]) == way]
    about = dict(zip(("precision", "gradients"), way, strict=True))
    steps, reduces = ([row for row in of_way if row["kind"] == kind] for kind in ("step", "all_reduce"))
    if not any(row["ranks"] == 1 for row in steps) or not any(row["ranks"] > 1 for row in steps):
        return []
    job, links, slower = fitted(steps, reduces)
    fits = {
        "kind": "fit",
        "fixed_seconds": job.fixed,
        "tokens_per_second": 1 / job.per_token,
        "overlap": job.overlap,
        "jitter": job.jitter,
    }
    found: list[Row] = [about | fits]
    for ranks, link in links.items():
        here = {"kind": "link", "ranks": ranks, "latency": link.latency, "bandwidth": link.bandwidth}
        found.append(about | here | {"compute_beside_others": slower[ranks]})
    for row in steps:
        ranks = row["ranks"]
        link = links.get(ranks, Link(0.0, 1.0))
        beside = slower.get(ranks, 1.0)
        slowed = replace(job, fixed=job.fixed * beside, per_token=job.per_token * beside)
        uneven = imbalance(known, ranks, row["tweets_a_rank"])
        model = predicted(slowed, Cluster(ranks, link, link, 0.0), ranks, row["tokens_a_rank"], uneven)
        seconds = row["compute_seconds"] + row["waiting_seconds"] + row["exposed_seconds"]
        checked = {"kind": "check", "ranks": ranks, "tweets_a_rank": row["tweets_a_rank"]}
        found.append(about | checked | {"measured_seconds": seconds, "model_seconds": model["step"]})
    return found


def job_of(gradient_bytes: int) -> Job:
    """BERT-base on the assumed GPU, its gradients exchanged in so many bytes each."""
    layers = _LAYER * _LAYERS
    count = round(layers * 4 / _BUCKET)
    buckets = (*[layers / count * gradient_bytes] * count, _EMBEDDINGS * gradient_bytes)
    value = {name: assumption.value for name, assumption in ASSUMED.items()}
    compute = value["fixed"], 1 / value["rate"]
    return Job(*compute, buckets, buckets[-1], value["micro_batch"], value["overlap"], value["jitter"])


def cluster(share: float = 1.0) -> Cluster:
    """The assumed machines; a GPU has some share of the network card that is assumed for each."""
    value = {name: assumption.value for name, assumption in ASSUMED.items()}
    between = Link(value["ib_latency"], value["ib"] * share)
    return Cluster(round(value["machine"]), Link(value["nvlink_latency"], value["nvlink"]), between, value["hop"])


NETWORKS = {"a 400 Gb/s card a GPU": 1.0, "a 400 Gb/s card a machine": 1 / 8}


def _cluster_rows(known: list[Row]) -> list[Row]:
    found = []
    for network, share in NETWORKS.items():
        for gradients, size in (("fp32", 4), ("bf16", 2)):
            job, about = job_of(size), {"kind": "predicted", "network": network, "gradients": gradients}
            for gpus in GPUS:
                weak = [("weak", tokens) for tokens in WEAK_TOKENS]
                for scaling, tokens in [*weak, ("strong", STRONG_TWEETS * TOKENS_A_TWEET / gpus)]:
                    uneven = imbalance(known, gpus, tokens / TOKENS_A_TWEET)
                    parts = predicted(job, cluster(share), gpus, tokens, uneven)
                    if scaling == "strong":
                        whole = job.compute(tokens * gpus)
                        parts["efficiency"] = whole / gpus / parts["step"]
                    sizes = {"gpus": gpus, "scaling": scaling, "tokens_a_gpu": tokens, "imbalance": uneven}
                    found.append(about | sizes | parts | {"tokens_per_second": tokens * gpus / parts["step"]})
    return found

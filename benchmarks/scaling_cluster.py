"""Prediction for BERT-base on a cluster of GPUs by the model of `scaling_model`, with its assumptions.

Nothing here was measured on a cluster. Measured are the imbalance of real tweets and, on this machine, how well the
model predicts the step's time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from benchmarks.common import ROOT, Row, rows_of_kind
from benchmarks.scaling_model import Cluster, Job, Link, fit, imbalance, predict

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
TOKENS_PER_TWEET = 25.6  # everyday tweets with bert-base-uncased's tokenizer
WEAK_TOKENS = (16_384, 65_536)
STRONG_TWEETS = 65_536
_LAYER, _LAYERS, _EMBEDDINGS = 7.09e6, 12, 24.4e6  # parameters of BERT-base; the embeddings include the head's own
_BUCKET = 25 * 2**20  # DDP's bucket size in bytes of fp32


@dataclass(frozen=True)
class Assumption:
    """An assumed figure of the prediction; `text` is the value with its unit."""

    name: str
    value: float
    text: str
    source: str


ASSUMED = {
    "rate": Assumption(
        "rate of a single GPU", 700e3, "700,000 real tokens/s", "64 % of NOTES.md's limit; not measured"
    ),
    "fixed": Assumption("optimizer and launches per step", 2e-3, "2 ms", "1.1 ms of memory traffic in NOTES.md"),
    "micro_batch": Assumption("tokens per micro-batch", 16_384, "16,384", "tokens_per_device's default"),
    "machine": Assumption("GPUs per machine", 8, "8", "DGX H100 and similar"),
    "nvlink": Assumption("NVLink bandwidth per GPU and direction", 360e9, "360 GB/s", "80 % of NVLink 4's 450 GB/s"),
    "nvlink_latency": Assumption("NVLink latency per message", 3e-6, "3 µs", "typical of small NCCL all-reduces"),
    "ib": Assumption("InfiniBand bandwidth per GPU and direction", 40e9, "40 GB/s", "80 % of 400 Gb/s"),
    "ib_latency": Assumption("InfiniBand latency per message", 10e-6, "10 µs", "typical of small NCCL all-reduces"),
    "overlap": Assumption("share of hideable all-reduce hidden", 0.8, "80 %", "NCCL's kernels occupy part of the GPU"),
    "jitter": Assumption("deviation of a GPU's compute time", 0.01, "1 %", "assumed"),
    "hop": Assumption("latency per hop of the counts", 25e-6, "25 µs", "assumed; gloo over TCP, p - 1 hops"),
}


def rows(measured: list[Row]) -> list[Row]:
    """Rows of the fit to the measured steps, of the model's error at each, and of the prediction for a cluster."""
    imbalances = json.loads((ROOT / "benchmarks/results/imbalance.json").read_text(encoding="utf-8"))
    setups = dict.fromkeys((row["precision"], row["gradients"]) for row in rows_of_kind(measured, "step"))
    fits = [row for setup in setups for row in _fit_rows(setup, measured, imbalances)]
    return fits + _cluster_rows(imbalances)


def _fit_rows(setup: tuple[str, str], measured: list[Row], imbalances: list[Row]) -> list[Row]:
    of_setup = [row for row in measured if (row["precision"], row["gradients"]) == setup]
    columns = dict(zip(("precision", "gradients"), setup, strict=True))
    steps, all_reduces = (rows_of_kind(of_setup, kind) for kind in ("step", "all_reduce"))
    if not any(row["ranks"] == 1 for row in steps) or not any(row["ranks"] > 1 for row in steps):
        return []
    job, links, slowdowns = fit(steps, all_reduces)
    fitted = {
        "kind": "fit",
        "fixed_seconds": job.fixed,
        "tokens_per_second": 1 / job.per_token,
        "overlap": job.overlap,
        "jitter": job.jitter,
    }
    result: list[Row] = [columns | fitted]
    for ranks, link in links.items():
        row = {"kind": "link", "ranks": ranks, "latency": link.latency, "bandwidth": link.bandwidth}
        result.append(columns | row | {"compute_slowdown": slowdowns[ranks]})
    for step in steps:
        ranks = step["ranks"]
        link = links.get(ranks, Link(0.0, 1.0))
        slowdown = slowdowns.get(ranks, 1.0)
        slowed_job = replace(job, fixed=job.fixed * slowdown, per_token=job.per_token * slowdown)
        uneven = imbalance(imbalances, ranks, step["tweets_per_rank"])
        model = predict(slowed_job, Cluster(ranks, link, link, 0.0), ranks, step["tokens_per_rank"], uneven)
        seconds = step["compute_seconds"] + step["waiting_seconds"] + step["exposed_seconds"]
        row = {"kind": "check", "ranks": ranks, "tweets_per_rank": step["tweets_per_rank"]}
        result.append(columns | row | {"measured_seconds": seconds, "model_seconds": model["step"]})
    return result


def job_of(gradient_bytes: int) -> Job:
    """BERT-base on the assumed GPU, with `gradient_bytes` bytes exchanged per parameter."""
    layers = _LAYER * _LAYERS
    count = round(layers * 4 / _BUCKET)
    buckets = (*[layers / count * gradient_bytes] * count, _EMBEDDINGS * gradient_bytes)
    value = {name: assumption.value for name, assumption in ASSUMED.items()}
    compute = value["fixed"], 1 / value["rate"]
    return Job(*compute, buckets, buckets[-1], value["micro_batch"], value["overlap"], value["jitter"])


def cluster(share: float = 1.0) -> Cluster:
    """The assumed machines, if each GPU has this share of the assumed network card."""
    value = {name: assumption.value for name, assumption in ASSUMED.items()}
    between = Link(value["ib_latency"], value["ib"] * share)
    return Cluster(round(value["machine"]), Link(value["nvlink_latency"], value["nvlink"]), between, value["hop"])


NETWORKS = {"a 400 Gb/s card per GPU": 1.0, "a 400 Gb/s card per machine": 1 / 8}


def _cluster_rows(imbalances: list[Row]) -> list[Row]:
    result = []
    for network, share in NETWORKS.items():
        for gradients, size in (("fp32", 4), ("bf16", 2)):
            job, columns = job_of(size), {"kind": "predicted", "network": network, "gradients": gradients}
            for gpus in GPUS:
                weak = [("weak", tokens) for tokens in WEAK_TOKENS]
                for scaling, tokens in [*weak, ("strong", STRONG_TWEETS * TOKENS_PER_TWEET / gpus)]:
                    uneven = imbalance(imbalances, gpus, tokens / TOKENS_PER_TWEET)
                    parts = predict(job, cluster(share), gpus, tokens, uneven)
                    if scaling == "strong":
                        one_gpu = job.compute(tokens * gpus)
                        parts["efficiency"] = one_gpu / gpus / parts["step"]
                    sizes = {"gpus": gpus, "scaling": scaling, "tokens_per_gpu": tokens, "imbalance": uneven}
                    result.append(columns | sizes | parts | {"tokens_per_second": tokens * gpus / parts["step"]})
    return result

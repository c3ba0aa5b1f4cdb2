"""Hugging Face's Trainer on the GPU, at one batch size; `throughput_references` describes each mode."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from benchmarks.gpu_rows import GpuRun, Rows
from benchmarks.throughput_ours import peaks
from benchmarks.worker_group import FailedError, TurnTimer, WorkerGroup, utilisation
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.training.flops import flops_per_token

_WARMUP_STEPS = 8
_MASKED_SHARE = 0.15


def references(run: GpuRun, rows: Rows) -> None:
    """Measure the padding-free step with FlashAttention, and tuned Trainer without torch.compile (starts sooner)."""
    measure(run, rows, "flash_padding_free")
    measure(run, rows, "trainer_tuned", compile=False)


def compiled_reference(run: GpuRun, rows: Rows) -> None:
    """Measure tuned Trainer with torch.compile."""
    measure(run, rows, "trainer_tuned")


def measure(run: GpuRun, rows: Rows, mode: str, compile: bool = True) -> None:
    """Add a row for one mode, at one batch size."""
    device = run.device.type
    batch, seconds = (8, 0.0) if run.small else (1024, 5.0)
    columns = {
        "who": mode,
        "model": "tiny" if run.small else "bert-base-random",
        "precision": "bf16",
        "engine": "trainer",
        "batch_rows": batch,
    }
    columns |= {"compiled": compile and mode == "trainer_tuned" and device == "cuda", "optimizer_included": True}
    if mode == "flash_padding_free" and device == "cpu":
        rows.add(**columns, skipped="FlashAttention needs a GPU")
        return
    workers = WorkerGroup("throughput_references", run.shards, device, 1)
    try:
        answer = workers.build(mode=mode, model=run.model(), batch=batch, precision="bf16", compile=compile)
        timer = TurnTimer(workers, 1 if run.small else _WARMUP_STEPS)
        timer.turn(seconds)
        rows.add(**columns, attention=answer["attention"], **with_mfu(run, timer.summary()))
    except FailedError as reason:
        rows.add(**columns, failed=str(reason))
    finally:
        workers.close()


def with_mfu(run: GpuRun, summary: dict[str, Any]) -> dict[str, Any]:
    """Add model FLOPs utilisation (MFU), which counts only the FLOPs that real tokens need."""
    lengths = open_split(run.shards, Manifest.read(run.shards), "train").lengths(0).astype(float)
    attended = float((lengths**2).sum() / lengths.sum())
    per_token = flops_per_token(AutoConfig.from_pretrained(run.model()), _MASKED_SHARE, attended)
    return summary | utilisation(summary["tokens_per_second"] * per_token, peaks(run.device, "bf16"))

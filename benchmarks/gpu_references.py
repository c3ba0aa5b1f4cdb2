"""Hugging Face's Trainer on the GPU of the run, at one batch size; `throughput_references` says what each way is."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from benchmarks.gpu_rows import Place, Rows
from benchmarks.throughput_ours import peaks
from benchmarks.throughput_parties import FailedError, Party, Timed
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.training.flops import flops_per_token

_WARM = 8
_MASKED = 0.15


def references(place: Place, rows: Rows) -> None:
    """Padding-free with FlashAttention, and Trainer tuned but not compiled, which takes longer to start."""
    measure(place, rows, "flash_padding_free")
    measure(place, rows, "trainer_tuned", compile=False)


def compiled_reference(place: Place, rows: Rows) -> None:
    """Trainer tuned, with torch.compile on a GPU."""
    measure(place, rows, "trainer_tuned")


def measure(place: Place, rows: Rows, mode: str, compile: bool = True) -> None:
    """A row for one way, at one batch size."""
    device = place.device.type
    batch, seconds = (8, 0.0) if place.small else (1024, 5.0)
    about = {
        "who": mode,
        "model": "tiny" if place.small else "bert-base-random",
        "precision": "bf16",
        "engine": "trainer",
        "batch_rows": batch,
    }
    about |= {"compiled": compile and mode == "trainer_tuned" and device == "cuda", "optimizer_included": True}
    if mode == "flash_padding_free" and device == "cpu":
        rows.add(**about, skipped="FlashAttention needs a GPU")
        return
    party = Party("throughput_references", place.shards, device, 1)
    try:
        built = party.build(mode=mode, model=place.model(), batch=batch, precision="bf16", compile=compile)
        timed = Timed(party, 1 if place.small else _WARM)
        timed.turn(seconds)
        rows.add(**about, attention=built["attention"], **with_mfu(place, timed.summary()))
    except FailedError as reason:
        rows.add(**about, failed=str(reason))
    finally:
        party.close()


def with_mfu(place: Place, found: dict[str, Any]) -> dict[str, Any]:
    """Model FLOPs utilisation, by what the model needs for its real tokens alone."""
    lengths = open_split(place.shards, Manifest.read(place.shards), "train").lengths(0).astype(float)
    attended = float((lengths**2).sum() / lengths.sum())
    needed = found["tokens_per_second"] * flops_per_token(AutoConfig.from_pretrained(place.model()), _MASKED, attended)
    peak = peaks(place.device, "bf16")
    return {**found, "mfu": needed / peak["matrix_peak"], "mfu_of_measured_peak": needed / peak["measured_peak"]}

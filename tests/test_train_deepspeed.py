"""train with DeepSpeed gives the model of DDP; a failing rank ends the others."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.processes import run, stage
from tests.test_train import lines_of, words_of

pytestmark = pytest.mark.xdist_group("ranks")

SETTINGS = ("max_steps=8", "tokens_per_device=600", "validation.every_steps=4", "log.every_steps=1")
FAILING = str(Path(__file__).parent / "engine" / "failing_rank.py")


def shape_of(said: str) -> list[str]:
    """The printed lines without numbers, folders and the engine."""
    return re.sub(r"\([^)]*\)|[\d.,]+|\S*/\S*", "#", said).splitlines()


@pytest.mark.dist
def test_the_export_from_zero_3_equals_that_of_ddp(shards: Path, tmp_path: Path) -> None:
    """With a user's JSON, on a machine without a compiler, and without output of DeepSpeed."""
    by_ddp = tmp_path / "ddp"
    plain = stage("train", *words_of(shards, by_ddp, *SETTINGS), processes=2)
    # Tiny parameters would not be sharded.
    (tmp_path / "mine.json").write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 0}}')
    words = ("engine.name=deepspeed", "engine.zero_stage=3", f"engine.deepspeed_config={tmp_path}/mine.json")
    (tmp_path / "bin").mkdir()
    bare = {"PATH": str(tmp_path / "bin"), "CC": "", "CXX": "", "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    begun = time.monotonic()
    done = stage("train", *words_of(shards, tmp_path / "run", *SETTINGS, *words), processes=2, **bare)
    assert time.monotonic() - begun < 60 and not (tmp_path / "extensions").exists()
    assert "(deepspeed, ZeRO 3)" in done.stdout
    assert shape_of(done.stdout) == shape_of(plain.stdout) and shape_of(done.stderr) == shape_of(plain.stderr)

    ours, theirs = (lines_of(folder / "metrics.jsonl") for folder in (by_ddp, tmp_path / "run"))
    for mine, other in zip(ours, theirs, strict=True):
        assert other["loss"] == pytest.approx(mine["loss"], abs=1e-5)
        assert other["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-5)
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (by_ddp, tmp_path / "run"))
    assert list(one) == list(two)
    for name, weight in one.items():
        # key.bias has no true gradient: Adam makes steps of size lr out of rounding.
        bound = 2 * 8 * 5e-5 if name.endswith("key.bias") else 1e-5
        assert float((two[name] - weight).abs().max()) < bound, name
    summaries = [json.loads((folder / "run.json").read_text()) for folder in (by_ddp, tmp_path / "run")]
    assert [summary["engine"] for summary in summaries] == ["ddp", "deepspeed, ZeRO 3"]
    assert summaries[0]["validation_loss"] == pytest.approx(summaries[1]["validation_loss"], abs=1e-5)
    files = [sorted(path.name for path in (folder / "model").iterdir()) for folder in (by_ddp, tmp_path / "run")]
    assert files[0] == files[1] and all(name.endswith((".json", ".safetensors", ".txt")) for name in files[1])


@pytest.mark.dist
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(["engine.name=ddp"], marks=pytest.mark.soak),
        ["engine.name=deepspeed", "engine.zero_stage=3"],
    ],
)
def test_a_failing_rank_ends_the_others_and_is_named(engine: list[str], shards: Path, tmp_path: Path) -> None:
    words = words_of(shards, tmp_path / "run", *SETTINGS, *engine)
    done = run([FAILING, *words], processes=3, timeout=120)
    seconds = time.time() - (tmp_path / "run/metrics.jsonl").stat().st_mtime
    assert done.returncode == 1
    cause = done.stderr.split("Root Cause (first observed failure):")[1]
    assert "rank      : 1 (local_rank: 1)" in cause and "RuntimeError: rank 1 cannot continue" in cause
    assert [line["step"] for line in lines_of(tmp_path / "run/metrics.jsonl")] == [1, 2]
    assert seconds < 30  # since the second step

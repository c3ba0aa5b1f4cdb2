"""benchmarks/gpu.sh: its parts keep to their limits and leave rows, and need nothing that a bare GPU machine lacks."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_checks, gpu_inputs, gpu_report, gpu_run, gpu_step
from benchmarks.common import ROOT, append_row, appended_rows
from benchmarks.gpu_profile import by_group
from benchmarks.gpu_rows import Place, Rows
from benchmarks.throughput_ours import require_training
from tests.processes import run
from tests.test_benchmarks import SCHEMA

HIDDEN = set((ROOT / "tests" / "without" / "packages.txt").read_text().split())
COLLECTOR = str(Path(__file__).parent / "collected_without.py")


def imported_at_the_top(file: Path) -> Iterator[str]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("folder", ["tests", "bert_tweets", "benchmarks"])
def test_no_file_imports_at_its_top_what_a_bare_gpu_machine_lacks(folder: str) -> None:
    # prepare's reference is datasets itself.
    files = [file for file in (ROOT / folder).rglob("*.py") if file.name != "prepare_references.py"]
    found = {str(file.relative_to(ROOT)): HIDDEN.intersection(imported_at_the_top(file)) for file in files}
    assert not {name: packages for name, packages in found.items() if packages}


@pytest.mark.slow
def test_the_gpu_tests_are_found_without_these_packages() -> None:
    done = run([COLLECTOR])
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("test_attention", "test_masking", "test_compiled_step", "test_devices", "test_resuming_on_devices"):
        assert name in done.stdout


def test_the_inputs_hold_shards_packages_and_the_commit(tmp_path: Path) -> None:
    gpu_inputs.pack(str(tmp_path / "inputs"), count=60)
    with tarfile.open(tmp_path / "inputs" / gpu_inputs.ARCHIVE) as archive:
        names = archive.getnames()
    assert {"shards/manifest.json", "shards/train/00000.arrow", "site/omegaconf/__init__.py"} <= set(names)
    assert (tmp_path / "inputs" / gpu_inputs.COMMIT).read_text().strip()
    (tmp_path / "tweets.csv").write_text('text\n"one\ntwo"\nthree\nfour\nfive\n')
    gpu_inputs.spread(tmp_path / "tweets.csv", tmp_path / "few.csv", 2)
    assert (tmp_path / "few.csv").read_text().split() == ["text", '"one', 'two"', "four"]


def test_a_part_that_hangs_or_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {"hangs": "import time; time.sleep(600)", "fails": "raise SystemExit(3)", "works": "print(input())"}
    started = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return started([sys.executable, "-c", scripts[command[-1]]], **options)

    monkeypatch.setattr(gpu_run.subprocess, "Popen", start)
    monkeypatch.setitem(gpu_run.CALLS, "1", {"hangs": 1, "fails": 20, "works": 20})
    failed = gpu_run.run("1", tmp_path, seconds=60)
    assert failed == ["hangs (stopped after 1 s)", "fails (exit code 3)"]
    rows = appended_rows(tmp_path / "gpu-rows-1.jsonl")
    assert [(row["part"], bool(row["trouble"])) for row in rows] == [("hangs", True), ("fails", True), ("works", False)]
    assert gpu_run.run("1", tmp_path, seconds=0)[2] == "works (no time left)"


def test_limits_of_a_call_leave_time_for_its_first_parts() -> None:
    first = ["machine", "attention_errors", "compiled_against_eager", "step_bf16"]
    assert list(gpu_run.CALLS["1"])[:4] == first
    assert sum(gpu_run.CALLS["1"][name] for name in first) < gpu_run.TOTAL["1"]


def test_caches_are_packed_in_pieces_that_join_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "_PIECE", 1000)
    (tmp_path / "caches").mkdir()
    (tmp_path / "caches" / "kernel").write_bytes(os.urandom(1500))
    out = tmp_path / "out"
    out.mkdir()
    gpu_run.pack_caches(tmp_path / "caches", out)
    pieces = sorted(out.iterdir())
    assert [piece.name for piece in pieces] == [f"caches.tar.gz.{number}" for number in range(len(pieces))]
    (tmp_path / "joined.tar.gz").write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(tmp_path / "joined.tar.gz") as archive:
        assert "caches/kernel" in archive.getnames()


def test_kernels_are_grouped_by_their_names() -> None:
    kernels = {
        "forward": 1.0,
        "void flash_fwd_kernel<Flash_fwd_kernel_traits>": 2.0,
        "nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN": 3.0,
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n": 1.0,
        "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>": 5.0,
        "triton_red_fused__to_copy_native_layer_norm_3": 6.0,
        "Memcpy HtoD (Pinned -> Device)": 7.0,
        "unheard of": 8.0,
    }
    groups = by_group(kernels)
    assert groups == {
        "other": 8.0,
        "copies": 7.0,
        "element-wise": 6.0,
        "optimizer": 5.0,
        "products": 4.0,
        "attention": 3.0,
    }


def test_a_compiled_step_without_gradients_is_a_failure() -> None:
    torch = pytest.importorskip("torch")
    right = (2.0, {"a": torch.ones(3), "b": torch.ones(2)})
    assert "failed" not in gpu_checks.compare(right, right, 1e-4)
    for gradients in ({}, {"a": torch.zeros(3), "b": torch.zeros(2)}):
        assert gpu_checks.compare(right, (2.0, gradients), 1e-4)["failed"] == "all gradients are zero"
    assert "no gradient: b" in gpu_checks.compare(right, (2.0, {**right[1], "b": torch.zeros(2)}), 1e-4)["failed"]
    assert "apart" in gpu_checks.compare(right, (2.0, {**right[1], "b": 2 * torch.ones(2)}), 1e-4)["failed"]
    assert "failed" in gpu_checks.compare(right, (float("nan"), right[1]), 1e-4)


def test_an_error_becomes_a_row_of_the_schema(tmp_path: Path) -> None:
    rows = Rows(Place("1", tmp_path, tmp_path, small=True))
    with rows.failing("step", {"precision": "bf16"}):
        raise RuntimeError("out of memory")
    (row,) = appended_rows(tmp_path / "gpu-rows-1.jsonl")
    assert row["failed"] == "RuntimeError: out of memory" and row["tokens_per_second"] is None
    assert row.keys() >= SCHEMA and row["commit"] and row["command"] == "benchmarks/gpu.sh 1"


@pytest.mark.parametrize("norms", [[0.0, 0.0], [1.0, float("nan")], [float("inf")]])
def test_steps_that_train_nothing_have_no_speed(norms: list[float]) -> None:
    with pytest.raises(RuntimeError, match="trained nothing"):
        require_training(norms)
    require_training([1.0, 0.5])


def test_steps_of_another_shape_are_left_out() -> None:
    class Batch:
        def __init__(self, rows: int):
            self.input_ids = range(rows)

    class Step:
        def __init__(self, *rows: int):
            self.micro_batches = [Batch(count) for count in rows]

    steps: Any = [Step(7), Step(8), Step(8, 8), Step(8), *[Step(8)] * 20, Step(9)]
    rows, chosen = gpu_step.of_one_shape(iter(steps))
    assert rows == (8,) and [[len(batch.input_ids) for batch in step.micro_batches] for step in chosen] == [[8]] * 22


def test_the_report_has_what_was_found_and_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_report, "write_rows", lambda path, rows: None)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    about = {"device": "NVIDIA H200", "commit": "abc", "versions": {"torch": "2.11.0"}, "precision": "bf16"}
    speed = {"tokens_per_second": 7e5, "mfu": 0.4, "padding_fraction": 0.01, "step_milliseconds": 90.0}
    rows = [
        {**about, "who": "step", "attention": "triton", "peak_memory_bytes": 4e10, **speed},
        {**about, "who": "step", "failed": "trained nothing: the gradient norm was 0.0 in 60 of 60 steps"},
        {**about, "who": "tests", "which": "not flex", "counts": {"passed": 90, "failed": 1}, "failed": "exit code 1"},
        {"who": "part", "part": "tests", "seconds": 80.0, "trouble": "exit code 1"},
    ]
    for row in rows:
        append_row(tmp_path / "gpu-rows-1.jsonl", row)
    gpu_report.main([str(tmp_path)])
    page = (tmp_path / "benchmarks" / "results" / "gpu.md").read_text()
    assert "| bert_tweets | bf16 | triton | 700,000 | 40.0% |" in page and "trained nothing" in page
    assert "700,000 real tokens/s" in gpu_report.readme_line(rows) and "90 GPU tests passed, 1 failed" in page + (
        gpu_report.readme_line(rows)
    )
    json.dumps(rows)


@pytest.mark.dist
@pytest.mark.soak
def test_both_calls_run_on_a_cpu_without_git_and_these_packages(tmp_path: Path) -> None:
    gpu_inputs.pack(str(tmp_path / "inputs"), count=3000)
    places = {"PYTHON": sys.executable, "INPUTS": str(tmp_path / "inputs"), "OUT": str(tmp_path / "out")}
    script = str(ROOT / "benchmarks" / "gpu_dry_run.sh")
    done = subprocess.run([script], env={**os.environ, **places}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = appended_rows(tmp_path / "out" / "gpu-rows-1.jsonl") + appended_rows(tmp_path / "out" / "gpu-rows-2.jsonl")
    assert {row["part"] for row in rows if row["who"] == "part"} == {
        name for call in gpu_run.CALLS.values() for name in call
    }
    assert not [row for row in rows if row.get("failed") or row.get("trouble")]
    steps = [row for row in rows if row["who"] == "step"]
    assert len(steps) == 3 and all(row["tokens_per_second"] > 0 < row["smallest_gradient_norm"] for row in steps)

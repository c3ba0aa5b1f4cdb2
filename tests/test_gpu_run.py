"""benchmarks/gpu.sh: parts keep to their time limits, write rows, and need nothing that a bare GPU machine lacks."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_checks, gpu_inputs, gpu_report, gpu_run, gpu_step
from benchmarks.common import ROOT, append_jsonl, read_jsonl
from benchmarks.gpu_profile import by_group
from benchmarks.gpu_rows import GpuRun, Rows
from benchmarks.throughput_ours import require_training
from tests.processes import run
from tests.test_benchmarks import SCHEMA

HIDDEN = set((ROOT / "tests" / "without" / "packages.txt").read_text().split())
COLLECTOR = str(Path(__file__).parent / "collected_without.py")


def module_level_imports(file: Path) -> Iterator[str]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("folder", ["tests", "bert_tweets", "benchmarks"])
def test_no_module_level_import_needs_a_package_that_a_bare_gpu_machine_lacks(folder: str) -> None:
    # prepare_references.py measures the package datasets itself.
    files = [file for file in (ROOT / folder).rglob("*.py") if file.name != "prepare_references.py"]
    hidden = {str(file.relative_to(ROOT)): HIDDEN.intersection(module_level_imports(file)) for file in files}
    assert not {name: packages for name, packages in hidden.items() if packages}


@pytest.mark.slow
def test_the_gpu_tests_are_collected_without_these_packages() -> None:
    completed = run([COLLECTOR])
    assert completed.returncode == 0, completed.stdout + completed.stderr
    for name in ("test_attention", "test_masking", "test_compiled_step", "test_devices", "test_resuming_on_devices"):
        assert name in completed.stdout


def test_the_inputs_contain_shards_packages_and_the_commit(tmp_path: Path) -> None:
    gpu_inputs.pack(str(tmp_path / "inputs"), count=60)
    with tarfile.open(tmp_path / "inputs" / gpu_inputs.ARCHIVE) as archive:
        names = archive.getnames()
    assert {"shards/manifest.json", "shards/train/00000.arrow", "site/omegaconf/__init__.py"} <= set(names)
    assert (tmp_path / "inputs" / gpu_inputs.COMMIT).read_text().strip()
    (tmp_path / "tweets.csv").write_text('text\n"one\ntwo"\nthree\nfour\nfive\n')
    gpu_inputs.thin_out(tmp_path / "tweets.csv", tmp_path / "few.csv", 2)
    assert (tmp_path / "few.csv").read_text().split() == ["text", '"one', 'two"', "four"]


def test_a_part_that_hangs_or_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {"hangs": "import time; time.sleep(600)", "fails": "raise SystemExit(3)", "works": "print(input())"}
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return popen([sys.executable, "-c", scripts[command[-1]]], **options)

    monkeypatch.setattr(gpu_run.subprocess, "Popen", start)
    monkeypatch.setitem(gpu_run.CALLS, "1", {"hangs": 1, "fails": 20, "works": 20})
    failed = gpu_run.run("1", tmp_path, seconds=60)
    assert failed == ["hangs (stopped after 1 s)", "fails (exit code 3)"]
    rows = read_jsonl(tmp_path / "gpu-rows-1.jsonl")
    assert [(row["part"], bool(row["error"])) for row in rows] == [("hangs", True), ("fails", True), ("works", False)]
    assert gpu_run.run("1", tmp_path, seconds=0)[2] == "works (no time left)"


def test_the_time_limit_of_a_call_covers_the_limits_of_its_first_parts() -> None:
    first = ["machine", "attention_errors", "compiled_against_eager", "step_bf16"]
    assert list(gpu_run.CALLS["1"])[:4] == first
    assert sum(gpu_run.CALLS["1"][name] for name in first) < gpu_run.TOTAL["1"]


def test_caches_are_packed_in_chunks_that_concatenate_to_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_run, "_CHUNK_BYTES", 1000)
    (tmp_path / "caches").mkdir()
    (tmp_path / "caches" / "kernel").write_bytes(os.urandom(1500))
    out = tmp_path / "out"
    out.mkdir()
    gpu_run.pack_caches(tmp_path / "caches", out)
    chunks = sorted(out.iterdir())
    assert [chunk.name for chunk in chunks] == [f"caches.tar.gz.{number}" for number in range(len(chunks))]
    (tmp_path / "caches.tar.gz").write_bytes(b"".join(chunk.read_bytes() for chunk in chunks))
    with tarfile.open(tmp_path / "caches.tar.gz") as archive:
        assert "caches/kernel" in archive.getnames()


def test_kernels_are_grouped_by_name() -> None:
    kernels = {
        "forward": 1.0,
        "void flash_fwd_kernel<Flash_fwd_kernel_traits>": 2.0,
        "nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN": 3.0,
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n": 1.0,
        "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>": 5.0,
        "triton_red_fused__to_copy_native_layer_norm_3": 6.0,
        "Memcpy HtoD (Pinned -> Device)": 7.0,
        "unknown kernel": 8.0,
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


def test_a_compiled_step_without_gradients_fails_the_check() -> None:
    torch = pytest.importorskip("torch")
    expected = (2.0, {"a": torch.ones(3), "b": torch.ones(2)})
    assert "failed" not in gpu_checks.compare(expected, expected, 1e-4)
    for gradients in ({}, {"a": torch.zeros(3), "b": torch.zeros(2)}):
        assert gpu_checks.compare(expected, (2.0, gradients), 1e-4)["failed"] == "all gradients are zero"
    assert "no gradient: b" in gpu_checks.compare(expected, (2.0, {**expected[1], "b": torch.zeros(2)}), 1e-4)["failed"]
    different = (2.0, {**expected[1], "b": 2 * torch.ones(2)})
    assert "relative difference" in gpu_checks.compare(expected, different, 1e-4)["failed"]
    assert "failed" in gpu_checks.compare(expected, (float("nan"), expected[1]), 1e-4)


def test_an_error_is_recorded_as_a_row_of_the_schema(tmp_path: Path) -> None:
    rows = Rows(GpuRun("1", tmp_path, tmp_path, small=True))
    with rows.record_errors("step", {"precision": "bf16"}):
        raise RuntimeError("out of memory")
    (row,) = read_jsonl(tmp_path / "gpu-rows-1.jsonl")
    assert row["failed"] == "RuntimeError: out of memory" and row["tokens_per_second"] is None
    assert row.keys() >= SCHEMA and row["commit"] and row["command"] == "benchmarks/gpu.sh 1"


@pytest.mark.parametrize("norms", [[0.0, 0.0], [1.0, float("nan")], [float("inf")]])
def test_the_speed_of_steps_that_train_nothing_is_an_error(norms: list[float]) -> None:
    with pytest.raises(RuntimeError, match="trained nothing"):
        require_training(norms)
    require_training([1.0, 0.5])


def test_steps_of_other_shapes_are_skipped() -> None:
    class Batch:
        def __init__(self, rows: int):
            self.input_ids = range(rows)

    class Step:
        def __init__(self, *rows: int):
            self.micro_batches = [Batch(count) for count in rows]

    steps: Any = [Step(7), Step(8), Step(8, 8), Step(8), *[Step(8)] * 20, Step(9)]
    shape, remaining = gpu_step.of_one_shape(iter(steps))
    assert shape == (8,)
    assert [[len(batch.input_ids) for batch in step.micro_batches] for step in remaining] == [[8]] * 22


def test_the_report_shows_results_and_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_report, "write_rows", lambda path, rows: None)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    columns = {"device": "NVIDIA H200", "commit": "abc", "versions": {"torch": "2.11.0"}, "precision": "bf16"}
    speed = {"tokens_per_second": 7e5, "mfu": 0.4, "padding_fraction": 0.01, "step_milliseconds": 90.0}
    rows = [
        {**columns, "who": "step", "attention": "triton", "peak_memory_bytes": 4e10, **speed},
        {**columns, "who": "step", "failed": "trained nothing: the gradient norm was 0.0 in 60 of 60 steps"},
        {
            **columns,
            "who": "tests",
            "which": "not flex",
            "counts": {"passed": 90, "failed": 1},
            "failed": "exit code 1",
        },
        {"who": "part", "part": "tests", "seconds": 80.0, "error": "exit code 1"},
    ]
    for row in rows:
        append_jsonl(tmp_path / "gpu-rows-1.jsonl", row)
    gpu_report.main([str(tmp_path)])
    page = (tmp_path / "benchmarks" / "results" / "gpu.md").read_text()
    assert "| bert_tweets | bf16 | triton | 700,000 | 40.0% |" in page and "trained nothing" in page
    line = gpu_report.tested_on_line(rows)
    assert "700,000 real tokens/s" in line and "90 GPU tests passed, 1 failed" in line


@pytest.mark.dist
@pytest.mark.soak
def test_both_calls_run_on_a_cpu_without_git_and_without_these_packages(tmp_path: Path) -> None:
    gpu_inputs.pack(str(tmp_path / "inputs"), count=3000)
    variables = {"PYTHON": sys.executable, "INPUTS": str(tmp_path / "inputs"), "OUT": str(tmp_path / "out")}
    script = str(ROOT / "benchmarks" / "gpu_dry_run.sh")
    completed = subprocess.run([script], env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    rows = read_jsonl(tmp_path / "out" / "gpu-rows-1.jsonl") + read_jsonl(tmp_path / "out" / "gpu-rows-2.jsonl")
    assert {row["part"] for row in rows if row["who"] == "part"} == {
        name for call in gpu_run.CALLS.values() for name in call
    }
    assert not [row for row in rows if row.get("failed") or row.get("error")]
    steps = [row for row in rows if row["who"] == "step"]
    assert len(steps) == 3 and all(row["tokens_per_second"] > 0 < row["smallest_gradient_norm"] for row in steps)

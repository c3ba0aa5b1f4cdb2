"""Run one part of benchmarks/gpu.sh in a process of its own.

    python -m benchmarks.gpu_parts NAME

The process imports what it needs, makes the models it needs, and waits for a line on stdin before it uses the GPU, so
that the next part gets ready while one runs.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from benchmarks import gpu_checks, gpu_rates, gpu_references, gpu_step
from benchmarks.common import ROOT
from benchmarks.gpu_rows import GpuRun, Rows

_FLEX = "flex"
_USES_A_GPU = re.compile(r"@pytest\.mark\.gpu|@each_device")


class Outcomes:
    """A pytest plugin that counts outcomes of tests."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.outcome == "failed":
                self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome == "failed":
            self.failed.append(f"{report.nodeid} (not collected)")


def tests(run: GpuRun, rows: Rows) -> None:
    """Run the tests that need a GPU, except those that compile flex_attention."""
    _tests(rows, f"not {_FLEX}")


def tests_of_flex(run: GpuRun, rows: Rows) -> None:
    """Run the tests that compile flex_attention, each at least one kernel."""
    _tests(rows, _FLEX)


def gpu_test_files() -> list[str]:
    """Files with tests that need a GPU; collecting all files would take half a minute."""
    return sorted(str(file) for file in (ROOT / "tests").rglob("test_*.py") if _USES_A_GPU.search(file.read_text()))


def _tests(rows: Rows, which: str) -> None:
    import pytest

    arguments = ["-m", "gpu", "-k", which, "-p", "no:cacheprovider", "--durations=12", "-v", "--timeout=110"]
    if find_spec("xdist"):  # most of the time is spent compiling kernels
        arguments += ["-n", str(min(8, os.cpu_count() or 1))]
    outcomes = Outcomes()
    code = pytest.main([*arguments, *gpu_test_files()], plugins=[outcomes])
    failed = {"failed": f"exit code {code}; {outcomes.failed}"} if outcomes.failed or code else {}
    rows.add("tests", which=which, counts=dict(outcomes.counts), **failed)


def attention_race(run: GpuRun, rows: Rows) -> None:
    """Compare the speed of the attention backends."""
    from benchmarks import attention

    kind = "gpu" if run.device.type == "cuda" else "cpu"
    small = ["rows=8", "repeats=1"] if run.small else []
    attention.main([f"shards={run.shards}", f"output={run.out}/attention-{kind}", *small])


def switches(run: GpuRun, rows: Rows) -> None:
    """Time the step with other settings: SWITCHES has key=value,key=value for each, separated by spaces."""
    for switch in os.environ.get("SWITCHES", "tokens_per_device=131072").split():
        settings = dict(pair.split("=", 1) for pair in switch.split(","))
        if run.small and "tokens_per_device" in settings:
            settings["tokens_per_device"] = "2048"
        gpu_step.measure(run, rows, settings.pop("precision", "bf16"), 20, **settings)


PARTS: dict[str, Callable[[GpuRun, Rows], None]] = {
    part.__name__: part
    for part in (
        *(gpu_rates.machine, gpu_checks.attention_errors, gpu_checks.compiled_against_eager),
        *(gpu_step.step_bf16, gpu_step.step_bf16_weights, tests, tests_of_flex),
        *(gpu_references.references, attention_race, gpu_references.compiled_reference, switches),
    )
}


def main(name: str) -> None:
    run = GpuRun.from_environment()
    if "step" in name or "reference" in name:
        run.model()
    if sys.stdin.readline():
        PARTS[name](run, Rows(run))


if __name__ == "__main__":
    main(*sys.argv[1:])

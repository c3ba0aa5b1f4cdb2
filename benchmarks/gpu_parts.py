"""One part of benchmarks/gpu.sh, in a process of its own.

    python -m benchmarks.gpu_parts NAME

Imports what it needs, makes the models that it needs, and waits for a line on stdin; then it uses the GPU. So the next
part gets ready while one runs.
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
from benchmarks.gpu_rows import Place, Rows

_FLEX = "flex"
_USES_A_GPU = re.compile(r"@pytest\.mark\.gpu|@each_device")


class Outcomes:
    """Counts what becomes of the tests; a plugin of pytest."""

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


def tests(place: Place, rows: Rows) -> None:
    """The tests that need a GPU, but for those that compile flex_attention."""
    _tests(rows, f"not {_FLEX}")


def tests_of_flex(place: Place, rows: Rows) -> None:
    """The rest of them: each compiles a kernel or more."""
    _tests(rows, _FLEX)


def gpu_test_files() -> list[str]:
    """The files of tests that need a GPU: collecting all of them would take half a minute."""
    return sorted(str(file) for file in (ROOT / "tests").rglob("test_*.py") if _USES_A_GPU.search(file.read_text()))


def _tests(rows: Rows, which: str) -> None:
    import pytest

    words = ["-m", "gpu", "-k", which, "-p", "no:cacheprovider", "--durations=12", "-v", "--timeout=110"]
    if find_spec("xdist"):  # most of the time is spent compiling kernels
        words += ["-n", str(min(8, os.cpu_count() or 1))]
    outcomes = Outcomes()
    code = pytest.main([*words, *gpu_test_files()], plugins=[outcomes])
    failed = {"failed": f"exit code {code}; {outcomes.failed}"} if outcomes.failed or code else {}
    rows.add("tests", which=which, counts=dict(outcomes.counts), **failed)


def attention_race(place: Place, rows: Rows) -> None:
    """The backends of attention next to each other."""
    from benchmarks import attention

    kind = "gpu" if place.device.type == "cuda" else "cpu"
    few = ["rows=8", "repeats=1"] if place.small else []
    attention.main([f"shards={place.shards}", f"output={place.out}/attention-{kind}", *few])


def switches(place: Place, rows: Rows) -> None:
    """The step with other settings: SWITCHES holds "key=value,key=value" for each, separated by spaces."""
    for words in os.environ.get("SWITCHES", "tokens_per_device=131072").split():
        settings = dict(word.split("=", 1) for word in words.split(","))
        if place.small and "tokens_per_device" in settings:
            settings["tokens_per_device"] = "2048"
        gpu_step.measure(place, rows, settings.pop("precision", "bf16"), 20, **settings)


PARTS: dict[str, Callable[[Place, Rows], None]] = {
    part.__name__: part
    for part in (
        *(gpu_rates.machine, gpu_checks.attention_errors, gpu_checks.compiled_against_eager),
        *(gpu_step.step_bf16, gpu_step.step_bf16_weights, tests, tests_of_flex),
        *(gpu_references.references, attention_race, gpu_references.compiled_reference, switches),
    )
}


def main(name: str) -> None:
    place = Place.of_environment()
    if "step" in name or "reference" in name:
        place.model()
    if sys.stdin.readline():
        PARTS[name](place, Rows(place))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Profile of a training step, by kernel and by group of kernels."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_rows import GpuRun
from benchmarks.throughput_ours import Ours

PROFILED = 3
# Group of a kernel by its name; the first pattern that matches. Our attention kernels are named forward and backward.
GROUPS = {
    "attention": r"^(forward|backward)$|attention|flash|fmha",
    "products": r"gemm|nvjet|cutlass|cublas|splitk|wgmma|^aten::(mm|addmm|bmm|addmm_|linear)$",
    "optimizer": r"multi_tensor|adam|foreach|lpnorm|clip",
    "copies": r"memcpy|memset|^aten::(copy_|_to_copy|fill_|zero_)$",
    "element-wise": r"triton|elementwise|vectorized|reduce|softmax|layer_norm|gelu|index|gather|scatter|embed|^aten",
}


def profile_step(ours: Ours, run: GpuRun, title: str) -> dict[str, Any]:
    """Columns of a row: milliseconds per step by group of kernels. Also appends a table of kernels to profile.txt.

    Args:
        ours: training run whose kernels are already compiled.
        run: paths and sizes of the GPU run.
        title: title of the table.
    """
    kernels, launches, step_milliseconds = _kernels(ours, run.device)
    groups = by_group(kernels)
    top = [
        {"kernel": name[:160], "group": group_of(name), "milliseconds": kernels[name], "launches": launches[name]}
        for name in sorted(kernels, key=lambda name: -kernels[name])[:40]
    ]
    lines = ["{milliseconds:9.3f} ms {launches:5d} x  {group:12s}  {kernel}".format(**row) for row in top]
    with (run.out / "profile.txt").open("a", encoding="utf-8") as file:
        file.write("\n".join([f"{title}: one step, mean of {PROFILED}; milliseconds {groups}", *lines, "", ""]))
    return {
        "milliseconds_by_group": groups,
        "milliseconds_of_kernels": sum(groups.values()),
        "profiled_step_milliseconds": step_milliseconds,
        "kernels": top,
    }


def _kernels(ours: Ours, device: torch.device) -> tuple[dict[str, float], dict[str, int], float]:
    """Milliseconds and launches per step by kernel (on a CPU, by operator), and milliseconds per step."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as trace:
        # The first step allocates memory that the last turn freed: its kernels count, its time does not.
        measured = ours.turn(PROFILED - 1, 1)
    kernels, launches = dict[str, float](), dict[str, int]()
    for event in trace.key_averages():
        # Labels around phases of the step would count the same time twice.
        if event.is_user_annotation or on_gpu == (event.device_type == torch.autograd.DeviceType.CPU):
            continue
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kernels[event.key] = kernels.get(event.key, 0.0) + microseconds / 1000 / PROFILED
        launches[event.key] = launches.get(event.key, 0) + event.count // PROFILED
    return kernels, launches, 1000 * statistics.median(measured["seconds"])


def group_of(kernel: str) -> str:
    """Group of a kernel, by its name."""
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, kernel, re.IGNORECASE)), "other")


def by_group(kernels: dict[str, float]) -> dict[str, float]:
    """Milliseconds by group, in descending order."""
    groups = Counter[str]()
    for name, milliseconds in kernels.items():
        groups[group_of(name)] += milliseconds  # type: ignore[assignment]
    return {group: round(milliseconds, 3) for group, milliseconds in groups.most_common()}

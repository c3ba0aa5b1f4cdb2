"""Rates that the device reaches: memory copies, and the matrix products of a BERT-base step."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Callable
from itertools import pairwise, product

import torch

from benchmarks.device_timing import seconds_between, synchronize, timestamp
from benchmarks.gpu_rows import GpuRun, Rows
from benchmarks.throughput_ours import measured_peak

# Output and input sizes of BERT-base's linear layers.
LINEAR_LAYERS = {
    "query, key, value": (2304, 768),
    "attention output": (768, 768),
    "feed-forward in": (3072, 768),
    "feed-forward out": (768, 3072),
}
TOKENS = 65_536
_PRODUCTS = ("forward", "gradient of the input", "gradient of the weight")
_NVIDIA_SMI = "name,memory.total,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"


def machine(run: GpuRun, rows: Rows) -> None:
    """Add rows for the GPU, the rate of a large copy, and the rates of the twelve products."""
    rows.add("machine", processors=os.cpu_count(), gpu=_gpu())
    rows.add("copy", **copy_rate(run))
    peak = measured_peak(run.device, "bf16")
    rows.add("square product", precision="bf16", size=1024 if run.device.type == "cpu" else 8192, tflops=peak / 1e12)
    for layer, direction in product(LINEAR_LAYERS, _PRODUCTS):
        rows.add("product", precision="bf16", layer=layer, direction=direction, **product_rate(run, layer, direction))


def copy_rate(run: GpuRun) -> dict[str, float]:
    """Rate of a copy within the device, counting bytes read and bytes written."""
    size = 2**20 if run.small else 2**32
    source = torch.randint(256, (size,), device=run.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), run.device)
    return {"copied_bytes": size, "terabytes_per_second": 2 * size / seconds / 1e12}


def product_rate(run: GpuRun, layer: str, direction: str) -> dict[str, float]:
    """Rate of one product of a linear layer over a micro-batch, with operands laid out as autograd lays them out.

    Returns:
        The sizes `m`, `n`, `k` of [m, k] times [k, n]; `milliseconds`; `tflops`, in TFLOP/s.
    """
    tokens = 256 if run.small else TOKENS
    outputs, inputs = LINEAR_LAYERS[layer]
    states, upstream, weight = (
        torch.randn(shape, device=run.device).bfloat16()
        for shape in ((tokens, inputs), (tokens, outputs), (outputs, inputs))
    )
    left, right = {
        "forward": (states, weight.t()),
        "gradient of the input": (upstream, weight),
        "gradient of the weight": (upstream.t(), states),
    }[direction]
    (m, k), n = left.shape, right.shape[1]
    seconds = median_seconds(lambda: left @ right, run.device)
    return {"m": m, "n": n, "k": k, "milliseconds": 1000 * seconds, "tflops": 2 * m * n * k / seconds / 1e12}


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """Median seconds of a run, measured by events on a GPU, after three warm-up runs."""
    for _ in range(3):
        run()
    timestamps = [timestamp(device)]
    for _ in range(repeats):
        run()
        timestamps.append(timestamp(device))
    synchronize(device)
    return statistics.median(seconds_between(start, end) for start, end in pairwise(timestamps))


def _gpu() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", f"--query-gpu={_NVIDIA_SMI}", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()

"""What the device reaches: memory copies, and the matrix products of a BERT-base step."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Callable
from itertools import pairwise, product

import torch

from benchmarks.gpu_rows import Place, Rows
from benchmarks.throughput_ours import measured_peak
from benchmarks.throughput_steps import between, moment, synchronize

# Outputs and inputs of BERT-base's linear layers.
LINEAR_LAYERS = {
    "query, key, value": (2304, 768),
    "attention output": (768, 768),
    "feed-forward in": (3072, 768),
    "feed-forward out": (768, 3072),
}
TOKENS = 65_536
_PRODUCTS = ("forward", "gradient of the input", "gradient of the weight")
_NVIDIA_SMI = "name,memory.total,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"


def machine(place: Place, rows: Rows) -> None:
    """The GPU, the rate of a large copy, and the rates of the twelve products."""
    rows.add("machine", processors=os.cpu_count(), gpu=_gpu())
    rows.add("copy", **copy_rate(place))
    peak = measured_peak(place.device, "bf16")
    rows.add("square product", precision="bf16", size=1024 if place.device.type == "cpu" else 8192, tflops=peak / 1e12)
    for layer, direction in product(LINEAR_LAYERS, _PRODUCTS):
        rows.add("product", precision="bf16", layer=layer, direction=direction, **product_rate(place, layer, direction))


def copy_rate(place: Place) -> dict[str, float]:
    """Bytes read and written by a copy within the device, per second."""
    size = 2**20 if place.small else 2**32
    source = torch.randint(256, (size,), device=place.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), place.device)
    return {"copied_bytes": size, "terabytes_per_second": 2 * size / seconds / 1e12}


def product_rate(place: Place, layer: str, direction: str) -> dict[str, float]:
    """One product of a linear layer over a micro-batch, with its operands laid out as autograd has them.

    Returns:
        m, n, k: of [m, k] times [k, n]; milliseconds; tflops.
    """
    tokens = 256 if place.small else TOKENS
    outputs, inputs = LINEAR_LAYERS[layer]
    states, upstream, weight = (
        torch.randn(shape, device=place.device).bfloat16()
        for shape in ((tokens, inputs), (tokens, outputs), (outputs, inputs))
    )
    left, right = {
        "forward": (states, weight.t()),
        "gradient of the input": (upstream, weight),
        "gradient of the weight": (upstream.t(), states),
    }[direction]
    (m, k), n = left.shape, right.shape[1]
    seconds = median_seconds(lambda: left @ right, place.device)
    return {"m": m, "n": n, "k": k, "milliseconds": 1000 * seconds, "tflops": 2 * m * n * k / seconds / 1e12}


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """Median time of a run, by events on a GPU, after three that are not counted."""
    for _ in range(3):
        run()
    marks = [moment(device)]
    for _ in range(repeats):
        run()
        marks.append(moment(device))
    synchronize(device)
    return statistics.median(between(one, other) for one, other in pairwise(marks))


def _gpu() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", f"--query-gpu={_NVIDIA_SMI}", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()

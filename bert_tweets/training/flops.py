"""Model FLOPs utilisation (MFU): FLOPs that the model needs for its real tokens, over the peak of the device."""

from __future__ import annotations

import time
from typing import Any

import torch

from bert_tweets.engine.precision import COMPUTE_DTYPES

# Peak of dense matrix products (bf16 and fp16, without sparsity) from the datasheets, FLOP/s.
_DATASHEET = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
}
# Longest time that products are timed.
_SECONDS = 1.0


def flops_per_token(config: Any, masked_share: float, mean_length: float) -> float:
    """FLOPs per real token, forward and backward; a multiply-add counts as two.

    6·P + 12·L·d·l + 6·m·(d² + d·V): P is the number of weights in the layers' matrices, l the mean tweet length (each
    token attends to its own tweet), m the masked share (the head runs only at masked positions). After Kaplan et al.
    2020, section 2.1, and Chowdhery et al. 2022, appendix B.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    # A gated feed-forward layer (ModernBERT) has a third matrix.
    in_feed_forward = 3 if config.model_type == "modernbert" else 2
    matrices = layers * (4 * width * width + in_feed_forward * width * config.intermediate_size)
    head = width * width + width * config.vocab_size
    return float(6 * matrices + 12 * layers * width * mean_length + 6 * masked_share * head)


def matrix_peak(device: torch.device, precision: str) -> float:
    """Peak FLOP/s of the device in matrix products of this precision.

    The datasheet's figure for a known GPU in 16 bits, else the best of a few timed products; call
    `engine.precision.allow_tf32` before.
    """
    dtype = COMPUTE_DTYPES[precision]
    if device.type == "cuda":
        known = [peak for part, peak in _DATASHEET.items() if part in torch.cuda.get_device_name(device)]
        if known and dtype.itemsize == 2:
            return known[0]
    size = 1024 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, begun = float("inf"), time.perf_counter()
    for _ in range(8):
        started = time.perf_counter()
        # fp16 on a CPU takes seconds per product.
        if started - begun > _SECONDS:
            break
        product = left @ right
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best

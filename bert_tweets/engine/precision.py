"""The arithmetic of a step: dtype of matrix products, and fp32 master weights of an optimizer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

# dtype of matrix products, set by autocast or by the weights.
COMPUTE_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "bf16_weights": torch.bfloat16,
    "fp16": torch.float16,
}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass: bf16 and fp16 by autocast over fp32 weights; nothing otherwise."""
    return torch.autocast(device.type, COMPUTE_DTYPES[precision]) if precision in ("bf16", "fp16") else nullcontext()


def allow_tf32(precision: str) -> None:
    """Let fp32 matrix products round their factors to 10 bits if `precision` is tf32, else not."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


class MasterWeights:
    """fp32 master weights of bf16 weights (Micikevicius et al. 2018, section 3.1), which the optimizer updates.

    Converts the module's weights to bf16. `trained` are those of trained parameters, in the module's order.
    """

    def __init__(self, module: nn.Module):
        exact = [p.detach().float().clone().requires_grad_(p.requires_grad) for p in module.parameters()]
        module.to(torch.bfloat16)
        weights = list(module.parameters())
        self._of = {id(weight): master for weight, master in zip(weights, exact, strict=True)}
        self._weights = [weight for weight in weights if weight.requires_grad]
        self.trained = [master for master in exact if master.requires_grad]

    def of(self, weight: Tensor) -> Tensor:
        """The master weight of a weight; the weight itself if it has none."""
        return self._of.get(id(weight), weight)

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Move the gradients of the weights to their master weights."""
        for master, weight in zip(self.trained, self._weights, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None

    @torch.no_grad()
    def round_to_weights(self) -> None:
        """Copy the master weights, rounded to bf16, to the weights."""
        torch._foreach_copy_([w.detach() for w in self._weights], [m.detach() for m in self.trained])

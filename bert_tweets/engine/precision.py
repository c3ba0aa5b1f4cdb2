"""Arithmetic of a step: what products are computed in, and how an optimizer in fp32 stands behind it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Of the products, whether autocast or the weights decide it.
PRODUCTS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "bf16_weights": torch.bfloat16,
    "fp16": torch.float16,
}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The arithmetic of `precision`: bf16 and fp16 by autocast, the weights staying as they are."""
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def allow_tf32(precision: str) -> None:
    """Lets matrix products in fp32 round their factors to 10 bits where `precision=tf32` asks for it, else not."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


class MasterWeights:
    """fp32 masters of weights in bf16 (Micikevicius et al. 2018, section 3.1): the optimizer adds to them.

    Turns the module's weights to bf16.

    Attributes:
        trained: float32, one for each trained parameter, in the module's order.
    """

    def __init__(self, module: nn.Module):
        exact = [p.detach().float().clone().requires_grad_(p.requires_grad) for p in module.parameters()]
        module.to(torch.bfloat16)
        weights = list(module.parameters())
        self._of = {id(weight): master for weight, master in zip(weights, exact, strict=True)}
        self._weights = [weight for weight in weights if weight.requires_grad]
        self.trained = [master for master in exact if master.requires_grad]

    def of(self, weight: Tensor) -> Tensor:
        """The master of a weight; what has none is given back."""
        return self._of.get(id(weight), weight)

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Moves the gradients of the weights to their masters."""
        for master, weight in zip(self.trained, self._weights, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None

    @torch.no_grad()
    def give_back(self) -> None:
        """Rounds the masters to the weights."""
        torch._foreach_copy_([w.detach() for w in self._weights], [m.detach() for m in self.trained])

"""The loss without storing all logits: softmax, loss and gradient of some rows at a time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
# Rows whose logits fit into a core's cache, or fill a GPU.
ROWS_AT_ONCE = {"cpu": 256, "cuda": 8192}


def summed_loss(states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """The sum of the cross-entropies of softmax(states · weightᵀ + bias) in nats; float32, no shape.

    The gradient is computed in the forward pass, from the same probabilities (Hsu et al. 2024, "Liger Kernel", section
    3.3): at most one [positions, vocabulary] matrix is stored, in the precision of the products.

    Args:
        states: [positions, width].
        weight: [vocabulary, width], of the decoder.
        bias: [vocabulary], of the decoder.
        labels: int64 [positions]; IGNORED at empty positions.
    """
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return _SummedLoss.apply(states, weight, bias, labels, dtype)  # type: ignore[no-any-return, no-untyped-call]


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each position; float32 [positions], 0 at empty positions."""
    return F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=IGNORED)


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            loss, found = _loss_and_gradients(states, weight, bias, labels, dtype, ctx.needs_input_grad[:3])
        ctx.save_for_backward(*found)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        # The upstream gradient is a scalar, that of the sum.
        return *(None if found is None else found * gradients[0] for found in ctx.saved_tensors), None, None


def _loss_and_gradients(
    states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype, needed: tuple[bool, ...]
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    factor, table = states.to(dtype), weight.to(dtype)
    loss = torch.zeros((), device=states.device)
    of_states = torch.empty_like(states) if needed[0] else None
    of_weight = torch.zeros_like(weight) if needed[1] else None
    of_bias = torch.zeros_like(bias) if needed[2] else None
    for first in range(0, len(states), ROWS_AT_ONCE[states.device.type]):
        rows = slice(first, first + ROWS_AT_ONCE[states.device.type])
        logits = torch.addmm(bias.to(dtype), factor[rows], table.t()).float()
        losses, of_logits = _softmax(logits, labels[rows], any(needed))
        # Not in place: torch 2.11 compiles an autograd.Function that modifies and returns a tensor to one whose
        # gradients are all zero.
        loss = loss + losses.sum()
        if of_bias is not None:
            of_bias += of_logits.sum(dim=0)
        of_logits = of_logits.to(dtype)
        if of_states is not None:
            of_states[rows] = of_logits @ table
        if of_weight is not None:
            _add_product(of_weight, of_logits.t(), factor[rows])
    return loss, (of_states, of_weight, of_bias)


def _softmax(logits: Tensor, labels: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """The losses, and the gradients of the logits, in their memory; 0 at empty positions."""
    empty = labels == IGNORED
    right = labels.clamp(min=0).unsqueeze(1)
    logits -= logits.amax(dim=1, keepdim=True)
    of_right = logits.gather(1, right).squeeze(1)
    total = logits.exp_().sum(dim=1)
    losses = torch.where(empty, 0.0, total.log() - of_right)
    if with_gradient:
        logits *= torch.where(empty, 0.0, 1 / total).unsqueeze(1)
        logits[torch.arange(len(logits), device=logits.device), right.squeeze(1)] -= torch.where(empty, 0.0, 1.0)
    return losses, logits


def _add_product(target: Tensor, left: Tensor, right: Tensor) -> None:
    """Compute target += left · right, in the precision of the factors."""
    if left.dtype == target.dtype:
        target.addmm_(left, right)
    else:
        target += left @ right

"""PyTorch's own attention with a mask: works everywhere, and is the reference for the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Backend, Shape


class SDPA(Backend):
    """`scaled_dot_product_attention` of whole rows, with a mask."""

    name = "sdpa"

    def missing(self, shape: Shape) -> str:
        return ""

    def plan(self, segment_ids: Tensor, tweets: int) -> Tensor:
        """bool [rows, 1, length, length]. Padding attends to padding, so that no row of the softmax is empty."""
        return segment_ids[:, None, :, None] == segment_ids[:, None, None, :]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, plan: Tensor, scale: float, window: int | None
    ) -> Tensor:
        if window is not None:
            places = torch.arange(plan.shape[-1], device=plan.device)
            plan = plan & ((places[:, None] - places).abs() <= window)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=plan, scale=scale)
        return seen.transpose(1, 2)

"""AdamW with the usual groups: matrices decay, biases and LayerNorms do not."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bert_tweets.config import OptimizerConfig


def choose_trainable(model: nn.Module, trainable: str) -> None:
    """Freezes all but the input embeddings (and the decoder tied to them) where `embeddings` is asked for."""
    if trainable == "embeddings":
        model.requires_grad_(False)
        model.get_input_embeddings().requires_grad_(True)  # type: ignore[operator]


def make_optimizer(parameters: Iterable[Tensor], config: OptimizerConfig) -> torch.optim.AdamW:
    """A fused AdamW over those of the parameters that are trained.

    A parameter of fewer than two dimensions is a bias or belongs to a LayerNorm: it does not decay.
    """
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )

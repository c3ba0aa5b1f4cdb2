"""AdamW with the usual groups: weight decay for matrices, none for biases and LayerNorms."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bert_tweets.config import OptimizerConfig


def choose_trainable(model: nn.Module, trainable: str) -> None:
    """Freeze all but the input embeddings (and the decoder tied to them) if `trainable` is `embeddings`."""
    if trainable == "embeddings":
        model.requires_grad_(False)
        model.get_input_embeddings().requires_grad_(True)  # type: ignore[operator]


def make_optimizer(parameters: Iterable[Tensor], config: OptimizerConfig) -> torch.optim.AdamW:
    """Make a fused AdamW of the trained parameters.

    A parameter with fewer than two dimensions is a bias or belongs to a LayerNorm: it gets no weight decay.
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

"""Padding of the vocabulary in training: matrix products on a GPU are faster for multiples of 64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Low enough that its exponential is 0 in every precision, and high enough not to overflow fp16.
_NEVER = -1e4


def pad_vocabulary(model: Any, multiple: int) -> int:
    """Add rows to a stock model that belong to no token and get no probability; returns the size before."""
    size = int(model.config.vocab_size)
    padded = -(-size // multiple) * multiple
    if padded > size:
        model.resize_token_embeddings(padded, mean_resizing=False)
        decoder = model.get_output_embeddings()
        with torch.no_grad():
            for table, value in (
                (model.get_input_embeddings().weight, 0.0),
                (decoder.weight, 0.0),
                (decoder.bias, _NEVER),
            ):
                table[size:] = value
    return size


def cut_vocabulary(model: Any, size: int) -> None:
    """Remove the rows beyond `size`."""
    if model.config.vocab_size > size:
        model.resize_token_embeddings(size, mean_resizing=False)


def names_by_token(model: Any) -> set[str]:
    """The names of a model's weights that have a row per token."""
    decoder = model.get_output_embeddings()
    tables = {model.get_input_embeddings().weight, decoder.weight, decoder.bias}
    return {name for name, weight in model.named_parameters() if weight in tables}


def fit_vocabulary(weights: dict[str, Tensor], by_token: set[str], size: int) -> dict[str, Tensor]:
    """Adapt weights, or their moments, to another padding of the vocabulary.

    Args:
        by_token: names of tensors with a row per token, see `names_by_token`; the others are left as they are.
        size: number of rows; added rows are filled as in `pad_vocabulary`.
    """

    def fitted(name: str, weight: Tensor) -> Tensor:
        if name not in by_token or len(weight) == size:
            return weight
        if len(weight) > size:
            return weight[:size].clone()
        value = _NEVER if weight.dim() == 1 else 0.0
        more = torch.full((size - len(weight), *weight.shape[1:]), value, dtype=weight.dtype)
        return torch.cat([weight, more])

    return {name: fitted(name, weight) for name, weight in weights.items()}

"""The vocabulary's size while training: matrix products of a GPU like multiples of 64."""

from __future__ import annotations

from typing import Any

import torch

# Its exponential is 0 in every precision, and no arithmetic on it overflows.
_NEVER = -1e4


def pad_vocabulary(model: Any, multiple: int) -> int:
    """Gives a stock masked language model rows that no token has, and that no softmax sees.

    Returns:
        The size before, for `cut_vocabulary`.
    """
    size = int(model.config.vocab_size)
    padded = -(-size // multiple) * multiple
    if padded > size:
        model.resize_token_embeddings(padded, mean_resizing=False)
        decoder = model.get_output_embeddings()
        with torch.no_grad():
            for table, value in ((decoder.weight, 0.0), (decoder.bias, _NEVER)):
                table[size:] = value
            model.get_input_embeddings().weight[size:] = 0.0
    return size


def cut_vocabulary(model: Any, size: int) -> None:
    """Takes rows beyond `size` away again."""
    if model.config.vocab_size > size:
        model.resize_token_embeddings(size, mean_resizing=False)

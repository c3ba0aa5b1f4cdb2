"""One module that holds encoder and head, and gives the sum of the losses at masked positions.

Engines wrap it whole; nothing outside calls what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batches import MicroBatch
from ..data.masking import Masking
from .attention import segment_mask

IGNORED = -100


@dataclass(frozen=True)
class Guesses:
    """What the model made of each masked token; all [masked_capacity].

    Attributes:
        losses: float32, cross-entropy in nats; 0 where a place is empty.
        correct: bool, the most likely token is the right one.
        segments: int64, segment of the token; 0 where a place is empty.
    """

    losses: Tensor
    correct: Tensor
    segments: Tensor


class PackedMaskedLM(nn.Module):
    """A stock masked language model, run over packed rows.

    Args:
        model: what `transformers` loaded, with the attention of `attention.py`.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        # RoBERTa counts positions from its padding id + 1; BERT from 0.
        is_bert = model.config.model_type == "bert"
        self.first_position = 0 if is_bert else int(model.config.pad_token_id) + 1

    def forward(self, batch: MicroBatch, masking: Masking) -> Tensor:
        """The sum of the losses at masked positions: float32, no shape. Draws the masks on the device."""
        return self._head_losses(batch, masking)[0].sum()

    def guesses(self, batch: MicroBatch, masking: Masking) -> Guesses:
        """The losses one by one, for evaluation."""
        losses, logits, labels, positions = self._head_losses(batch, masking)
        filled = labels != IGNORED
        segments = torch.where(filled, batch.segment_ids.flatten()[positions].long(), 0)
        return Guesses(losses, filled & (logits.argmax(dim=-1) == labels), segments)

    def hidden_states(self, batch: MicroBatch) -> tuple[Tensor, ...]:
        """The states after the embeddings and after each layer, of the tokens as they stand.

        Returns:
            layers + 1 tensors [rows, row_length, width].
        """
        output = self._encode(batch, batch.input_ids, output_hidden_states=True)
        return tuple(output.hidden_states)

    def _encode(self, batch: MicroBatch, input_ids: Tensor, **options: Any) -> Any:
        return self.model.base_model(
            input_ids=input_ids,
            position_ids=batch.position_ids.long() + self.first_position,
            token_type_ids=torch.zeros_like(input_ids),
            packed_mask=segment_mask(batch.segment_ids),
            **options,
        )

    def _head_losses(self, batch: MicroBatch, masking: Masking) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Losses, logits and labels of the masked positions, and these positions in the flattened rows."""
        corrupted, selected = masking.apply(batch)
        states = self._encode(batch, corrupted).last_hidden_state
        # The number of places is known to the host, so the device is not waited for.
        found = torch.nonzero_static(selected.flatten(), size=batch.masked_capacity, fill_value=-1).squeeze(1)
        positions = found.clamp(min=0)
        labels = torch.where(found >= 0, batch.input_ids.flatten()[positions].long(), IGNORED)
        logits = self._head(states.flatten(0, 1)[positions])
        losses = F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=IGNORED)
        return losses, logits, labels, positions

    def _head(self, states: Tensor) -> Tensor:
        head = self.model.cls if hasattr(self.model, "cls") else self.model.lm_head
        return head(states)  # type: ignore[no-any-return]

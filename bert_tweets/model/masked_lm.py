"""One module of encoder and head that returns the sum of the losses at masked positions.

Engines wrap it as a whole; nothing outside calls its submodules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bert_tweets.data.batches import MicroBatch
from bert_tweets.data.masking import Masking

from .attention import Backend, Plan, backend_named
from .encoder import Head, PackedEncoder
from .loss import IGNORED, losses_of, summed_loss

_MOST_SHAPES = 64


@dataclass(frozen=True)
class MaskedPredictions:
    """The model's predictions of masked tokens; all [masked_capacity].

    Attributes:
        losses: float32, cross-entropy in nats; 0 at empty places.
        correct: bool, whether the most likely token is the right one.
        segments: int64, segment of the token; 0 at empty places.
    """

    losses: Tensor
    correct: Tensor
    segments: Tensor


class PackedMaskedLM(nn.Module):
    """A stock masked language model that runs on packed rows.

    Args:
        model: the model that `transformers` loaded, with the attention of `attention.hf_interface`.
        backend: attention backend; None: the one that works everywhere.
        compiled: let torch.compile make the step's kernels.
        checkpoint: recompute each layer's activations in the backward pass.
        sharded: an engine shards the weights, see `PackedEncoder`.
    """

    def __init__(
        self,
        model: Any,
        backend: Backend | None = None,
        compiled: bool = False,
        checkpoint: bool = False,
        sharded: bool = False,
    ):
        super().__init__()
        self.model, self.compiled = model, compiled
        self.backend = backend or backend_named("sdpa")
        self._encoder, self._head = PackedEncoder(model, self.backend, checkpoint, sharded), Head(model)
        self._loss = _compiled(self._summed_loss) if compiled else self._summed_loss

    def forward(self, batch: MicroBatch, masking: Masking) -> Tensor:
        """The sum of the losses at masked positions: float32 scalar. Draws the masks on the device."""
        return self._loss(batch, masking, self._plan(batch))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Validation mode: no dropout, no gradients.

        A compiled module without dropout stays in training mode, with gradients that are not used: it reuses the graph
        of training, where another would take up to a minute to compile.
        """
        same_graph = self.compiled and not any(isinstance(part, nn.Dropout) and part.p for part in self.modules())
        self.train(same_graph)
        with torch.set_grad_enabled(same_graph):
            yield

    def predictions(self, batch: MicroBatch, masking: Masking) -> MaskedPredictions:
        """The loss of each masked token, for evaluation."""
        states, labels, positions = self._at_masked(batch, masking, self._plan(batch))
        logits = self._head.decoder(states)
        filled = labels != IGNORED
        segments = torch.where(filled, batch.segment_ids.flatten()[positions].long(), 0)
        return MaskedPredictions(losses_of(logits, labels), filled & (logits.argmax(dim=-1) == labels), segments)

    def hidden_states(self, batch: MicroBatch) -> tuple[Tensor, ...]:
        """The states after the embeddings and after each layer, without masking: [rows, row_length, width] each."""
        plan = self._plan(batch)
        output = self._encoder.all_states(batch.input_ids, batch.position_ids, plan, output_hidden_states=True)
        return tuple(output.hidden_states)

    def layers_at(self, batch: MicroBatch, places: Tensor, layers: Sequence[int]) -> Tensor:
        """The states of some tokens after some layers, without masking: float32 [layers, places, width].

        Args:
            places: int64 [places], indices in the flattened rows.
            layers: layer numbers, ascending; 0 for the embeddings, 1 for the first layer.
        """
        parts = self._encoder.layers_at(batch.input_ids, batch.position_ids, self._plan(batch), places, layers)
        # Under autocast the embeddings have another dtype than the layers' states.
        return torch.stack([states.float() for states in parts])

    def likeliest(self, batch: MicroBatch, places: Tensor, allowed: Tensor, count: int) -> Tensor:
        """The most likely tokens at some places, int64 [places, count]; to predict a token, put [MASK] there.

        Args:
            places: int64 [places], indices in the flattened rows.
            allowed: bool [vocabulary], tokens to choose from; at least `count` of them.
        """
        states = self._encoder.states_at(batch.input_ids, batch.position_ids, self._plan(batch), places)
        logits = self._head.decoder(self._head.transform(states))
        likeliest: Tensor = logits.masked_fill(~allowed, -torch.inf).topk(count, dim=1).indices
        return likeliest

    def _plan(self, batch: MicroBatch) -> Plan:
        return self.backend.plan(batch.segment_ids, len(batch.tweet_index) - 1)

    def _summed_loss(self, batch: MicroBatch, masking: Masking, plan: Plan) -> Tensor:
        states, labels, _ = self._at_masked(batch, masking, plan)
        decoder = self._head.decoder
        return summed_loss(states, decoder.weight, decoder.bias, labels)

    def _at_masked(self, batch: MicroBatch, masking: Masking, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's input at the masked positions, their labels, and their indices in the flattened rows."""
        corrupted, selected = masking.apply(batch)
        # The host knows the number of places, so it does not wait for the device.
        found = torch.nonzero_static(selected.flatten(), size=batch.masked_capacity, fill_value=-1).squeeze(1)
        positions = found.clamp(min=0)
        labels = torch.where(found >= 0, batch.input_ids.flatten()[positions].long(), IGNORED)
        states = self._encoder.states_at(corrupted, batch.position_ids, plan, positions)
        return self._head.transform(states), labels, positions


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compile a function for each shape that it is called with.

    After eight shapes torch would leave all others uncompiled. A run has one shape, but the limit counts all modules of
    a process, and a benchmark or a Python session makes many.
    """
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _MOST_SHAPES)
    return torch.compile(function, dynamic=False)

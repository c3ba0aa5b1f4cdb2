"""A stock encoder and its head on packed rows: layer by layer for BERT-like models, as a whole for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import Backend, Plan

LIKE_BERT = ("bert", "camembert", "roberta", "xlm-roberta")


def first_position(config: Any) -> int:
    """The position id of the first token: RoBERTa-like models count from the padding id + 1."""
    like_roberta = config.model_type in LIKE_BERT and config.model_type != "bert"
    return int(config.pad_token_id) + 1 if like_roberta else 0


class PackedEncoder:
    """The encoder of a stock masked language model over packed rows; has no parameters of its own.

    In BERT-like models the parts of a layer are called one by one: query, key and value are one matrix product, and
    after the last layer's attention only the requested positions are computed. The parameters stay in the stock model,
    under their names.

    Args:
        model: the stock model, with the attention of `attention.hf_interface`.
        recompute: keep only the layers' inputs, and recompute the rest in the backward pass (Chen et al. 2016).
        sharded: weights are sharded across ranks (ZeRO 3), and gathered while their own module is called; query, key
            and value are then three separate products.
    """

    def __init__(self, model: Any, backend: Backend, recompute: bool = False, sharded: bool = False):
        self._base, self.backend, self._recompute = model.base_model, backend, recompute
        self._project = _three_products if sharded else _one_product
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self._like_bert = model.config.model_type in LIKE_BERT
        self._first_position = first_position(model.config)

    def states_at(self, input_ids: Tensor, position_ids: Tensor, plan: Plan, positions: Tensor) -> Tensor:
        """The last layer's hidden states at the selected positions: [positions, width].

        Args:
            input_ids: int64 [rows, row_length].
            position_ids: int32 [rows, row_length], position within the tweet.
            positions: int64 [positions], indices in the flattened rows.
        """
        packed = (self.backend, plan, self._project)
        if not self._like_bert:
            return self.all_states(input_ids, position_ids, plan).last_hidden_state.flatten(0, 1)[positions]  # type: ignore[no-any-return]
        states = self._embedded(input_ids, position_ids)
        *layers, last = self._base.encoder.layer
        for layer in layers:
            if self._recompute:
                states = checkpoint(_layer, layer, states, packed, use_reentrant=False)
            else:
                states = _layer(layer, states, packed)
        return _layer(last, states, packed, positions)

    def layers_at(
        self, input_ids: Tensor, position_ids: Tensor, plan: Plan, positions: Tensor, layers: Sequence[int]
    ) -> list[Tensor]:
        """The states of some tokens after some layers: [positions, width] each.

        In BERT-like models no layer above the highest requested one runs, and that one computes only these tokens after
        its attention; no other states are kept. Layers are numbered from 1, after 0 for the embeddings, and ascend; the
        other arguments are those of `states_at`.
        """
        if not self._like_bert:
            every = self.all_states(input_ids, position_ids, plan, output_hidden_states=True).hidden_states
            return [every[layer].flatten(0, 1)[positions] for layer in layers]
        packed = (self.backend, plan, self._project)
        states = self._embedded(input_ids, position_ids)
        kept = []
        for number in range(layers[-1] + 1):
            if number:
                layer = self._base.encoder.layer[number - 1]
                states = _layer(layer, states, packed, positions if number == layers[-1] else None)
            if number in layers:
                is_selected = number == layers[-1] and number > 0
                kept.append(states if is_selected else states.flatten(0, 1)[positions])
        return kept

    def _embedded(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        return self._base.embeddings(  # type: ignore[no-any-return]
            input_ids=input_ids,
            position_ids=position_ids.long() + self._first_position,
            token_type_ids=torch.zeros_like(input_ids),
        )

    def all_states(self, input_ids: Tensor, position_ids: Tensor, plan: Plan, **options: Any) -> Any:
        """The stock encoder's own output."""
        types = {"token_type_ids": torch.zeros_like(input_ids)} if self._like_bert else {}
        return self._base(
            input_ids=input_ids,
            position_ids=position_ids.long() + self._first_position,
            packed=(self.backend, plan),
            **types,
            **options,
        )


# Backend, its plan, and the function that computes query, key and value.
_Packed = tuple[Backend, Plan, Callable[[Any, Tensor], Tensor]]


def _layer(layer: Any, states: Tensor, packed: _Packed, positions: Tensor | None = None) -> Tensor:
    """The output of `BertLayer`; if `positions` are given, only these tokens are computed after the attention."""
    context = _self_attention(layer.attention.self, states, packed)
    if positions is not None:
        context, states = (values.flatten(0, 1)[positions] for values in (context, states))
    return layer.feed_forward_chunk(layer.attention.output(context, states))  # type: ignore[no-any-return]


def _self_attention(part: Any, states: Tensor, packed: _Packed) -> Tensor:
    """The output of `BertSelfAttention`: [rows, row_length, width]."""
    backend, plan, project = packed
    shape = (*states.shape[:-1], 3, part.num_attention_heads, part.attention_head_size)
    return backend.attend_packed(project(part, states).view(shape), plan, part.scaling, None).flatten(-2)


def _one_product(part: Any, states: Tensor) -> Tensor:
    """Query, key and value, concatenated: [rows, row_length, 3 · width]."""
    three = (part.query, part.key, part.value)
    weight, bias = torch.cat([one.weight for one in three]), torch.cat([one.bias for one in three])
    return F.linear(states, weight, bias)


def _three_products(part: Any, states: Tensor) -> Tensor:
    """The result of `_one_product`, with each weight used by its own module."""
    return torch.cat([part.query(states), part.key(states), part.value(states)], dim=-1)


class Head:
    """The masked-LM head of a stock model, up to its decoder; has no parameters of its own."""

    def __init__(self, model: Any):
        self._model = model
        self._transform = None
        if hasattr(model, "lm_head"):
            self.dense, self.norm = model.lm_head.dense, model.lm_head.layer_norm
        elif hasattr(model, "cls"):
            self._transform = part = model.cls.predictions.transform
            self.dense, self.norm = part.dense, part.LayerNorm
        else:
            self._transform = part = model.head
            self.dense, self.norm = part.dense, part.norm

    def transform(self, states: Tensor) -> Tensor:
        """The decoder's input, [positions, width], from states of the same shape."""
        whole = self._transform
        return self.norm(F.gelu(self.dense(states))) if whole is None else whole(states)  # type: ignore[no-any-return]

    @property
    def decoder(self) -> nn.Linear:
        return self._model.get_output_embeddings()  # type: ignore[no-any-return]

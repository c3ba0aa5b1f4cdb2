"""Tiny stock models, and packed batches of random tweets, for tests of the model room."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import CONFIG_MAPPING, AutoModelForMaskedLM

from bert_tweets.corpus.shards.reader import Tweets
from bert_tweets.data.batches import MicroBatch, to_micro_batch
from bert_tweets.data.masking import Masking
from bert_tweets.data.packing import pack
from bert_tweets.model.attention import register

VOCABULARY, PAD, MASK = 120, 1, 4
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": PAD,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
FAMILIES = ("bert", "roberta", "xlm-roberta", "modernbert")


def stock_model(family: str, attention: str = "eager", seed: int = 0) -> Any:
    """A stock model with random weights; biases and LayerNorms are random too, so that each has an effect."""
    torch.manual_seed(seed)
    # In ModernBERT two layers in three attend to three neighbours on either side.
    more = {"local_attention": 6, "num_hidden_layers": 4, "norm_bias": True} if family == "modernbert" else {}
    config = CONFIG_MAPPING[family](**{**SIZES, **more})
    config._attn_implementation = attention
    model = AutoModelForMaskedLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2) if parameter.dim() > 1 else parameter.add_(torch.randn_like(parameter) * 0.2)
        model.get_input_embeddings().weight[PAD] = 0
    return model


def packed_model(family: str) -> Any:
    """The same weights with our attention."""
    return stock_model(family, register())


def tweets_of(lengths: list[int], seed: int = 0) -> Tweets:
    """Random ordinary tokens between [CLS] (2) and [SEP] (3), every token a word."""
    ids = np.random.default_rng(seed).integers(5, VOCABULARY, sum(lengths)).astype(np.int32)
    ends = np.cumsum(lengths)
    ids[ends - lengths], ids[ends - 1] = 2, 3
    return Tweets(np.array(lengths, dtype=np.int64), ids, np.ones(len(ids), dtype=bool))


def packed(tweets: Tweets, row_length: int = 32) -> MicroBatch:
    indices = np.arange(len(tweets.lengths))
    return to_micro_batch(pack(tweets, row_length, PAD), indices, np.zeros_like(indices))


def padded(tweets: Tweets) -> tuple[torch.Tensor, torch.Tensor]:
    """A tweet per row: input ids and attention mask, int64 [tweets, longest]."""
    width = int(tweets.lengths.max())
    ids = torch.full((len(tweets.lengths), width), PAD)
    for row, (length, end) in enumerate(zip(tweets.lengths, np.cumsum(tweets.lengths), strict=True)):
        ids[row, :length] = torch.from_numpy(tweets.input_ids[end - length : end].astype(np.int64))
    return ids, (torch.arange(width) < torch.from_numpy(tweets.lengths)[:, None]).long()


def masking_of(seed: int = 0, probability: float = 0.15) -> Masking:
    is_ordinary = torch.ones(VOCABULARY, dtype=torch.bool)
    is_ordinary[:5] = False
    return Masking(seed, probability, False, MASK, torch.nonzero(is_ordinary).squeeze(1), is_ordinary)

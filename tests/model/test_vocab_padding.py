"""Rows that pad a vocabulary change no loss and no gradient, and are removed after training."""

from __future__ import annotations

import pytest
import torch

from bert_tweets.data.batches import MicroBatch
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.model.vocab_padding import cut_vocabulary, pad_vocabulary
from tests.model.test_masked_lm import capacity
from tests.model.tiny import VOCABULARY, masking_of, packed, packed_model, tweets_of


def batch_of() -> MicroBatch:
    batch = packed(tweets_of([20, 9, 14, 30, 5]))
    return capacity(batch, int(masking_of().select(batch).sum()))


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_padding_changes_no_loss_and_no_gradient(family: str) -> None:
    plain, model = packed_model(family), packed_model(family)
    assert pad_vocabulary(model, 64) == VOCABULARY
    assert model.config.vocab_size == 128 == len(model.get_output_embeddings().weight)
    losses = [PackedMaskedLM(each)(batch_of(), masking_of()) for each in (plain, model)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for before, after in zip(plain.parameters(), model.parameters(), strict=True):
        assert before.grad is not None and after.grad is not None
        torch.testing.assert_close(after.grad[: len(before.grad)], before.grad, rtol=1e-4, atol=1e-5)
        assert not after.grad[len(before.grad) :].any()
    cut_vocabulary(model, VOCABULARY)
    assert model.config.vocab_size == VOCABULARY
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_vocabulary_that_needs_no_padding_does_not_change() -> None:
    model = packed_model("bert")
    before = model.get_input_embeddings().weight
    assert pad_vocabulary(model, 8) == VOCABULARY
    assert model.get_input_embeddings().weight is before

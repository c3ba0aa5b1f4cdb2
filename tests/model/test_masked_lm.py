"""The packed model equals the stock model: same logits, loss and gradients, and no tweet attends to another."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bert_tweets.data.batches import MicroBatch
from bert_tweets.model.masked_lm import PackedMaskedLM
from tests.model.tiny import FAMILIES, PAD, masking_of, packed, packed_model, padded, stock_model, tweets_of

LENGTHS = [3, 32, 17, 8, 8, 5, 21, 2, 11, 30, 4]


def capacity(batch: MicroBatch, masked: int) -> MicroBatch:
    return dataclasses.replace(batch, masked_capacity=masked)


def all_logits(module: PackedMaskedLM, batch: MicroBatch, ids: torch.Tensor) -> torch.Tensor:
    """Logits at every place of the rows: [rows, row_length, vocabulary]."""
    states = module._encoder.states_at(ids, batch.position_ids, module._plan(batch), torch.arange(ids.numel()))
    return module._head.decoder(module._head.transform(states)).view(*ids.shape, -1)


def full_logits(module: PackedMaskedLM, batch: MicroBatch) -> torch.Tensor:
    """Logits of each tweet's tokens in the order of the tweets: [tokens, vocabulary]."""
    logits = all_logits(module, batch, batch.input_ids.long())
    flat, segments, positions = (x.flatten(0, 1) for x in (logits, batch.segment_ids, batch.position_ids))
    real = segments > 0
    order = torch.argsort(segments[real].long() * 1000 + positions[real])
    return flat[real][order]


def close(actual: torch.Tensor, expected: torch.Tensor, relative: float) -> bool:
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-12)) < relative


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_logits_and_gradients_equal_the_padded_model(family: str) -> None:
    tweets = tweets_of(LENGTHS)
    ours, stock = packed_model(family), stock_model(family)
    ids, mask = padded(tweets)
    batch = packed(tweets)
    assert len(batch.input_ids) < len(ids)
    logits = full_logits(PackedMaskedLM(ours), batch)
    expected = stock(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    assert torch.allclose(logits, expected, atol=2e-5, rtol=1e-5)
    target = torch.randn_like(logits)
    (logits * target).sum().backward()
    (expected * target).sum().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), stock.parameters(), strict=True):
        # key.bias has no true gradient: softmax ignores it.
        if mine.grad is not None and not name.endswith("key.bias"):
            assert close(mine.grad, theirs.grad, 2e-5), name


@pytest.mark.parametrize("family", FAMILIES)
def test_changing_one_tweet_changes_no_logit_of_its_neighbours(family: str) -> None:
    tweets = tweets_of(LENGTHS)
    batch, module = packed(tweets), PackedMaskedLM(packed_model(family))
    before = full_logits(module, batch)
    changed = 5
    here = batch.segment_ids == changed
    others = torch.repeat_interleave(torch.arange(len(LENGTHS)) + 1, torch.from_numpy(tweets.lengths)) != changed
    ids = torch.where(here, 7 + (batch.input_ids - 3) % 100, batch.input_ids)
    after = full_logits(module, dataclasses.replace(batch, input_ids=ids))
    assert torch.equal(after[others], before[others])
    assert not torch.equal(after[~others], before[~others])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spare", [0, 9])
def test_the_head_at_masked_positions_equals_the_full_head(family: str, spare: int) -> None:
    batch, masking = packed(tweets_of(LENGTHS)), masking_of()
    corrupted, selected = masking.apply(batch)
    ours, stock = packed_model(family), packed_model(family)
    loss = PackedMaskedLM(ours)(capacity(batch, int(selected.sum()) + spare), masking)
    full = PackedMaskedLM(stock)
    logits = all_logits(full, batch, corrupted)
    labels = torch.where(selected, batch.input_ids.long(), -100)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    assert torch.allclose(loss, expected, rtol=1e-6)
    loss.backward()
    expected.backward()
    for (name, mine), theirs in zip(ours.named_parameters(), stock.parameters(), strict=True):
        if mine.grad is not None and not name.endswith("key.bias"):
            assert close(mine.grad, theirs.grad, 1e-6), name


def test_a_micro_batch_without_masked_tokens_gives_zero_and_zero_gradients() -> None:
    batch, model = packed(tweets_of([4, 6])), packed_model("bert")
    empty = dataclasses.replace(
        batch,
        segment_ids=torch.zeros_like(batch.segment_ids),
        input_ids=torch.full_like(batch.input_ids, PAD),
    )
    loss = PackedMaskedLM(model)(empty, masking_of())
    loss.backward()
    assert loss.item() == 0
    head = model.cls.predictions.transform.dense.weight.grad
    assert head is not None and not head.any()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_predictions_have_the_losses_of_the_sum() -> None:
    batch, masking = packed(tweets_of(LENGTHS)), masking_of()
    selected = masking.select(batch)
    module = PackedMaskedLM(packed_model("bert"))
    roomy = capacity(batch, int(selected.sum()) + 5)
    predictions = module.predictions(roomy, masking)
    assert torch.allclose(predictions.losses.sum(), module(roomy, masking))
    by_tweet = torch.bincount(predictions.segments, minlength=len(LENGTHS) + 1)
    assert by_tweet[0] == 5
    assert torch.equal(by_tweet[1:], torch.bincount(batch.segment_ids[selected].long(), minlength=len(LENGTHS) + 1)[1:])


def test_attention_without_segments_is_rejected() -> None:
    model = packed_model("bert")
    with pytest.raises(AssertionError, match="without its segments"):
        model(input_ids=torch.ones(1, 4, dtype=torch.long))

"""Every fast path of the step against the plain one: a tweet per row, padded, fp32, logits at every position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bert_tweets.engine.precision import COMPUTE_DTYPES, MasterWeights, autocast
from bert_tweets.model.attention import Shape, backend_named, backend_names
from bert_tweets.model.masked_lm import PackedMaskedLM
from tests.model.test_masked_lm import LENGTHS, capacity
from tests.model.tiny import FAMILIES, PAD, masking_of, packed, packed_model, padded, stock_model, tweets_of

CPU = torch.device("cpu")
Found = tuple[Tensor, dict[str, Tensor]]


def usable(precision: str) -> list[str]:
    shape = Shape("cpu", COMPUTE_DTYPES[precision], head_size=8, row_length=32, windowed=True)
    return [name for name in backend_names() if not backend_named(name).missing(shape)]


def gradients(model: Any) -> dict[str, Tensor]:
    """Gradients that are not just rounding: softmax ignores the key's bias."""
    named = model.named_parameters()
    return {name: p.grad.float() for name, p in named if p.grad is not None and not name.endswith("key.bias")}


def plain(family: str, precision: str) -> Found:
    """The stock model on padded tweets, with the labels and inputs of the packed rows."""
    tweets = tweets_of(LENGTHS)
    batch, model = packed(tweets), stock_model(family)
    corrupted, selected = masking_of().apply(batch)
    ids, mask = padded(tweets)
    inputs, labels = torch.full_like(ids, PAD), torch.full_like(ids, -100)
    for number, length in enumerate(LENGTHS, start=1):
        here = batch.segment_ids == number
        inputs[number - 1, :length] = corrupted[here]
        labels[number - 1, :length] = torch.where(selected[here], batch.input_ids[here].long(), -100)
    with autocast(CPU, precision):
        logits = model(input_ids=inputs, attention_mask=mask).logits
    loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
    loss.backward()
    return loss.detach(), gradients(model)


def fast(family: str, precision: str, backend: str, recompute: bool = False) -> Found:
    batch, model = packed(tweets_of(LENGTHS)), packed_model(family)
    module = PackedMaskedLM(model, backend_named(backend), checkpoint=recompute)
    module.train()
    if precision == "bf16_weights":
        MasterWeights(module)
    with autocast(CPU, precision):
        loss = module(capacity(batch, int(masking_of().select(batch).sum()) + 3), masking_of())
    loss.backward()
    return loss.detach().float(), gradients(model)


def distance(found: Found, truth: Found) -> tuple[float, float]:
    """Relative errors of the loss and of all gradients."""
    apart = sum(float((found[1][name] - exact).norm() ** 2) for name, exact in truth[1].items()) ** 0.5
    return float((found[0] - truth[0]).abs() / truth[0]), apart / sum(
        float(g.norm() ** 2) for g in truth[1].values()
    ) ** 0.5


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("backend", usable("fp32"))
@pytest.mark.parametrize("family", FAMILIES)
def test_the_fp32_step_equals_the_plain_step(family: str, backend: str, recompute: bool) -> None:
    assert all(apart < 1e-5 for apart in distance(fast(family, "fp32", backend, recompute), plain(family, "fp32")))


@pytest.mark.parametrize("precision", ["bf16", "bf16_weights"])
@pytest.mark.parametrize("backend", usable("bf16"))
@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_errors_are_at_most_twice_those_of_the_plain_step(family: str, backend: str, precision: str) -> None:
    truth = plain(family, "fp32")
    allowed = distance(plain(family, "bf16"), truth)
    loss, of_gradients = distance(fast(family, precision, backend), truth)
    assert of_gradients <= 2 * allowed[1]
    # A loss is one number, so the plain step may be right by chance.
    assert loss <= max(2 * allowed[0], 2e-3)

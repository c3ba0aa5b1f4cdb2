"""Further measurements of `benchmarks.answer`: copying, padding and change of the input matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM

from benchmarks.answer_arms import ARMS, IGNORED, LENGTH, Arm, Batch, Tweets, losses_of
from benchmarks.common import Row
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import quiet_transformers

_BATCH, _COPIED_TWEETS, _GRADIENT_BATCHES = 20, 500, 5
_FREQUENT, _RARE = 50, 5


def load(folder: Path) -> Any:
    """Load a model in fp32, without dropout."""
    quiet_transformers()
    return AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()


def counts_of(shards: Path) -> Tensor:
    """Number of occurrences of each token in the training tweets; int64 [vocabulary]."""
    tweets = Tweets(shards, "train")
    return torch.bincount(torch.cat(tweets.rows), minlength=tweets.manifest.vocabulary_size)


def save_unigram(shards: Path, base: Path, folder: Path) -> None:
    """Save a model that knows only how frequent each token is: it predicts the same at every masked position.

    It is the base model with its head's LayerNorm zeroed, so that the logits equal the bias: log(count + 1) of each
    token in the training tweets, with the counts of special tokens set to 0.
    """
    manifest, model = Manifest.read(shards), load(base)
    counts = counts_of(shards)
    counts[list(manifest.special_ids)] = 0
    with torch.no_grad():
        norm = model.cls.predictions.transform.LayerNorm
        norm.weight.zero_()
        norm.bias.zero_()
        model.cls.predictions.bias.copy_(torch.log(counts + 1.0))
    export_model(folder, model, None, manifest, str(shards))


@torch.inference_mode()
def copying(shards: Path, folder: Path, precision: str) -> Row:
    """Loss at predicting the ordinary tokens of held-out tweets while they are visible (unmasked)."""
    model, arm = load(folder), ARMS["inputs as labels"]
    tweets = Tweets(shards, "validation", _COPIED_TWEETS)
    special = torch.tensor(tweets.tokenizer.all_special_ids)
    total, tokens = 0.0, 0
    for batch in tweets.batches(_BATCH, arm):
        ordinary = batch.real & ~torch.isin(batch.labels, special)
        losses = losses_of(
            model, Batch(batch.input_ids, batch.labels.where(ordinary, IGNORED), batch.real), arm, precision
        )
        total, tokens = total + float(losses.sum()), tokens + int(ordinary.sum())
    return {"loss": total / tokens, "tokens": tokens, "tweets": len(tweets)}


def input_matrix_change(shards: Path, base: Path, folder: Path) -> Row:
    """Relative change of the input matrix's rows, |after − before| / |before|: medians by the token's count.

    This compares weights of one matrix before and after training, not vectors of two spaces.
    """
    before, after = (load(model).get_input_embeddings().weight.detach() for model in (base, folder))
    change = ((after - before).norm(dim=1) / before.norm(dim=1)).numpy()
    counts = counts_of(shards).numpy()
    groups = {"frequent": counts >= _FREQUENT, "rare": (counts > 0) & (counts <= _RARE), "unseen": counts == 0}
    medians = {name: float(np.median(change[mask])) for name, mask in groups.items() if mask.any()}
    tokens = {name: int(mask.sum()) for name, mask in groups.items()}
    return medians | {"tokens": tokens, "all": float(np.median(change))}


def padding(shards: Path, base: Path, precision: str) -> list[Row]:
    """Shares of [PAD] in positions, labels, loss and gradient before the first step, for the arms that count padding.

    Losses and gradients are means over the first batches, without dropout.
    """
    manifest = Manifest.read(shards)
    lengths = np.asarray(manifest.lengths["train"])
    real = int((lengths * np.minimum(np.arange(len(lengths)), LENGTH)).sum())
    share = 1 - real / (LENGTH * int(lengths.sum()))
    model, tweets = load(base), Tweets(shards, "train", _BATCH * _GRADIENT_BATCHES)
    rows = []
    for who in ("question", "padding counted"):
        torch.manual_seed(0)
        batches = [_at_padding(model, batch, ARMS[who], precision) for batch in tweets.batches(_BATCH, ARMS[who])]
        mean = {name: float(np.mean([batch[name] for batch in batches])) for name in batches[0]}
        rows.append({"kind": "padding", "who": who, "share_of_positions": share, **mean})
    return rows


def _at_padding(model: Any, batch: Batch, arm: Arm, precision: str) -> Row:
    labelled = batch.labels != IGNORED
    masks = {"padding": labelled & ~batch.real, "elsewhere": labelled & batch.real}
    losses = losses_of(model, batch, arm, precision)
    sums = {name: losses[mask].sum() for name, mask in masks.items()}
    gradients = {name: _gradient(model, value / labelled.sum()) for name, value in sums.items()}
    losses = losses.detach()
    sums = {name: value.detach() for name, value in sums.items()}
    total = gradients["padding"] + gradients["elsewhere"]
    return {
        "share_of_labels": float(masks["padding"].sum() / labelled.sum()),
        "share_of_loss": float(sums["padding"] / losses.sum()),
        "loss": float(losses.sum() / labelled.sum()),
        **{f"loss_{name}": float(value / masks[name].sum()) for name, value in sums.items()},
        **{f"gradient_{name}": float(value.norm()) for name, value in gradients.items()},
        "share_of_gradient": float(gradients["padding"] @ total / (total @ total)),
    }


def _gradient(model: Any, loss: Tensor) -> Tensor:
    """Gradient of the loss with respect to all weights, concatenated; [parameters]."""
    parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])

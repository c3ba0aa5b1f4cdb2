"""What `benchmarks.answer` measures of a model beside its masked loss: copying, padding, input rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM

from benchmarks.answer_arms import ARMS, IGNORED, LENGTH, Arm, Batch, Tweets, losses_of
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import quiet_transformers

Row = dict[str, Any]
_BATCH, _COPIED_TWEETS, _GRADIENT_BATCHES = 20, 500, 5
_OFTEN, _SELDOM = 50, 5


def load(folder: Path) -> Any:
    """The model, without dropout."""
    quiet_transformers()
    return AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()


def counts_of(shards: Path) -> Tensor:
    """How often each token stands in the training tweets; int64 [vocabulary]."""
    tweets = Tweets(shards, "train")
    return torch.bincount(torch.cat(tweets.rows), minlength=tweets.manifest.vocabulary_size)


def save_unigram(shards: Path, base: Path, folder: Path) -> None:
    """A model that knows how frequent each token is, and nothing else: guesses are the same wherever a token is hidden.

    The base with its head silenced, so that the logits are its bias: the logarithm of ordinary tokens' counts in the
    training tweets plus one.
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
    """The loss and accuracy at guessing the ordinary tokens of held-out tweets that are in sight, unmasked."""
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


def moved_rows(shards: Path, base: Path, folder: Path) -> Row:
    """How far the rows of the input matrix moved: |after − before| / |before|, the median row by the token's count.

    The two are one matrix before and after, so that the difference is of weights; nothing is compared by a cosine.
    """
    before, after = (load(place).get_input_embeddings().weight.detach() for place in (base, folder))
    moved = ((after - before).norm(dim=1) / before.norm(dim=1)).numpy()
    counts = counts_of(shards).numpy()
    groups = {"often": counts >= _OFTEN, "seldom": (counts > 0) & (counts <= _SELDOM), "never": counts == 0}
    rows = {name: float(np.median(moved[where])) for name, where in groups.items() if where.any()}
    return rows | {"tokens": {name: int(where.sum()) for name, where in groups.items()}, "all": float(np.median(moved))}


def padding(shards: Path, base: Path, precision: str) -> list[Row]:
    """What share of positions, of labels, of the loss and of the gradient is [PAD], before the first step.

    Of labels that are the inputs, without an attention mask as in the question, and of properly masked tweets in which
    padding alone is left among the labels. Losses and gradients are of the first batches, without dropout.
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
        rows.append({"part": "padding", "who": who, "share_of_positions": share, **mean})
    return rows


def _at_padding(model: Any, batch: Batch, arm: Arm, precision: str) -> Row:
    labelled = batch.labels != IGNORED
    wheres = {"padding": labelled & ~batch.real, "elsewhere": labelled & batch.real}
    losses = losses_of(model, batch, arm, precision)
    sums = {name: losses[where].sum() for name, where in wheres.items()}
    gradients = {name: _gradient(model, value / labelled.sum()) for name, value in sums.items()}
    losses = losses.detach()
    sums = {name: value.detach() for name, value in sums.items()}
    together = gradients["padding"] + gradients["elsewhere"]
    return {
        "share_of_labels": float(wheres["padding"].sum() / labelled.sum()),
        "share_of_loss": float(sums["padding"] / losses.sum()),
        "loss": float(losses.sum() / labelled.sum()),
        **{f"loss_{name}": float(value / wheres[name].sum()) for name, value in sums.items()},
        **{f"gradient_{name}": float(value.norm()) for name, value in gradients.items()},
        "share_of_gradient": float(gradients["padding"] @ together / (together @ together)),
    }


def _gradient(model: Any, loss: Tensor) -> Tensor:
    """Of all weights, strung together."""
    parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])

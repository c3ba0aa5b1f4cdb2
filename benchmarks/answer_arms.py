"""The plain loops of `benchmarks.answer`: the question's own, and four in which one thing at a time is as there.

What the question's loop does (own code, after its description): tweets in the order of the file, 20 a step, each padded
to 82 tokens, no attention mask, dropout; the labels are the input ids, padding and all; AdamW without bias correction
at a rate of 1e-2, the gradient clipped at 1. Its 20 epochs are one here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling

from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import quiet_transformers

LENGTH = 82
IGNORED = -100
_BETAS = (0.9, 0.999)

Save = Callable[[Path], None]


@dataclass(frozen=True)
class Arm:
    """What a loop does.

    Attributes:
        labels: inputs: every token is its own label, in sight; masked: 15 % are hidden, and have labels.
        padding: each tweet is padded to 82 tokens, and [PAD] is a label like others; else to the longest, and it
            is none.
        rate: learning rate, constant.
        as_asked: the rest as in the question: no attention mask, no bias correction.
    """

    labels: str
    padding: bool
    rate: float
    as_asked: bool = False


ARMS = {
    "question": Arm("inputs", True, 1e-2, as_asked=True),
    "inputs as labels": Arm("inputs", False, 5e-5),
    "padding counted": Arm("masked", True, 5e-5),
    "rate of 1e-2": Arm("masked", False, 1e-2),
    "corrected loop": Arm("masked", False, 5e-5),
}


@dataclass(frozen=True)
class Batch:
    """Tweets as rows, all [tweets, length].

    Attributes:
        input_ids: int64, what the model sees.
        labels: int64; `IGNORED`: none.
        real: bool, no padding.
    """

    input_ids: Tensor
    labels: Tensor
    real: Tensor


class Tweets:
    """The tweets of a split as batches, in the order of the file.

    Args:
        shards: folder that prepare left.
        split: train or validation.
        limit: tweets that are used; None: all.
    """

    def __init__(self, shards: Path, split: str, limit: int | None = None):
        self.manifest = Manifest.read(shards)
        self.tokenizer = load_tokenizer(str(shards / "tokenizer"))
        held = open_split(shards, self.manifest, split)
        tweets = held.gather(np.arange(min(len(held), limit or len(held))))
        rows = np.split(tweets.input_ids.astype(np.int64), np.cumsum(tweets.lengths)[:-1])
        self.rows = [torch.from_numpy(row[:LENGTH]) for row in rows]
        self._collator = DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=0.15)

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int, arm: Arm) -> Iterator[Batch]:
        """Batches of so many tweets; masks come from torch's generator."""
        for first in range(0, len(self), size):
            yield self._batch(self.rows[first : first + size], arm)

    def _batch(self, rows: list[Tensor], arm: Arm) -> Batch:
        pad = self.manifest.pad_id
        ids = torch.nn.utils.rnn.pad_sequence(rows, True, pad)
        if arm.padding:
            ids = F.pad(ids, (0, LENGTH - ids.shape[1]), value=pad)
        lengths = torch.tensor([len(row) for row in rows])
        real = torch.arange(ids.shape[1]) < lengths[:, None]
        inputs, labels = ids, torch.where(real, ids, IGNORED)
        if arm.labels == "masked":
            special = torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))
            inputs, labels = self._collator.torch_mask_tokens(ids.clone(), special_tokens_mask=special)
        if arm.padding:
            labels = torch.where(real, labels, ids)
        return Batch(inputs, labels, real)


def losses_of(model: Any, batch: Batch, arm: Arm, precision: str) -> Tensor:
    """The loss at each position, 0 where there is no label; float32 [tweets, length].

    As of `model(input_ids, labels=labels)`, but that the head is run at positions with a label alone, which is faster.
    """
    mask = None if arm.as_asked else batch.real.long()
    labelled = batch.labels != IGNORED
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        states = model.bert(input_ids=batch.input_ids, attention_mask=mask).last_hidden_state
        logits = model.cls(states[labelled])
    losses = F.cross_entropy(logits.float(), batch.labels[labelled], reduction="none")
    return torch.zeros(labelled.shape).masked_scatter(labelled, losses)


def uncorrected(rate: float, step: int) -> float:
    """The rate at which AdamW with bias correction steps as AdamW without it does at `rate`, counted from step 1.

    Kingma and Ba 2015, section 2, the formula before section 2.1: rate · sqrt(1 − β2^t) / (1 − β1^t) is the corrected
    one, so this is its inverse.
    """
    return rate * (1 - _BETAS[0] ** step) / math.sqrt(1 - _BETAS[1] ** step)


def train(
    arm: Arm,
    shards: Path,
    base: Path,
    seed: int,
    size: int,
    precision: str,
    look: Callable[[int, Save], None] = lambda step, save: None,
) -> tuple[dict[str, Any], Save]:
    """One pass over the training tweets.

    Args:
        arm: what the loop does.
        shards, base: tweets, and the model that it begins with.
        seed: of masks and dropout.
        size: tweets of a step.
        precision: fp32 or bf16 (autocast).
        look: is called after each step, with its number and what saves the model.

    Returns:
        Steps, the loss of each step, and apart that at [PAD] and elsewhere; and what saves the model.
    """
    quiet_transformers()
    torch.manual_seed(seed)
    tweets = Tweets(shards, "train")
    model = AutoModelForMaskedLM.from_pretrained(base, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=arm.rate, betas=_BETAS, weight_decay=0.0, fused=True)
    found: dict[str, list[Any]] = {"losses": [], "losses_at_padding": [], "losses_elsewhere": []}

    def save(folder: Path) -> None:
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        export_model(folder, model, weights, tweets.manifest, str(shards))

    for step, batch in enumerate(tweets.batches(size, arm), 1):
        losses = losses_of(model, batch, arm, precision)
        labelled = batch.labels != IGNORED
        loss = losses.sum() / labelled.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = uncorrected(arm.rate, step) if arm.as_asked else arm.rate
        optimizer.step()
        optimizer.zero_grad()
        parts = [losses.detach()[labelled & where].mean().item() for where in (~batch.real, batch.real)]
        for name, value in zip(found, (loss.item(), *parts), strict=True):
            found[name].append([step, value] if math.isfinite(value) else [step, None])
        look(step, save)
    return {"steps": step, **(found if arm.padding else {"losses": found["losses"]})}, save

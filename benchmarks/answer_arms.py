"""The plain training loops of `benchmarks.answer`: the question's own, and four that keep one of its traits at a time.

The question's loop (our code, after its description): tweets in file order, 20 per step, each padded to 82 tokens, no
attention mask, with dropout; the labels are the input ids, including padding; AdamW without bias correction at a
learning rate of 1e-2, gradients clipped to norm 1. Its 20 epochs are one here.
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
    """Configuration of a plain training loop.

    Attributes:
        labels: "inputs": every token is its own, visible label; "masked": 15 % of the tokens are masked and labelled.
        padding: pad each tweet to 82 tokens and use [PAD] as a label; otherwise pad to the longest tweet of the batch
            and ignore padding.
        learning_rate: constant learning rate.
        as_in_question: everything else as in the question: no attention mask, no bias correction.
    """

    labels: str
    padding: bool
    learning_rate: float
    as_in_question: bool = False


ARMS = {
    "question": Arm("inputs", True, 1e-2, as_in_question=True),
    "inputs as labels": Arm("inputs", False, 5e-5),
    "padding counted": Arm("masked", True, 5e-5),
    "rate of 1e-2": Arm("masked", False, 1e-2),
    "corrected loop": Arm("masked", False, 5e-5),
}


@dataclass(frozen=True)
class Batch:
    """A batch with one tweet per row; all tensors are [tweets, length].

    Attributes:
        input_ids: int64 inputs of the model.
        labels: int64 labels, `IGNORED` at positions without one.
        real: bool, False at padding.
    """

    input_ids: Tensor
    labels: Tensor
    real: Tensor


class Tweets:
    """The tweets of a split as batches, in file order.

    Args:
        shards: folder of shards.
        split: "train" or "validation".
        limit: maximum number of tweets; None: all.
    """

    def __init__(self, shards: Path, split: str, limit: int | None = None):
        self.manifest = Manifest.read(shards)
        self.tokenizer = load_tokenizer(str(shards / "tokenizer"))
        tweets_of_split = open_split(shards, self.manifest, split)
        tweets = tweets_of_split.gather(np.arange(min(len(tweets_of_split), limit or len(tweets_of_split))))
        rows = np.split(tweets.input_ids.astype(np.int64), np.cumsum(tweets.lengths)[:-1])
        self.rows = [torch.from_numpy(row[:LENGTH]) for row in rows]
        self._collator = DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=0.15)

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int, arm: Arm) -> Iterator[Batch]:
        """Yield batches of `size` tweets; masks are drawn from torch's global generator."""
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
    """Loss at each position, 0 where there is no label; float32 [tweets, length].

    The same as `model(input_ids, labels=labels)`, but faster: the head runs only at positions with a label.
    """
    mask = None if arm.as_in_question else batch.real.long()
    labelled = batch.labels != IGNORED
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        states = model.bert(input_ids=batch.input_ids, attention_mask=mask).last_hidden_state
        logits = model.cls(states[labelled])
    losses = F.cross_entropy(logits.float(), batch.labels[labelled], reduction="none")
    return torch.zeros(labelled.shape).masked_scatter(labelled, losses)


def without_bias_correction(learning_rate: float, step: int) -> float:
    """The learning rate that makes AdamW, which corrects its bias, step as it would without correction.

    The inverse of Kingma and Ba 2015, section 2, the formula before section 2.1: the corrected rate is
    rate · sqrt(1 − β2^t) / (1 − β1^t).

    Args:
        learning_rate: learning rate of AdamW without bias correction.
        step: step t, counted from 1.
    """
    return learning_rate * (1 - _BETAS[0] ** step) / math.sqrt(1 - _BETAS[1] ** step)


def train(
    arm: Arm,
    shards: Path,
    base: Path,
    seed: int,
    size: int,
    precision: str,
    after_step: Callable[[int, Save], None] = lambda step, save: None,
) -> tuple[dict[str, Any], Save]:
    """Train for one pass over the training tweets.

    Args:
        arm: configuration of the loop.
        shards: folder of shards.
        base: folder of the initial model.
        seed: seed of masks and dropout.
        size: tweets per step.
        precision: "fp32" or "bf16" (autocast).
        after_step: called after each step with its number and a function that saves the model.

    Returns:
        The columns `steps` and `losses` (one per step; with padding, also separately at [PAD] and elsewhere), and a
        function that saves the model.
    """
    quiet_transformers()
    torch.manual_seed(seed)
    tweets = Tweets(shards, "train")
    model = AutoModelForMaskedLM.from_pretrained(base, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=arm.learning_rate, betas=_BETAS, weight_decay=0.0, fused=True)
    losses_by_part: dict[str, list[Any]] = {"losses": [], "losses_at_padding": [], "losses_elsewhere": []}

    def save(folder: Path) -> None:
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        export_model(folder, model, weights, tweets.manifest, str(shards))

    for step, batch in enumerate(tweets.batches(size, arm), 1):
        losses = losses_of(model, batch, arm, precision)
        labelled = batch.labels != IGNORED
        loss = losses.sum() / labelled.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = arm.learning_rate
        learning_rate = without_bias_correction(rate, step) if arm.as_in_question else rate
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad()
        parts = [losses.detach()[labelled & where].mean().item() for where in (~batch.real, batch.real)]
        for name, value in zip(losses_by_part, (loss.item(), *parts), strict=True):
            losses_by_part[name].append([step, value] if math.isfinite(value) else [step, None])
        after_step(step, save)
    return {"steps": step, **(losses_by_part if arm.padding else {"losses": losses_by_part["losses"]})}, save

"""A worker with Hugging Face's Trainer over the rows of our shards, for `benchmarks.throughput`; see `timed_worker`.

    python -m benchmarks.throughput_references SHARDS DEVICE

trainer_rows          one tweet per row, padded to the longest of its batch, all else by default
trainer_concatenated  texts concatenated and cut into rows of the shards' max_length, as run_mlm does: tweets see each
                      other, and are cut where a row ends
trainer_tuned         batches of similar lengths, no dropout, fused AdamW, loader processes; torch.compile on a GPU
flash_padding_free    GPU only: no padding, FlashAttention with the tweets' boundaries (cu_seqlens), otherwise as tuned

A step is one batch and one optimizer step: with gradient accumulation, Trainer would not divide BERT's gradients by the
number of batches. Only real tokens are counted: those of the attention mask, including special tokens.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from benchmarks.timed_worker import Channel, Command, StepTimer, serve
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest
from bert_tweets.corpus.shards.reader import open_split

MASKED_SHARE = 0.15
# Maximum number of training tweets: Trainer inspects each length when it sorts by length.
MAX_TWEETS = 200_000
TUNED = ("trainer_tuned", "flash_padding_free")
MODES = ("trainer_rows", "trainer_concatenated", *TUNED)
# Name in AttentionInterface of torch's own FlashAttention, used if flash-attn is not installed.
TORCH_VARLEN = "torch_varlen"


class Rows(Dataset[Any]):
    """Token ids by row with their special-tokens mask, as run_mlm makes them, so that the collator need not compute it.

    Args:
        flat: token ids of all rows, int32 [tokens].
        ends: end of each row in `flat`, int64 [rows].
        special: ids of the special tokens.
    """

    def __init__(self, flat: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], special: list[int]):
        self.flat, self.special = flat, np.isin(flat, special)
        self.ends = [0, *ends.tolist()]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, row: int) -> dict[str, list[int]]:
        span = slice(self.ends[row], self.ends[row + 1])
        return {
            "input_ids": self.flat[span].tolist(),
            "special_tokens_mask": self.special[span].astype(int).tolist(),
        }


@cache
def rows_of(shards: str, concatenated: bool) -> Rows:
    """The training tweets, or a seeded sample of MAX_TWEETS; one tweet per row, or concatenated."""
    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "train")
    indices = np.arange(len(split))
    if len(split) > MAX_TWEETS:
        indices = np.sort(np.random.default_rng(0).choice(len(split), MAX_TWEETS, replace=False))
    tweets = split.gather(indices)
    ends = np.cumsum(tweets.lengths)
    if concatenated:
        ends = np.arange(1, len(tweets.input_ids) // manifest.max_length + 1) * manifest.max_length
    return Rows(tweets.input_ids, ends, manifest.special_ids)


class PaddingFree:
    """Collate a batch into one row with the tweets' boundaries for FlashAttention, as DataCollatorWithFlattening does.

    Args:
        masker: collator that draws the masks.
        first_position: position id of a tweet's first token, which depends on the architecture.
    """

    def __init__(self, masker: DataCollatorForLanguageModeling, first_position: int):
        self.masker, self.first_position = masker, first_position

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        lengths = [len(row["input_ids"]) for row in rows]
        ids, special = (torch.tensor([[i for row in rows for i in row[name]]]) for name in rows[0])
        corrupted, labels = self.masker.torch_mask_tokens(ids, special_tokens_mask=special)
        bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
        positions = torch.cat([torch.arange(length) for length in lengths]) + self.first_position
        return {
            "input_ids": corrupted,
            "labels": labels,
            "position_ids": positions[None],
            **{"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds},
            **{"max_length_q": max(lengths), "max_length_k": max(lengths)},
        }


def torch_varlen(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **options: Any
) -> tuple[Tensor, None]:
    """torch's own FlashAttention with the tweets' boundaries; [1, heads, tokens, size] to [1, tokens, heads, size]."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
    bounds, longest = options["cu_seq_lens_q"], options["max_length_q"]
    attended = varlen_attn(query, key, value, bounds, bounds, longest, longest)
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0), None


def flash() -> tuple[str, str]:
    """The attention implementation for a padding-free step, and the reason if there is none."""
    if importlib.util.find_spec("flash_attn"):
        return "flash_attention_2", ""
    if importlib.util.find_spec("torch.nn.attention.varlen"):
        from transformers import AttentionInterface

        AttentionInterface.register(TORCH_VARLEN, torch_varlen)
        return TORCH_VARLEN, ""
    return "", "neither flash-attn nor torch.nn.attention.varlen is installed"


def model_of(settings: dict[str, Any], attention: str) -> Any:
    """Load the stock model in fp32; tuned modes have no dropout."""
    options: dict[str, Any] = {"dtype": torch.float32}
    if settings["mode"] in TUNED:
        options |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if attention:
        options["attn_implementation"] = attention
    return AutoModelForMaskedLM.from_pretrained(settings["model"], **options)


def arguments(settings: dict[str, Any], device: torch.device, output: str) -> TrainingArguments:
    """Trainer's arguments for a mode, batch size and precision; nothing is logged, saved or evaluated."""
    options: dict[str, Any] = {
        "output_dir": output,
        "per_device_train_batch_size": settings["batch"],
        "max_steps": 10**6,
        "learning_rate": 5e-5,
        "weight_decay": 0.01,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_drop_last": True,
        "use_cpu": device.type == "cpu",
        "seed": 0,
    }
    precision = settings["precision"]
    options |= {name: precision.startswith(name) for name in ("bf16", "fp16")}
    if device.type == "cuda":
        options["tf32"] = precision == "tf32"
    if settings["mode"] in TUNED:
        options |= {"optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length"}
        if device.type == "cuda":
            options |= {"dataloader_num_workers": min(8, os.cpu_count() or 1), "dataloader_persistent_workers": True}
            options["torch_compile"] = settings["mode"] == "trainer_tuned" and settings.get("compile", True)
    return TrainingArguments(**options)


def token_counts(inputs: dict[str, Any], first_token: int) -> tuple[int | Tensor, Tensor, int]:
    """Numbers of real tokens, tweets and positions of a batch, computed on its device without synchronisation."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    # A random replacement may equal the first token, but only at a position with a label.
    starts = (ids == first_token) & (inputs["labels"] == -100)
    return ids.numel() if mask is None else mask.sum(), starts.sum(), ids.numel()


class CountingTrainer(Trainer):  # type: ignore[misc]
    """Trainer that counts the tokens, tweets and positions of its steps.

    Attributes:
        timer: receives the counts.
        first_token: id of the first token of each tweet.
    """

    timer: StepTimer
    first_token: int

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        self.timer.count(*token_counts(inputs, self.first_token))
        return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-any-return]


class Turns(TrainerCallback):  # type: ignore[misc]
    """Run the turns that commands request, wait between them, and stop training at any other command.

    Attributes:
        following: the command that stopped the training.
    """

    def __init__(self, channel: Channel, timer: StepTimer):
        self.channel, self.timer = channel, timer
        self.left = self.warmup = 0
        self.following: Command | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._wait(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.timer.end_step()
        self.left -= 1
        if self.left <= 0:
            self.channel.answer(**self.timer.end(self.warmup))
            self._wait(control)

    def _wait(self, control: Any) -> None:
        command = self.channel.next()
        if command is None or "turn" not in command:
            self.following, control.should_training_stop = command, True
            return
        self.warmup = command["turn"]["warmup"]
        self.left = command["turn"]["steps"] + self.warmup
        self.timer.begin()


def trainer_of(shards: str, settings: dict[str, Any], device: torch.device, attention: str) -> CountingTrainer:
    """The Trainer of a mode over the shards' training tweets."""
    manifest = Manifest.read(shards)
    tokenizer = AutoTokenizer.from_pretrained(Path(shards) / TOKENIZER_FOLDER)
    tuned = settings["mode"] == "trainer_tuned" and device.type == "cuda"
    collator = DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=MASKED_SHARE, pad_to_multiple_of=16 if tuned else None
    )
    model = model_of(settings, attention)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    collate: Callable[[Any], Any] = collator
    if settings["mode"] == "flash_padding_free":
        after_padding = model.config.model_type in ("roberta", "xlm-roberta", "camembert")
        collate = PaddingFree(collator, manifest.pad_id + 1 if after_padding else 0)
    rows = rows_of(shards, settings["mode"] == "trainer_concatenated")
    output = settings.get("output", "unused")
    trainer = CountingTrainer(model, arguments(settings, device, output), collate, rows, processing_class=tokenizer)
    trainer.timer, trainer.first_token = StepTimer(trainer.args.device), tokenizer.cls_token_id
    return trainer


def main(shards: str, device_name: str) -> None:
    channel = Channel()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = (
        torch.device(device_name, int(os.environ.get("LOCAL_RANK", "0")))
        if device_name == "cuda"
        else torch.device("cpu")
    )

    def run(command: Command) -> Command | None:
        settings = command["build"]
        attention, reason = flash() if settings["mode"] == "flash_padding_free" else ("", "")
        if reason:
            channel.answer(skipped=reason)
            return channel.next()
        trainer = trainer_of(shards, settings, device, attention)
        turns = Turns(channel, trainer.timer)
        trainer.add_callback(turns)
        channel.answer(attention=trainer.model.config._attn_implementation, rows=len(trainer.train_dataset))
        trainer.train()
        return turns.following

    serve(channel, device, run)


if __name__ == "__main__":
    main(*sys.argv[1:])

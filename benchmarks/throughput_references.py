"""Hugging Face's Trainer over the rows of our shards, as `benchmarks.throughput` times it, in a process of its own.

    python -m benchmarks.throughput_references SHARDS DEVICE

trainer_rows          a tweet a row, padded to the longest of its batch, everything else as it comes
trainer_concatenated  texts strung together and cut into rows of the shards' max_length, as run_mlm does: tweets see
                      each other, and are cut where a row ends
trainer_tuned         batches of similar lengths, no dropout, fused AdamW, loader processes; torch.compile on a GPU
flash_padding_free    a GPU only: no padding, FlashAttention over the tweets' bounds (cu_seqlens), otherwise as tuned

A step is one batch and one optimizer step: with accumulation Trainer would not divide BERT's gradients by it. Counted
are real tokens: those that the attention mask names, special ones included, padding not.
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

from benchmarks.throughput_steps import Channel, Command, Steps, serve
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest
from bert_tweets.corpus.shards.reader import open_split

MASKED_SHARE = 0.15
# Of the training tweets, at most: Trainer looks at each length when it sorts by them.
ROWS = 200_000
TUNED = ("trainer_tuned", "flash_padding_free")
MODES = ("trainer_rows", "trainer_concatenated", *TUNED)
# AttentionInterface's name for torch's own FlashAttention, where flash-attn is not installed.
TORCH_VARLEN = "torch_varlen"


class Rows(Dataset[Any]):
    """Token ids by row, with the mask of special tokens, as run_mlm tokenizes: the collator need not find them.

    Args:
        flat: int32 [tokens], one row after the other.
        ends: int64 [rows].
        special: ids of the special tokens.
    """

    def __init__(self, flat: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], special: list[int]):
        self.flat, self.special = flat, np.isin(flat, special)
        self.ends = [0, *ends.tolist()]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, row: int) -> dict[str, list[int]]:
        of_row = slice(self.ends[row], self.ends[row + 1])
        return {
            "input_ids": self.flat[of_row].tolist(),
            "special_tokens_mask": self.special[of_row].astype(int).tolist(),
        }


@cache
def rows_of(shards: str, concatenated: bool) -> Rows:
    """The training tweets, a seeded sample where they are many; a row each, or strung together."""
    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "train")
    chosen = np.arange(len(split))
    if len(split) > ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(len(split), ROWS, replace=False))
    tweets = split.gather(chosen)
    ends = np.cumsum(tweets.lengths)
    if concatenated:
        ends = np.arange(1, len(tweets.input_ids) // manifest.max_length + 1) * manifest.max_length
    return Rows(tweets.input_ids, ends, manifest.special_ids)


class PaddingFree:
    """A batch as one row, tweet after tweet, with their bounds for FlashAttention (as DataCollatorWithFlattening).

    Args:
        masker: draws the masks.
        first_position: of a tweet; architectures differ.
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
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **given: Any
) -> tuple[Tensor, None]:
    """torch's own FlashAttention over the tweets' bounds; [1, heads, tokens, size] to [1, tokens, heads, size]."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
    bounds, longest = given["cu_seq_lens_q"], given["max_length_q"]
    attended = varlen_attn(query, key, value, bounds, bounds, longest, longest)
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0), None


def flash() -> tuple[str, str]:
    """The attention that a padding-free step can use, or else why there is none."""
    if importlib.util.find_spec("flash_attn"):
        return "flash_attention_2", ""
    if importlib.util.find_spec("torch.nn.attention.varlen"):
        from transformers import AttentionInterface

        AttentionInterface.register(TORCH_VARLEN, torch_varlen)
        return TORCH_VARLEN, ""
    return "", "neither flash-attn nor torch.nn.attention.varlen is installed"


def model_of(given: dict[str, Any], attention: str) -> Any:
    """The stock model, fp32; tuned ones without dropout."""
    options: dict[str, Any] = {"dtype": torch.float32}
    if given["mode"] in TUNED:
        options |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if attention:
        options["attn_implementation"] = attention
    return AutoModelForMaskedLM.from_pretrained(given["model"], **options)


def arguments(given: dict[str, Any], device: torch.device, output: str) -> TrainingArguments:
    """Trainer's settings for a mode, a batch size and a precision; nothing is logged, saved or evaluated."""
    options: dict[str, Any] = {
        "output_dir": output,
        "per_device_train_batch_size": given["batch"],
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
    precision = given["precision"]
    options |= {name: precision.startswith(name) for name in ("bf16", "fp16")}
    if device.type == "cuda":
        options["tf32"] = precision == "tf32"
    if given["mode"] in TUNED:
        options |= {"optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length"}
        if device.type == "cuda":
            options |= {"dataloader_num_workers": min(8, os.cpu_count() or 1), "dataloader_persistent_workers": True}
            options["torch_compile"] = given["mode"] == "trainer_tuned" and given.get("compile", True)
    return TrainingArguments(**options)


def held(inputs: dict[str, Any], first_token: int) -> tuple[int | Tensor, Tensor, int]:
    """Real tokens, tweets and positions of a batch; counted on its device, which is not waited for."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    # A random replacement may be the first token too, but special tokens themselves are never masked.
    begun = (ids == first_token) & (inputs["labels"] == -100)
    return ids.numel() if mask is None else mask.sum(), begun.sum(), ids.numel()


class CountingTrainer(Trainer):  # type: ignore[misc]
    """Trainer, with an eye on what its steps hold.

    Attributes:
        steps: told of each.
        first_token: id that each tweet begins with.
    """

    steps: Steps
    first_token: int

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        self.steps.count(*held(inputs, self.first_token))
        return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-any-return]


class Turns(TrainerCallback):  # type: ignore[misc]
    """Runs the turns that commands ask for, and waits between them; ends the training at another command.

    Attributes:
        following: the command that it ended at.
    """

    def __init__(self, channel: Channel, steps: Steps):
        self.channel, self.steps = channel, steps
        self.left = self.warm = 0
        self.following: Command | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._wait(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps.end_step()
        self.left -= 1
        if self.left <= 0:
            self.channel.answer(**self.steps.end(self.warm))
            self._wait(control)

    def _wait(self, control: Any) -> None:
        command = self.channel.next()
        if command is None or "turn" not in command:
            self.following, control.should_training_stop = command, True
            return
        self.warm = command["turn"]["warm"]
        self.left = command["turn"]["steps"] + self.warm
        self.steps.begin()


def trainer_of(shards: str, given: dict[str, Any], device: torch.device, attention: str) -> CountingTrainer:
    """The trainer of a mode, over the shards' training tweets."""
    manifest = Manifest.read(shards)
    tokenizer = AutoTokenizer.from_pretrained(Path(shards) / TOKENIZER_FOLDER)
    tuned = given["mode"] == "trainer_tuned" and device.type == "cuda"
    collator = DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=MASKED_SHARE, pad_to_multiple_of=16 if tuned else None
    )
    model = model_of(given, attention)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    collate: Callable[[Any], Any] = collator
    if given["mode"] == "flash_padding_free":
        after_padding = model.config.model_type in ("roberta", "xlm-roberta", "camembert")
        collate = PaddingFree(collator, manifest.pad_id + 1 if after_padding else 0)
    rows = rows_of(shards, given["mode"] == "trainer_concatenated")
    output = given.get("output", "unused")
    trainer = CountingTrainer(model, arguments(given, device, output), collate, rows, processing_class=tokenizer)
    trainer.steps, trainer.first_token = Steps(trainer.args.device), tokenizer.cls_token_id
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
        given = command["build"]
        attention, why_not = flash() if given["mode"] == "flash_padding_free" else ("", "")
        if why_not:
            channel.answer(skipped=why_not)
            return channel.next()
        trainer = trainer_of(shards, given, device, attention)
        turns = Turns(channel, trainer.steps)
        trainer.add_callback(turns)
        channel.answer(attention=trainer.model.config._attn_implementation, rows=len(trainer.train_dataset))
        trainer.train()
        return turns.following

    serve(channel, device, run)


if __name__ == "__main__":
    main(*sys.argv[1:])

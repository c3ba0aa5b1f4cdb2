"""Whether faster training variants learn as well as the plain one: some hundred steps of each, compared.

    python -m benchmarks.convergence shards=shards/ model=FOLDER [key=value ...]

steps       optimizer steps per variant [500]
batch_size  tweets per step [32]
rate        learning rate at the end of the warm-up [5e-5]
seed        seed of order, masks and new weights [0]
variants    variants to run, such as sdpa-fp32,sdpa-bf16; empty: all that this machine supports
tolerance   largest accepted relative difference between two validation losses [0.005]
device      auto, cpu or cuda
output      path of the results [benchmarks/results/convergence-{cpu|gpu}.json]

The plain variant is the stock model in fp32 with one tweet per row, padded, logits at every position, and torch's
cross-entropy. All variants start from the same weights and take the same tweets, masks, learning rates and optimizer.
All are measured alike: masked loss on held-out tweets, in fp32. Exit status 1 if two variants end farther apart than
`tolerance`. Rerun the same command to resume: variants that `output` already has for the same command, commit and
tweets are not run again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import Row, markdown_table, provenance, read_rows, read_settings, write_rows
from bert_tweets.config import TrainConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.data.batches import MicroBatch, Step
from bert_tweets.data.masking import Masking, masking_for
from bert_tweets.distributed import world as ranks
from bert_tweets.distributed.world import World
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.model.attention import Shape, backend_named, backend_names
from bert_tweets.model.loading import load_model
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.training.build import Training, build
from bert_tweets.training.lr_schedule import schedule_of
from bert_tweets.training.optimizer import make_optimizer
from bert_tweets.training.validate import Validation

PLAIN = "plain-fp32"
PRECISIONS = {"cpu": ("fp32", "bf16", "bf16_weights"), "cuda": ("fp32", "tf32", "bf16", "bf16_weights", "fp16")}
# Trains one step at a learning rate.
TrainStep = Callable[[Step, float], Any]
Variant = Callable[[], tuple[Training, TrainStep]]


class Comparison:
    """Training runs of all variants from one seed, one after the other."""

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings
        self.world: World = ranks.world_from_environment(settings["device"])
        self.manifest = Manifest.read(settings["shards"])

    def config(self, precision: str = "fp32", **overrides: Any) -> TrainConfig:
        settings = self.settings
        values = {"data.path": settings["shards"], "model.name": settings["model"], "max_steps": settings["steps"]}
        values |= {
            "batch_size": settings["batch_size"],
            "optimizer.learning_rate": settings["rate"],
            "seed": settings["seed"],
        }
        values |= {"device": self.world.device.type, "precision": precision, "output": "unused", **overrides}
        return parser.load(TrainConfig, [f"{key}={value}" for key, value in values.items()])

    def variants(self) -> dict[str, Variant]:
        """The plain variant, then backends by precision, (un)compiled kernels, and activation checkpointing."""
        device = self.world.device.type
        compiled = "true" if device == "cuda" else "false"
        settings: dict[str, dict[str, Any]] = {}
        for name in backend_names():
            for precision in PRECISIONS[device]:
                if not backend_named(name).missing(self._shape(precision)):
                    settings[f"{name}-{precision}"] = {
                        "precision": precision,
                        "model.attention": name,
                        "model.compile": compiled,
                    }
        if compiled == "true":
            settings["uncompiled-bf16"] = {"precision": "bf16", "model.compile": "false"}
        else:
            settings["compiled-bf16"] = {"precision": "bf16", "model.compile": "true"}
        recomputed = {"model.checkpoint_activations": "true", "model.compile": compiled}
        settings["recomputed-bf16"] = {"precision": "bf16", **recomputed}
        names = [name for name in self.settings["variants"].split(",") if name] or list(settings)
        return {PLAIN: self.plain} | {name: partial(self.fast, settings[name]) for name in names if name != PLAIN}

    def _shape(self, precision: str) -> Shape:
        from bert_tweets.engine.precision import COMPUTE_DTYPES

        config = load_model(self.config().model, self.manifest).model.config
        size = config.hidden_size // config.num_attention_heads
        return Shape(self.world.device.type, COMPUTE_DTYPES[precision], size, self.manifest.max_length)

    def fast(self, settings: dict[str, Any]) -> tuple[Training, TrainStep]:
        """Our training run with these settings."""
        training = build(self.config(**settings), self.manifest, self.world)
        return training, lambda step, rate: training.engine.train_step(step, training.masking, rate)

    def plain(self) -> tuple[Training, TrainStep]:
        """The stock model's own forward pass; the `Training` provides its loader, masks and weights."""
        config = self.config(**{"model.attention": "sdpa", "model.compile": "false"})
        training = build(config, self.manifest, self.world)
        stock = training.module.model
        stock.set_attn_implementation("eager")
        stock.train()
        optimizer = make_optimizer(stock.parameters(), config.optimizer)

        def train_step(step: Step, rate: float) -> None:
            for group in optimizer.param_groups:
                group["lr"] = rate
            for batch in step.micro_batches:
                (_stock_loss(stock, batch.to(self.world.device), training.masking) / step.masked_tokens).backward()
            torch.nn.utils.clip_grad_norm_(stock.parameters(), config.optimizer.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()

        return training, train_step

    def run(self, variant: Variant) -> dict[str, float]:
        """Train one variant; return its losses and seconds."""
        training, train_step = variant()
        config = self.config()
        schedule = schedule_of(config.schedule, config.optimizer.learning_rate, self.settings["steps"])
        before, start = self.loss_of(_weights(training)), time.perf_counter()
        for step in training.loader.steps():
            train_step(step, schedule.learning_rate(step.index))
        seconds = time.perf_counter() - start
        return {"loss_before": before, "loss": self.loss_of(_weights(training)), "seconds": seconds}

    def loss_of(self, weights: dict[str, Tensor]) -> float:
        """Held-out masked loss of these weights, in fp32, with the backend that runs on every device."""
        config = self.config()
        model = load_model(config.model, self.manifest, config.seed).model
        missing = model.load_state_dict(weights, strict=False)
        assert not missing.unexpected_keys, missing
        module = PackedMaskedLM(model, backend_named("sdpa")).to(self.world.device)
        engine = DDPEngine(module, make_optimizer(module.parameters(), config.optimizer), self.world, "fp32", 0.0)
        masking = masking_for(self.manifest, 0, 0.15, False)
        layout = build(config, self.manifest, self.world).layout
        split = open_split(self.settings["shards"], self.manifest, "validation")
        return Validation(split, masking, layout, self.world, 2000).loss(engine)


def _weights(training: Training) -> dict[str, Tensor]:
    weights = training.engine.weights()
    assert weights is not None
    return {name: tensor[: training.vocabulary_size] if _by_token(name) else tensor for name, tensor in weights.items()}


def _by_token(name: str) -> bool:
    return "word_embeddings" in name or "decoder" in name or name.endswith("predictions.bias")


def _stock_loss(stock: Any, batch: MicroBatch, masking: Masking) -> Tensor:
    """Sum of the losses, with each tweet of the packed rows in a row of its own."""
    corrupted, selected = masking.apply(batch)
    masks = [(batch.segment_ids == number) for number in range(1, len(batch.tweet_index))]
    masks = [mask for mask in masks if bool(mask.any())]

    def rows(values: Tensor, fill: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([values[mask] for mask in masks], True, fill)

    real = rows(torch.ones_like(batch.input_ids), 0)
    labels = rows(torch.where(selected, batch.input_ids, -100), -100).long()
    logits = stock(input_ids=rows(corrupted, stock.config.pad_token_id).long(), attention_mask=real).logits
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")


def _rows(comparison: Comparison, done: list[str]) -> Iterator[Row]:
    for name, variant in comparison.variants().items():
        if name in done:
            continue
        try:
            yield {"variant": name, **comparison.run(variant)}
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
            yield {"variant": name, "skipped": "out of memory"}


def main(arguments: list[str]) -> None:
    settings = read_settings(
        arguments,
        __doc__,
        ("shards", "model"),
        shards="",
        model="",
        steps=500,
        batch_size=32,
        rate=5e-5,
        seed=0,
        variants="",
        tolerance=0.005,
        device="auto",
        output="",
    )
    comparison = Comparison(settings)
    kind = "gpu" if comparison.world.device.type == "cuda" else "cpu"
    output = settings["output"] or f"benchmarks/results/convergence-{kind}.json"
    ignored = ("variants", "tolerance", "output")
    same = [argument for argument in arguments if argument.partition("=")[0] not in ignored]
    columns = {**provenance("convergence", same), "steps": settings["steps"]}
    columns |= {"data": comparison.manifest.fingerprint, "threads": torch.get_num_threads()}
    same_run = ("command", "commit", "data")
    earlier = [] if columns["commit"].endswith("+") else read_rows(output)
    rows = [row for row in earlier if "loss" in row and all(row.get(name) == columns[name] for name in same_run)]
    for row in _rows(comparison, [row["variant"] for row in rows]):
        rows.append({**row, **columns})
        print(row, flush=True)
        write_rows(output, rows)
    trained = [row for row in rows if "loss" in row]
    losses = {row["variant"]: row["loss"] for row in trained}
    before = [row["loss_before"] for row in trained]
    assert max(before) - min(before) < 1e-4, "the variants started from different weights"
    spread = max(losses.values()) / min(losses.values()) - 1
    cells = [
        (row["variant"], f"{row['loss_before']:.4f}", f"{row['loss']:.4f}", f"{row['loss'] / losses[PLAIN] - 1:+.3%}")
        for row in trained
    ]
    print(markdown_table(("variant", "loss before", f"after {settings['steps']} steps", "against plain"), cells))
    print(f"largest difference: {spread:.3%}; tolerance {settings['tolerance']:.2%}")
    raise SystemExit(spread > settings["tolerance"])


if __name__ == "__main__":
    main(sys.argv[1:])

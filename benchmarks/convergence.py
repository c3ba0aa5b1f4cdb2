"""Does a faster way of computing the step train as well? Some hundred steps of each, beside the plain way.

    python -m benchmarks.convergence shards=shards/ model=FOLDER [key=value ...]

steps       optimizer steps of each way [500]
batch_size  tweets of a step [32]
rate        learning rate at the end of the warm-up [5e-5]
seed        of order, masks and new weights [0]
ways        some of them, such as tweets-fp32,tweets-bf16; empty: all that this machine has
within      relative difference of two validation losses above which it fails [0.005]
device      auto, cpu or cuda
output      of results [benchmarks/results/convergence-{cpu|gpu}.json]

The plain way is the stock model in fp32, a tweet a row, padded, logits at every position, and torch's cross-entropy; it
begins with the same weights, and takes the same tweets, masks, rates and optimizer. What each way has learnt is
measured by one yardstick: the masked loss on held-out tweets, in fp32. Exit status 1 if two ways end farther apart than
`within`. Killed, it goes on: what `output` has already of the same command, commit and tweets is not run again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import command_of, machine, read_rows, table, words_of, write_rows
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
# Takes a step at a learning rate.
TakeStep = Callable[[Step, float], Any]


class Campaign:
    """All ways from one seed, one after the other."""

    def __init__(self, given: dict[str, Any]):
        self.given = given
        self.world: World = ranks.world_from_environment(given["device"])
        self.manifest = Manifest.read(given["shards"])

    def config(self, precision: str = "fp32", **other: Any) -> TrainConfig:
        given = self.given
        words = {"data.path": given["shards"], "model.name": given["model"], "max_steps": given["steps"]}
        words |= {"batch_size": given["batch_size"], "optimizer.learning_rate": given["rate"], "seed": given["seed"]}
        words |= {"device": self.world.device.type, "precision": precision, "output": "unused", **other}
        return parser.load(TrainConfig, [f"{key}={value}" for key, value in words.items()])

    def ways(self) -> dict[str, Callable[[], tuple[Training, TakeStep]]]:
        """The plain way first, then backends by precision, compiled kernels, and activations computed again."""
        device = self.world.device.type
        compiled = "true" if device == "cuda" else "false"
        found: dict[str, dict[str, Any]] = {}
        for name in backend_names():
            for precision in PRECISIONS[device]:
                if not backend_named(name).missing(self._shape(precision)):
                    found[f"{name}-{precision}"] = {
                        "precision": precision,
                        "model.attention": name,
                        "model.compile": compiled,
                    }
        if compiled == "true":
            found["uncompiled-bf16"] = {"precision": "bf16", "model.compile": "false"}
        else:
            found["compiled-bf16"] = {"precision": "bf16", "model.compile": "true"}
        recomputed = {"model.checkpoint_activations": "true", "model.compile": compiled}
        found["recomputed-bf16"] = {"precision": "bf16", **recomputed}
        asked = [way for way in self.given["ways"].split(",") if way] or list(found)
        ways = {way: (lambda about=found[way]: self.fast(about)) for way in asked if way != PLAIN}
        return {PLAIN: self.plain, **ways}  # type: ignore[dict-item]

    def _shape(self, precision: str) -> Shape:
        from bert_tweets.engine.precision import PRODUCTS

        settings = load_model(self.config().model, self.manifest).model.config
        size = settings.hidden_size // settings.num_attention_heads
        return Shape(self.world.device.type, PRODUCTS[precision], size, self.manifest.max_length)

    def fast(self, about: dict[str, Any]) -> tuple[Training, TakeStep]:
        training = build(self.config(**about), self.manifest, self.world)
        return training, lambda step, rate: training.engine.train_step(step, training.masking, rate)

    def plain(self) -> tuple[Training, TakeStep]:
        """The stock model's own forward pass; `Training` around it lends loader, masks and a place for the weights."""
        config = self.config(**{"model.attention": "sdpa", "model.compile": "false"})
        training = build(config, self.manifest, self.world)
        stock = training.module.model
        stock.set_attn_implementation("eager")
        stock.train()
        optimizer = make_optimizer(stock.parameters(), config.optimizer)

        def take(step: Step, rate: float) -> None:
            for group in optimizer.param_groups:
                group["lr"] = rate
            for batch in step.micro_batches:
                (_stock_loss(stock, batch.to(self.world.device), training.masking) / step.masked_tokens).backward()
            torch.nn.utils.clip_grad_norm_(stock.parameters(), config.optimizer.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()

        return training, take

    def run(self, way: Callable[[], tuple[Training, TakeStep]]) -> dict[str, float]:
        """Trains in one way; its losses and how long it took."""
        training, take = way()
        config = self.config()
        schedule = schedule_of(config.schedule, config.optimizer.learning_rate, self.given["steps"])
        before, begun = self.loss_of(_weights(training)), time.perf_counter()
        for step in training.loader.steps():
            take(step, schedule.learning_rate(step.index))
        seconds = time.perf_counter() - begun
        return {"loss_before": before, "loss": self.loss_of(_weights(training)), "seconds": seconds}

    def loss_of(self, weights: dict[str, Tensor]) -> float:
        """The masked loss of some weights on held-out tweets, in fp32, by the backend that works everywhere."""
        config = self.config()
        model = load_model(config.model, self.manifest, config.seed).model
        missing = model.load_state_dict(weights, strict=False)
        assert not missing.unexpected_keys, missing
        module = PackedMaskedLM(model, backend_named("sdpa")).to(self.world.device)
        engine = DDPEngine(module, make_optimizer(module.parameters(), config.optimizer), self.world, "fp32", 0.0)
        masking = masking_for(self.manifest, 0, 0.15, False)
        layout = build(config, self.manifest, self.world).layout
        split = open_split(self.given["shards"], self.manifest, "validation")
        return Validation(split, masking, layout, self.world, 2000).loss(engine)


def _weights(training: Training) -> dict[str, Tensor]:
    weights = training.engine.weights()
    assert weights is not None
    return {name: tensor[: training.vocabulary_size] if _by_token(name) else tensor for name, tensor in weights.items()}


def _by_token(name: str) -> bool:
    return "word_embeddings" in name or "decoder" in name or name.endswith("predictions.bias")


def _stock_loss(stock: Any, batch: MicroBatch, masking: Masking) -> Tensor:
    """The sum of the losses, from the tweets of packed rows as rows of their own."""
    corrupted, selected = masking.apply(batch)
    tweets = [(batch.segment_ids == number) for number in range(1, len(batch.tweet_index))]
    tweets = [where for where in tweets if bool(where.any())]

    def rows(values: Tensor, fill: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([values[where] for where in tweets], True, fill)

    real = rows(torch.ones_like(batch.input_ids), 0)
    labels = rows(torch.where(selected, batch.input_ids, -100), -100).long()
    logits = stock(input_ids=rows(corrupted, stock.config.pad_token_id).long(), attention_mask=real).logits
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")


def _rows(campaign: Campaign, done: list[str]) -> Iterator[dict[str, Any]]:
    for name, way in campaign.ways().items():
        if name in done:
            continue
        try:
            yield {"way": name, **campaign.run(way)}
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
            yield {"way": name, "skipped": "out of memory"}


def main(words: list[str]) -> None:
    given = words_of(
        words,
        shards="",
        model="",
        steps=500,
        batch_size=32,
        rate=5e-5,
        seed=0,
        ways="",
        within=0.005,
        device="auto",
        output="",
    )
    if not given["shards"] or not given["model"]:
        raise SystemExit("shards= and model= are needed")
    campaign = Campaign(given)
    kind = "gpu" if campaign.world.device.type == "cuda" else "cpu"
    output = given["output"] or f"benchmarks/results/convergence-{kind}.json"
    same = [word for word in words if word.partition("=")[0] not in ("ways", "within", "output")]
    about = {**machine(), "command": command_of("convergence", same), "steps": given["steps"]}
    about |= {"data": campaign.manifest.fingerprint, "threads": torch.get_num_threads()}
    same_run = ("command", "commit", "data")
    kept = [] if about["commit"].endswith("+") else read_rows(output)
    found = [row for row in kept if "loss" in row and all(row.get(name) == about[name] for name in same_run)]
    for row in _rows(campaign, [row["way"] for row in found]):
        found.append({**row, **about})
        print(row, flush=True)
        write_rows(output, found)
    losses = {row["way"]: row["loss"] for row in found if "loss" in row}
    begun = [row["loss_before"] for row in found if "loss" in row]
    assert max(begun) - min(begun) < 1e-4, "not begun alike"
    spread = max(losses.values()) / min(losses.values()) - 1
    cells = [
        (row["way"], f"{row['loss_before']:.4f}", f"{row['loss']:.4f}", f"{row['loss'] / losses[PLAIN] - 1:+.3%}")
        for row in found
        if "loss" in row
    ]
    print(table(("way", "loss before", f"after {given['steps']} steps", "to the plain way"), cells))
    print(f"farthest apart: {spread:.3%}; allowed {given['within']:.2%}")
    raise SystemExit(spread > given["within"])


if __name__ == "__main__":
    main(sys.argv[1:])

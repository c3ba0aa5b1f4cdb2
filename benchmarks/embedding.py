"""The speed of embed beside the model's forward pass alone over the same packed micro-batches.

    python -m benchmarks.embedding data.path=shards/ model=FOLDER words=[time,work,love] turns=5

`embed` is what the stage does of one model once its occurrences are found: packing, the model, pooling, the background
and its correction, centroids, neighbours, and `occurrences.parquet` written. `forward` has the micro-batches that embed
makes, packed before the clock starts, and runs the model over them without looking at what comes out: the last layer's
states of every token, with the same attention and precision, by the faster of the stock model's own loop over its
layers (`forward_stock`) and ours (`forward_fused`). The ways take turns. Real tokens are counted. What embed can save
and `forward` does not: layers above the highest that is read, and of that one all but the words' tokens.

Every `key=value` of embed is understood, and `turns`. Writes benchmarks/results/embedding.json, where
rows of another precision stay, and prints a table.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import command_of, machine, read_rows, table, usage, write_rows
from bert_tweets.config import EmbedConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.batches import MicroBatch
from bert_tweets.distributed.world import World, world_from_environment
from bert_tweets.engine.precision import autocast
from bert_tweets.words.embedding.drift import compared
from bert_tweets.words.embedding.extractor import Reader
from bert_tweets.words.embedding.parquet_writer import OccurrenceWriter
from bert_tweets.words.embedding.pipeline import answer_of, reader_of
from bert_tweets.words.embedding.study import Study
from bert_tweets.words.embedding.study_builder import find_study, words_of_study

RESULTS = "benchmarks/results/embedding.json"
WAYS = ("embed", "forward_stock", "forward_fused")


class Recorder:
    """Stands in for a model, and keeps the micro-batches that it is asked about."""

    def __init__(self, model: Any, width: int):
        self.model, self.width = model, width
        self.batches: list[MicroBatch] = []

    def layers_at(self, batch: MicroBatch, places: Tensor, layers: list[int]) -> Tensor:
        self.batches.append(batch)
        return torch.zeros(len(layers), len(places), self.width, device=places.device)


def micro_batches(reader: Reader, study: Study) -> list[MicroBatch]:
    """Those that embed makes, on the device."""
    recorder = Recorder(reader.module.model, reader.width)
    recording = replace(reader, module=recorder)  # type: ignore[arg-type]
    for occurrences in (study.background_occurrences, study.occurrences):
        for _ in recording.vectors(study.corpus, occurrences):
            pass
    return recorder.batches


def forward(reader: Reader, batches: list[MicroBatch], fused: bool) -> None:
    """The model alone: every token's states at the last layer."""
    last = int(reader.module.model.config.num_hidden_layers)
    with torch.inference_mode(), autocast(reader.device, reader.precision):
        for batch in batches:
            if fused:
                every = torch.arange(batch.input_ids.numel(), device=reader.device)
                reader.module.layers_at(batch, every, [last])
            else:
                reader.module.hidden_states(batch)


def embedded(config: EmbedConfig, manifest: Manifest, study: Study, reader: Reader, folder: Path) -> None:
    """What embed does of one model."""
    chosen = compared(study.occurrences, [word.key for word in study.embedded], config.seed)
    streams = [
        reader.vectors(study.corpus, occurrences) for occurrences in (study.background_occurrences, study.occurrences)
    ]
    path, name = folder / "occurrences.parquet", config.model[0]
    names = [word.text for word in study.embedded]
    settings = (len(study.words), config.include_text, manifest.groups)
    with OccurrenceWriter(path, study.corpus, names, *settings) as writer:
        answer_of(config, manifest, study, reader, name, "model", streams, writer, chosen)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def measure(config: EmbedConfig, world: World, turns: int) -> dict[str, Any]:
    """Seconds of each way by turn, and what was run."""
    manifest = Manifest.read(config.data.path)
    study = find_study(config, manifest, words_of_study(config, manifest, None), world, None)
    reader = reader_of(config, manifest, config.model[0], world)
    batches = micro_batches(reader, study)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], None]] = {
            "embed": lambda: embedded(config, manifest, study, reader, Path(folder)),
            "forward_stock": lambda: forward(reader, batches, fused=False),
            "forward_fused": lambda: forward(reader, batches, fused=True),
        }
        for turn in range(turns + 1):  # the first warms up
            for name in WAYS[turn % 3 :] + WAYS[: turn % 3]:
                spent = seconds(ways[name], world.device)
                if turn:
                    taken[name].append(spent)
    positions = sum(batch.input_ids.numel() for batch in batches)
    tokens = sum(int((batch.segment_ids > 0).sum()) for batch in batches)
    return {
        "seconds": taken,
        "tokens": tokens,
        "padding_fraction": 1 - tokens / positions,
        "tweets": sum(len(batch.segment_ids.unique()) - 1 for batch in batches),
        "occurrences": len(study.occurrences),
        "background_occurrences": len(study.background_occurrences),
        "attention": reader.module.backend.name,
        "layers": reader.layers,
    }


def rows_of(config: EmbedConfig, found: dict[str, Any], words: list[str]) -> list[dict[str, Any]]:
    """A row a way, with the ratio of embed to the faster forward pass, turn by turn."""
    taken = found["seconds"]
    best = [min(pair) for pair in zip(taken["forward_stock"], taken["forward_fused"], strict=True)]
    ratios = [forward / embed for forward, embed in zip(best, taken["embed"], strict=True)]
    shared = {
        "device": machine()["device"],
        "threads": torch.get_num_threads(),
        "ranks": 1,
        "model": Path(config.model[0]).name,
        "precision": config.precision,
        "attention": found["attention"],
        "optimizer_included": False,
        **{key: value for key, value in found.items() if key not in ("seconds", "attention")},
        **{key: value for key, value in machine().items() if key != "device"},
        "command": command_of("embedding", words),
    }
    rows = [
        {"who": name, **shared, "seconds": spent, "tokens_per_second": found["tokens"] / statistics.median(spent)}
        for name, spent in taken.items()
    ]
    rows[0] |= {"of_forward": statistics.median(ratios), "of_forward_by_turn": ratios}
    return rows


def main(words: list[str]) -> None:
    usage(words, __doc__)
    turns = int(next((word.split("=", 1)[1] for word in words if word.startswith("turns=")), "5"))
    config = parser.load(EmbedConfig, [*(word for word in words if not word.startswith("turns=")), "output=-"])
    rows = rows_of(config, measure(config, world_from_environment(config.device), turns), words)
    write_rows(RESULTS, [row for row in read_rows(RESULTS) if row["precision"] != config.precision] + rows)
    print(table(("way", "real tokens/s"), [(row["who"], f"{row['tokens_per_second']:,.0f}") for row in rows]))
    spread = rows[0]["of_forward_by_turn"]
    print(f"\nembed to the faster forward pass: {rows[0]['of_forward']:.3f} ({min(spread):.3f} to {max(spread):.3f})")


if __name__ == "__main__":
    main(sys.argv[1:])

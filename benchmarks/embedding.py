"""Speed of embed compared with the model's forward pass alone over the same packed micro-batches.

    python -m benchmarks.embedding data.path=shards/ model=FOLDER words=[time,work,love] turns=5

`embed` is everything that the stage does for one model after finding occurrences: packing, the model, pooling, the
background and its correction, centroids, neighbours, and writing `occurrences.parquet`. `forward` runs the model over
the same micro-batches, packed before the clock starts, and discards the result: the last layer's states of every token,
with the same attention and precision, by the faster of the stock model's own loop over its layers (`forward_stock`) and
ours (`forward_fused`). The three take turns. Only real tokens are counted. embed can save what `forward` does not:
layers above the highest one used, and in that layer all tokens except those of the words.

Accepts every `key=value` of embed, and `turns`. Writes benchmarks/results/embedding.json, where rows of other
precisions are kept, and prints a table.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Row, exit_with_help, markdown_table, provenance, read_rows, write_rows
from benchmarks.device_timing import seconds_of
from bert_tweets.config import EmbedConfig, parser
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.data.batches import MicroBatch
from bert_tweets.distributed.world import World, world_from_environment
from bert_tweets.engine.precision import autocast
from bert_tweets.words.embedding.drift import sample_for_distances
from bert_tweets.words.embedding.extractor import Extractor
from bert_tweets.words.embedding.parquet_writer import OccurrenceWriter
from bert_tweets.words.embedding.pipeline import load_extractor, model_result
from bert_tweets.words.embedding.study import Study
from bert_tweets.words.embedding.study_builder import find_study, words_of_study

RESULTS = "benchmarks/results/embedding.json"
VARIANTS = ("embed", "forward_stock", "forward_fused")


class Recorder:
    """Stand-in for a model that records its micro-batches."""

    def __init__(self, model: Any, width: int):
        self.model, self.width = model, width
        self.batches: list[MicroBatch] = []

    def layers_at(self, batch: MicroBatch, positions: Tensor, layers: list[int]) -> Tensor:
        self.batches.append(batch)
        return torch.zeros(len(layers), len(positions), self.width, device=positions.device)


def micro_batches(reader: Extractor, study: Study) -> list[MicroBatch]:
    """The micro-batches that embed makes, on the device."""
    recorder = Recorder(reader.module.model, reader.width)
    recording = replace(reader, module=recorder)  # type: ignore[arg-type]
    for occurrences in (study.background_occurrences, study.occurrences):
        for _ in recording.vectors(study.corpus, occurrences):
            pass
    return recorder.batches


def forward(reader: Extractor, batches: list[MicroBatch], fused: bool) -> None:
    """Run the model alone: every token's states at the last layer."""
    last = int(reader.module.model.config.num_hidden_layers)
    with torch.inference_mode(), autocast(reader.device, reader.precision):
        for batch in batches:
            if fused:
                positions = torch.arange(batch.input_ids.numel(), device=reader.device)
                reader.module.layers_at(batch, positions, [last])
            else:
                reader.module.hidden_states(batch)


def embed(config: EmbedConfig, manifest: Manifest, study: Study, reader: Extractor, folder: Path) -> None:
    """Run embed for one model, from packing to the Parquet file."""
    sample = sample_for_distances(study.occurrences, [word.key for word in study.embedded], config.seed)
    streams = [
        reader.vectors(study.corpus, occurrences) for occurrences in (study.background_occurrences, study.occurrences)
    ]
    names = [word.text for word in study.embedded]
    columns = (len(study.words), config.include_text, manifest.groups)
    with OccurrenceWriter(folder / "occurrences.parquet", study.corpus, names, *columns) as writer:
        model_result(config, manifest, study, reader, config.model[0], "model", streams, writer, sample)


def measure(config: EmbedConfig, world: World, turns: int) -> Row:
    """Time all variants; return their seconds by turn, and the columns that all rows share."""
    manifest = Manifest.read(config.data.path)
    study = find_study(config, manifest, words_of_study(config, manifest, None), world, None)
    reader = load_extractor(config, manifest, config.model[0], world)
    batches = micro_batches(reader, study)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        variants: dict[str, Callable[[], None]] = {
            "embed": lambda: embed(config, manifest, study, reader, Path(folder)),
            "forward_stock": lambda: forward(reader, batches, fused=False),
            "forward_fused": lambda: forward(reader, batches, fused=True),
        }
        for turn in range(turns + 1):  # the first is a warm-up
            for name in VARIANTS[turn % 3 :] + VARIANTS[: turn % 3]:
                elapsed = seconds_of(variants[name], world.device)
                if turn:
                    seconds[name].append(elapsed)
    positions = sum(batch.input_ids.numel() for batch in batches)
    tokens = sum(int((batch.segment_ids > 0).sum()) for batch in batches)
    return {
        "seconds": seconds,
        "tokens": tokens,
        "padding_fraction": 1 - tokens / positions,
        "tweets": sum(len(batch.segment_ids.unique()) - 1 for batch in batches),
        "occurrences": len(study.occurrences),
        "background_occurrences": len(study.background_occurrences),
        "attention": reader.module.backend.name,
        "layers": reader.layers,
    }


def rows_of(config: EmbedConfig, measured: Row, arguments: list[str]) -> list[Row]:
    """A row per variant; that of embed has its speed relative to the faster forward pass, turn by turn."""
    seconds = measured["seconds"]
    best = [min(pair) for pair in zip(seconds["forward_stock"], seconds["forward_fused"], strict=True)]
    ratios = [fastest / ours for fastest, ours in zip(best, seconds["embed"], strict=True)]
    shared = {
        **provenance("embedding", arguments),
        "threads": torch.get_num_threads(),
        "ranks": 1,
        "model": Path(config.model[0]).name,
        "precision": config.precision,
        "attention": measured["attention"],
        "optimizer_included": False,
        **{key: value for key, value in measured.items() if key not in ("seconds", "attention")},
    }
    rows = [
        {"who": name, **shared, "seconds": turns, "tokens_per_second": measured["tokens"] / statistics.median(turns)}
        for name, turns in seconds.items()
    ]
    rows[0] |= {"ratio_to_forward": statistics.median(ratios), "ratio_to_forward_by_turn": ratios}
    return rows


def main(arguments: list[str]) -> None:
    exit_with_help(arguments, __doc__)
    of_turns = [argument for argument in arguments if argument.startswith("turns=")]
    turns = int(of_turns[-1].split("=", 1)[1]) if of_turns else 5
    config = parser.load(EmbedConfig, [*(one for one in arguments if one not in of_turns), "output=-"])
    rows = rows_of(config, measure(config, world_from_environment(config.device), turns), arguments)
    write_rows(RESULTS, [row for row in read_rows(RESULTS) if row["precision"] != config.precision] + rows)
    rates = [(row["who"], f"{row['tokens_per_second']:,.0f}") for row in rows]
    print(markdown_table(("variant", "real tokens/s"), rates))
    ratios = rows[0]["ratio_to_forward_by_turn"]
    ratio = f"{rows[0]['ratio_to_forward']:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"\nspeed of embed relative to the faster forward pass: {ratio}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""evaluate: did adaptation help? Masked loss on held-out tweets, beside the model that training began from."""

from __future__ import annotations

import sys
from typing import Any

from bert_tweets.common.errors import run_entry
from bert_tweets.common.output_folder import atomic_output_folder, is_up_to_date, write_json_atomic
from bert_tweets.common.terminal import console

from .config import EvaluateConfig, parser

METRICS, SETTINGS = "metrics.json", "evaluate.json"


def stage(argv: list[str]) -> None:
    """Reads the settings, evaluates, writes metrics.json and prints what it says. Of several ranks, 0 writes."""
    config = parser.load(EvaluateConfig, argv)
    from torch.distributed.elastic.multiprocessing.errors import record

    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.distributed.world import world_from_environment
    from bert_tweets.model.loading import output_fingerprint
    from bert_tweets.training.evaluate import evaluate

    world = world_from_environment(config.device)
    settings = output_fingerprint(config, Manifest.read(config.data.path))
    if is_up_to_date(config.output, SETTINGS, settings, "evaluate"):
        if world.is_main:
            print(f"{config.output}: is complete already")
        return
    # Recorded, so that the root cause that torchrun names is the error of the rank that failed.
    metrics = record(evaluate)(config, world)
    if metrics is None:
        return
    with atomic_output_folder(config.output) as folder:
        write_json_atomic(folder / METRICS, metrics)
        write_json_atomic(folder / SETTINGS, settings)
    _show(metrics)
    for note in metrics["notes"]:
        print(f"warning: {note}", file=sys.stderr)
    print(f"{metrics['verdict']}\nfigures: {config.output}/{METRICS}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _show(metrics: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("", "masked loss", "perplexity", "accuracy", "masked tokens", box=None)
    for role in ("base", "model"):
        figures = metrics[role]
        if figures and figures["comparable"]:
            table.add_row(
                role,
                f"{figures['loss']:.4f} ({figures['low']:.4f} to {figures['high']:.4f})",
                f"{figures['perplexity']:.2f}",
                f"{figures['accuracy']:.2%}",
                f"{figures['masked_tokens']:,}",
            )
        elif figures:
            table.add_row(role, "not comparable", "", "", "")
    console().print(table)


if __name__ == "__main__":
    main()

"""evaluate: did adaptation help? Masked loss on held-out tweets, compared with the model that training started from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bert_tweets.common.errors import run_entry
from bert_tweets.common.output_folder import atomic_output_folder, is_up_to_date, write_json_atomic
from bert_tweets.common.terminal import console

from .config import EvaluateConfig, parser

if TYPE_CHECKING:
    from bert_tweets.training.records import Evaluation


def stage(argv: list[str]) -> None:
    """Parse the settings, evaluate, write metrics.json and print the result; of several ranks, rank 0 writes."""
    config = parser.load(EvaluateConfig, argv)
    from torch.distributed.elastic.multiprocessing.errors import record

    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.distributed.world import world_from_environment
    from bert_tweets.model.loading import output_fingerprint
    from bert_tweets.training import records
    from bert_tweets.training.evaluate import evaluate

    world = world_from_environment(config.device)
    settings = output_fingerprint(config, Manifest.read(config.data.path))
    if is_up_to_date(config.output, records.EVALUATION_SETTINGS, settings, "evaluate"):
        if world.is_main:
            print(f"{config.output}: is complete already")
        return
    # Recorded, so that the root cause that torchrun prints is the error of the rank that failed.
    evaluation = record(evaluate)(config, world)
    if evaluation is None:
        return
    with atomic_output_folder(config.output) as folder:
        records.write_evaluation(folder, evaluation)
        write_json_atomic(folder / records.EVALUATION_SETTINGS, settings)
    _print_table(evaluation)
    for note in evaluation.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(f"{evaluation.verdict}\nfigures: {config.output}/{records.EVALUATION}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _print_table(evaluation: Evaluation) -> None:
    from rich.table import Table

    table = Table("", "masked loss", "perplexity", "accuracy", "masked tokens", box=None)
    for role, scores in (("base", evaluation.base), ("model", evaluation.model)):
        if scores:
            table.add_row(
                role,
                f"{scores.loss:.4f} ({scores.low:.4f} to {scores.high:.4f})",
                f"{scores.perplexity:.2f}",
                f"{scores.accuracy:.2%}",
                f"{scores.masked_tokens:,}",
            )
        elif evaluation.excluded_base:
            table.add_row(role, "not comparable", "", "", "")
    console().print(table)


if __name__ == "__main__":
    main()

"""meaning-test: can a model tell meanings of a word apart? Tested on judged pairs of texts, compared with its base."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bert_tweets.common.errors import UserError, run_entry
from bert_tweets.common.output_folder import atomic_output_folder, is_up_to_date, write_json_atomic
from bert_tweets.common.terminal import console

from .config import MeaningTestConfig, parser

if TYPE_CHECKING:
    from bert_tweets.words.meaning_test.results import MeaningTest

SETTINGS = "meaning_test.json"
_NAMES = {"macro_f1": "macro-F1", "accuracy": "accuracy", "auc": "AUC"}


def stage(argv: list[str]) -> None:
    """Read settings and pairs, run the test, write meaning.json and print the results."""
    config = parser.load(MeaningTestConfig, parser.path_first(argv, "test"))
    from bert_tweets.distributed.world import world_from_environment
    from bert_tweets.words.meaning_test.pipeline import meaning_test_fingerprint, read_pair_sets, run_meaning_test
    from bert_tweets.words.meaning_test.results import MEANING, write_meaning_test

    world = world_from_environment(config.device)
    if world.world_size > 1:
        raise UserError("meaning-test: runs in one process; start it without torchrun")
    sets = read_pair_sets(config)
    settings = meaning_test_fingerprint(config, sets)
    if is_up_to_date(config.output, SETTINGS, settings, "meaning-test"):
        print(f"{config.output}: is complete already")
        return
    result = run_meaning_test(config, sets, world)
    with atomic_output_folder(config.output) as folder:
        write_meaning_test(folder, result)
        write_json_atomic(folder / SETTINGS, settings)
    _show(result)
    for note in (note for test in result.tests for note in test.notes):
        print(f"warning: {note}", file=sys.stderr)
    print(f"results: {config.output}/{MEANING}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _show(result: MeaningTest) -> None:
    from rich.table import Table
    from rich.text import Text

    for role, one in result.thresholds.items():
        print(f"{role}: layer {one.layer}, same meaning from cosine {one.threshold:.3f}; chosen on {result.train}")
    table = Table("pairs", "", box=None, header_style="bold")
    for name in (*_NAMES.values(), "scored", "words"):
        table.add_column(name, justify="right")
    for test in result.tests:
        for role, scores in (("model", test.model), ("base", test.base), ("difference", test.difference)):
            if scores:
                shown = [_with_interval(scores[name], role == "difference") for name in _NAMES]
                table.add_row(Text(test.file), role, *shown, f"{test.scored:,}", f"{test.words:,}")
    console(width=140).print(table)


def _with_interval(values: list[float | None], signed: bool) -> str:
    value, low, high = values
    sign = "+" if signed else ""
    if value is None:
        return "none"
    if low is None or high is None:
        return f"{value:{sign}.3f} (no interval)"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


if __name__ == "__main__":
    main()

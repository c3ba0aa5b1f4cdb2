"""meaning-test: does a model tell meanings of a word apart? Pairs of texts with judgements, beside its base."""

from __future__ import annotations

import sys
from typing import Any

from bert_tweets.common.errors import UserError, run_entry
from bert_tweets.common.output_folder import atomic_output_folder, is_up_to_date, write_json_atomic
from bert_tweets.common.terminal import console

from .config import MeaningTestConfig, parser

MEANING, SETTINGS = "meaning.json", "meaning_test.json"
_NAMES = {"macro_f1": "macro-F1", "accuracy": "accuracy", "auc": "AUC"}


def stage(argv: list[str]) -> None:
    """Reads settings and pairs, tests, writes meaning.json and prints what it says."""
    config = parser.load(MeaningTestConfig, parser.path_first(argv, "test"))
    from bert_tweets.distributed.world import world_from_environment
    from bert_tweets.words.meaning_test.pipeline import judge, meaning_test_fingerprint, questions_of

    world = world_from_environment(config.device)
    if world.world_size > 1:
        raise UserError("meaning-test: runs in one process; start it without torchrun")
    questions = questions_of(config)
    settings = meaning_test_fingerprint(config, questions)
    if is_up_to_date(config.output, SETTINGS, settings, "meaning-test"):
        print(f"{config.output}: is complete already")
        return
    found = judge(config, questions, world)
    with atomic_output_folder(config.output) as folder:
        write_json_atomic(folder / MEANING, found)
        write_json_atomic(folder / SETTINGS, settings)
    _show(found)
    for note in (note for test in found["tests"] for note in test["notes"]):
        print(f"warning: {note}", file=sys.stderr)
    print(f"figures: {config.output}/{MEANING}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    for role, frozen in found["frozen"].items():
        print(
            f"{role}: layer {frozen['layer']}, cosine of {frozen['threshold']:.3f} or more; chosen on {found['train']}"
        )
    table = Table("pairs", "", box=None, header_style="bold")
    for name in (*_NAMES.values(), "scored", "words"):
        table.add_column(name, justify="right")
    for test in found["tests"]:
        sizes = [f"{test['scored']:,}", f"{test['words']:,}"]
        for role in ("model", "base", "difference"):
            if test.get(role):
                shown = [_figures(test[role][name], role == "difference") for name in _NAMES]
                table.add_row(Text(test["file"]), role, *shown, *sizes)
    console(width=140).print(table)


def _figures(values: list[float | None], signed: bool) -> str:
    value, low, high = values
    sign = "+" if signed else ""
    if value is None:
        return "none"
    if low is None or high is None:
        return f"{value:{sign}.3f} (no interval)"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


if __name__ == "__main__":
    main()

"""The `bert-tweets` command: every stage by its name."""

from __future__ import annotations

import importlib
import sys

from bert_tweets.common.errors import UserError, did_you_mean, run_entry

from . import __version__

STAGES = {
    "run": "the whole road with one command: plan, prepare, train, evaluate, embed, report",
    "prepare": "raw tweets to pre-tokenized shards",
    "train": "adapt a masked language model to the shards",
    "evaluate": "did it help? masked loss on held-out tweets, beside the model before",
    "embed": "vectors of chosen words, an occurrence a row and a centroid a word",
    "analyze": "does a word's use differ between groups or over time, and by more than ordinary words' does?",
    "meaning-test": "does a model tell meanings of a word apart? pairs of texts with judgements, beside its base",
    "export": "vectors as other programs read them: word2vec, npz, safetensors, Embedding Atlas",
    "report": "one page to look at",
    "verify": "is a folder of shards, or a run's checkpoints, whole, to the last byte?",
    "inspect": "what a folder of shards holds: lengths, padding, [UNK], samples",
    "doctor": "devices, versions and limits here: what would stop a run, what would slow it",
    "demo": "the whole road on generated tweets, without a download",
}


def stage(argv: list[str]) -> None:
    """Hands over to the stage that the first word names."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:14}{meaning}" for name, meaning in STAGES.items())
        print(f"usage: bert-tweets STAGE [--config FILE]... [key=value]...\n\n{lines}\n\nbert-tweets STAGE --help")
        return
    if argv[0] == "--version":
        print(__version__)
        return
    if argv[0] not in STAGES:
        raise UserError(f"'{argv[0]}': no such stage{did_you_mean(argv[0], STAGES)}; there are {', '.join(STAGES)}")
    importlib.import_module(f".{argv[0].replace('-', '_')}", __package__).stage(argv[1:])


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()

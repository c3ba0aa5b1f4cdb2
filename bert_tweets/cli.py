"""The `bert-tweets` command, which runs a stage by name."""

from __future__ import annotations

import importlib
import sys

from bert_tweets.common.errors import UserError, did_you_mean, run_entry

from . import __version__

STAGES = {
    "run": "run the full pipeline: prepare, train, evaluate, embed, report",
    "prepare": "convert raw tweets to tokenized shards",
    "train": "adapt a masked language model to the shards",
    "evaluate": "compare the masked-LM loss of a model with that of its base model on held-out tweets",
    "embed": "compute a contextual vector for each occurrence of chosen words, and a mean per word",
    "analyze": "test whether the use of words differs between groups or over time",
    "meaning-test": "test how well a model and its base model distinguish word meanings",
    "export": "write vectors for other programs: word2vec, npz, safetensors, Embedding Atlas",
    "report": "create a self-contained HTML page with all results",
    "verify": "check every byte of a folder of shards or of a run's checkpoints",
    "inspect": "summarize a folder of shards: tweet lengths, padding, [UNK], samples",
    "doctor": "check this machine for problems that would stop a run or slow it down",
    "demo": "run the full pipeline on generated tweets, without any download",
}


def stage(argv: list[str]) -> None:
    """Run the stage named by the first argument."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:14}{meaning}" for name, meaning in STAGES.items())
        print(f"usage: bert-tweets STAGE [--config FILE]... [key=value]...\n\nstages:\n{lines}")
        print("\nFor the settings of a stage, run: bert-tweets STAGE --help")
        return
    if argv[0] == "--version":
        print(__version__)
        return
    if argv[0] not in STAGES:
        hint = did_you_mean(argv[0], STAGES)
        raise UserError(f"'{argv[0]}': no such stage{hint}; the stages are {', '.join(STAGES)}")
    importlib.import_module(f".{argv[0].replace('-', '_')}", __package__).stage(argv[1:])


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()

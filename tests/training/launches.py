"""Launches of training, one after the other in one start of ranks: `launches.py FILE`, a list of lists of words.

A launch may be preceded by the word `as NAME`, which copies the output folder there first.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

from bert_tweets import options
from bert_tweets.config import TrainConfig
from bert_tweets.data.manifest import Manifest
from bert_tweets.engine import world as ranks
from bert_tweets.errors import Stopped, UserError
from bert_tweets.training.loop import run
from bert_tweets.training.setup import stream_for
from tests.engine.worker import as_in_a_process_of_its_own


def main(file: Path) -> None:
    world = ranks.this_world("cpu")
    ranks.start(world, timeout_seconds=60, always=True)
    outcomes = []
    for words in json.loads(file.read_text()):
        config = options.load(TrainConfig, [word for word in words if not word.startswith("copy_of=")])
        if world.is_main:
            for word in words:
                if word.startswith("copy_of="):
                    shutil.copytree(word.removeprefix("copy_of="), config.output)
        world.barrier()
        manifest = Manifest.read(config.data.path)
        torch.manual_seed(0)
        outcome = "done"
        try:
            with as_in_a_process_of_its_own():
                run(config, manifest, stream_for(config, manifest), world)
        except (UserError, Stopped) as error:
            outcome = str(error)
        outcomes.append(outcome)
    if world.is_main:
        file.with_suffix(".outcomes").write_text(json.dumps(outcomes))
    ranks.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

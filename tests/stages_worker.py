"""One rank of test_shared_stages.py: several stages in one launch, with small units of work, so that ranks share many.

Usage: stages_worker.py FILE    (JSON: a list of [stage, [arguments ...]])
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bert_tweets import embed, evaluate
from bert_tweets.common.logs import log_to_console
from bert_tweets.distributed import world as ranks
from bert_tweets.training import evaluate as evaluation
from bert_tweets.words.occurrences import find

STAGES: dict[str, Any] = {"embed": embed.stage, "evaluate": evaluate.stage}

SMALL_UNITS: list[tuple[Any, str, int]] = [(find, "CHUNK_TWEETS", 50), (evaluation, "_TWEETS_A_STEP", 16)]


def main(file: str) -> None:
    log_to_console()
    for module, name, tweets in SMALL_UNITS:
        setattr(module, name, tweets)
    log_to_console()
    world = ranks.world_from_environment("cpu")
    with ranks.process_group(world):
        for stage, arguments in json.loads(Path(file).read_text(encoding="utf-8")):
            STAGES[stage](arguments)
            world.barrier()


if __name__ == "__main__":
    main(sys.argv[1])

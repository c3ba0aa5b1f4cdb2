"""`-m bert_tweets.train` with slow steps: slow_train.py SECONDS KEY=VALUE...

SLOW_RANK is a rank that computes longer than the others.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from bert_tweets import train
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.model.masked_lm import PackedMaskedLM


def main() -> None:
    seconds = float(sys.argv.pop(1))
    rank = os.environ.get("RANK", "0")
    step_of, forward = DDPEngine.train_step, PackedMaskedLM.forward

    def train_step(self: Any, step: Any, *rest: Any) -> Any:
        time.sleep(seconds)
        return step_of(self, step, *rest)

    def slow(self: Any, *arguments: Any) -> Any:
        time.sleep(0.05)
        return forward(self, *arguments)

    DDPEngine.train_step = train_step  # type: ignore[method-assign]
    if os.environ.get("SLOW_RANK") == rank:
        PackedMaskedLM.forward = slow  # type: ignore[method-assign]
    train.main()


if __name__ == "__main__":
    main()

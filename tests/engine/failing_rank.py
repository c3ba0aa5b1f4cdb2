"""`-m bert_tweets.train` with a rank 1 that fails in its third step.

Usage: failing_rank.py KEY=VALUE...
"""

from __future__ import annotations

import os
from typing import Any

from bert_tweets import train
from bert_tweets.engine import ddp, deepspeed


def fail_in_third_step(engine: Any) -> None:
    step_of = engine.train_step

    def train_step(self: Any, step: Any, *rest: Any) -> Any:
        if step.index == 2:
            raise RuntimeError(f"rank {self.world.rank} cannot continue")
        return step_of(self, step, *rest)

    engine.train_step = train_step


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        fail_in_third_step(ddp.DDPEngine)
        fail_in_third_step(deepspeed.DeepSpeedEngine)
    train.main()

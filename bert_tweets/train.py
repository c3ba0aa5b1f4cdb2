"""train: adapt a masked language model to tweets. `torchrun --nproc_per_node=8 -m bert_tweets.train …`"""

from __future__ import annotations

from . import options
from .config import TrainConfig
from .errors import run_entry


def stage(argv: list[str]) -> None:
    """Reads the settings, then trains. Help and mistakes in settings never wait for torch."""
    config = options.load(TrainConfig, argv)
    from torch.distributed.elastic.multiprocessing.errors import record

    from .training.loop import train

    # Recorded, so that the root cause that torchrun names is the error of the rank that failed.
    record(train)(config)


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


if __name__ == "__main__":
    main()

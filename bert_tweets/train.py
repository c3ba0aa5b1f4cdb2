"""train: adapt a masked language model to tweets. `torchrun --nproc_per_node=8 -m bert_tweets.train …`"""

from __future__ import annotations

from bert_tweets.common.errors import run_entry

from .config import TrainConfig, parser


def stage(argv: list[str]) -> None:
    """Parse the settings, then train, or print the plan. Help and mistakes do not wait for torch."""
    config = parser.load(TrainConfig, argv)
    if config.dry_run:
        from bert_tweets.training.dry_run import dry_run

        dry_run(config)
        return
    from torch.distributed.elastic.multiprocessing.errors import record

    from bert_tweets.training.trainer import train

    # Recorded, so that the root cause that torchrun prints is the error of the rank that failed.
    record(train)(config)


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


if __name__ == "__main__":
    main()

"""Hub models: brought onto each machine once, before its ranks load them."""

from __future__ import annotations

from bert_tweets.common.hub import is_local
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.model.loading import SCRATCH, check_model, fetch

from .world import World


def check_local(models: list[ModelConfig], manifest: Manifest) -> None:
    """Refuses models on this machine that do not fit the shards, before the process group starts.

    Raises:
        UserError: see `check_model`.
    """
    for config in models:
        if is_local(config.name):
            check_model(config, manifest)


def fetch_and_check(models: list[ModelConfig], manifest: Manifest, world: World) -> None:
    """Brings those of the hub onto each machine, then refuses those that do not fit. Every rank calls it.

    Raises:
        UserError: the hub does not have it or is not in reach, or see `check_model`.
    """
    of_hub = [config for config in models if not is_local(config.name) and config.name != SCRATCH]
    for config in of_hub:
        if world.local_rank == 0:
            fetch(config.name, config.revision)
    if of_hub:
        world.barrier()
    for config in of_hub:
        check_model(config, manifest)

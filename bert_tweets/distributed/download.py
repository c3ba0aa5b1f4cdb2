"""Download of hub models, once per machine, before its ranks load them."""

from __future__ import annotations

from bert_tweets.common.hub import is_local
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.model.loading import SCRATCH, check_model, fetch

from .world import World


def check_local(models: list[ModelConfig], manifest: Manifest) -> None:
    """Check local models against the shards, before the process group starts; raises as `check_model`."""
    for config in models:
        if is_local(config.name):
            check_model(config, manifest)


def fetch_and_check(models: list[ModelConfig], manifest: Manifest, world: World) -> None:
    """Download hub models to each machine and check them against the shards. Every rank calls it.

    Raises:
        UserError: the hub does not have the model or cannot be reached, or see `check_model`.
    """
    of_hub = [config for config in models if not is_local(config.name) and config.name != SCRATCH]
    for config in of_hub:
        if world.local_rank == 0:
            fetch(config.name, config.revision)
    if of_hub:
        world.barrier()
    for config in of_hub:
        check_model(config, manifest)

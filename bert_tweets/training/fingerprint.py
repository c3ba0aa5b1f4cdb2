"""The fingerprint of a run: what must be the same for it to resume. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from bert_tweets.config import Settings, TrainConfig, parser
from bert_tweets.corpus.text.recipe import Recipe

# Settings that may change when a run resumes: tweets, masks and steps stay the same. (The data and the initial weights
# are identified by more than their paths.)
_FREE = (
    "output",
    "resume",
    "stop_after_steps",
    "dry_run",
    "dry_run_for.",
    "max_nonfinite_steps",
    "device",
    "deterministic",
    "profile",
    "tokens_per_device",
    "data.path",
    "data.num_workers",
    "data.verify",
    "model.name",
    "model.attention",
    "model.compile",
    "model.checkpoint_activations",
    "engine.",
    "checkpoint.",
    "log.",
)


@dataclass(frozen=True)
class RunFingerprint:
    """Everything that decides the tweets, masks and steps of a run.

    Attributes:
        settings: the settings that must stay the same, by key.
        recipe: recipe of the shards.
        data: fingerprint of the shards' manifest.
        weights: identity of the initial weights, see `model.loading.weights_identity`.
    """

    settings: Settings
    recipe: Recipe
    data: str
    weights: str

    def differences(self, now: RunFingerprint) -> list[str]:
        """Describe in what this (saved) fingerprint differs from that of the run now."""
        keys = sorted(self.settings.keys() | now.settings.keys())
        pairs = ((key, self.settings.get(key), now.settings.get(key)) for key in keys)
        found = [f"{key} ({before} there, {after} now)" for key, before, after in pairs if before != after]
        found += [f"the recipe's {part}" for part in self.recipe.differences(now.recipe)]
        if not found and self.data != now.data:
            found.append("the shards hold other tweets")
        if self.weights != now.weights:
            found.append("the initial model has other weights")
        return found


def settings_that_stay(config: TrainConfig) -> Settings:
    """The settings that must be the same for a run to resume, by key."""
    return {key: value for key, value in parser.flatten(config).items() if not key.startswith(_FREE)}

"""The provenance of a run: inputs, versions, device."""

from __future__ import annotations

import platform

import pyarrow as pa
import torch
import transformers

from bert_tweets import __version__
from bert_tweets.common.errors import UserError
from bert_tweets.config import TrainConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.model.loading import weights_identity

from .fingerprint import RunFingerprint, settings_that_stay
from .records import RunSummary


def run_fingerprint(config: TrainConfig, manifest: Manifest) -> RunFingerprint:
    weights = weights_identity(config.model.name, config.model.revision)
    return RunFingerprint(settings_that_stay(config), manifest.recipe, manifest.fingerprint, weights)


def require_same_inputs(config: TrainConfig, summary: RunSummary, fingerprint: RunFingerprint) -> None:
    """Raise UserError for a finished run whose tweets or initial weights differ from those now under the same names."""
    changed = [part for part in ("data", "weights") if getattr(summary, part) != getattr(fingerprint, part)]
    if changed:
        raise UserError(
            f"{config.output}: is finished, but over other {' and '.join(changed)} than there are now; "
            "name a new folder with output="
        )


def versions() -> dict[str, str]:
    return {
        "bert_tweets": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "pyarrow": pa.__version__,
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads per rank"

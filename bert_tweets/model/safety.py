"""Models of strangers: what would run code, or lead out of the model's folder, is refused unopened."""

from __future__ import annotations

import re
from pathlib import Path

from bert_tweets.common.errors import UserError
from bert_tweets.common.hub import json_object, require_no_code

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
# A file of the folder itself, and no pickle whatever its name.
_SHARD = re.compile(r"\w[\w.-]*\.safetensors")


def require_harmless(folder: Path, name: str) -> None:
    """Refuses a model for what stands beside its weights; reads none of them.

    Args:
        folder: of the model; of a hub model, its commit's among what was downloaded.
        name: of the model, for messages.

    Raises:
        UserError: it brings code, leads to another model or to files outside of its folder, or has no safetensors.
    """
    require_no_code(folder, name)
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{name}: is an adapter to another model; merge the two (peft's merge_and_unload), and save that"
        )
    if "transformers_weights" in json_object(folder / "config.json"):
        raise UserError(f"{name}: its config.json chooses a file of weights; take that line out, {_WEIGHTS} is read")
    named = json_object(folder / _INDEX).get("weight_map", {})
    for file in named.values() if isinstance(named, dict) else [named]:
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise UserError(f"{name}: its {_INDEX} names {file!r}, which is no file of weights in its folder")
    if not named and not (folder / _WEIGHTS).is_file():
        raise UserError(
            f"{name}: holds no {_WEIGHTS}; pickled weights (pytorch_model.bin) can run code and are never opened: "
            "convert them where that can do no harm, or take another model"
        )

"""Untrusted models: files that would run code, or lead out of the model's folder, are rejected unopened."""

from __future__ import annotations

import re
from pathlib import Path

from bert_tweets.common.errors import UserError
from bert_tweets.common.hub import json_object, require_no_code

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
# A file in the folder itself, and never a pickle.
_SHARD = re.compile(r"\w[\w.-]*\.safetensors")


def require_safe(folder: Path, name: str) -> None:
    """Reject a model that is not safe to load, from its folder or downloaded snapshot; its weights are not read.

    Raises:
        UserError: it contains code, refers to another model or to files outside its folder, or has no safetensors.
    """
    require_no_code(folder, name)
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{name}: is an adapter of another model; merge the two (peft's merge_and_unload), and save the result"
        )
    if "transformers_weights" in json_object(folder / "config.json"):
        raise UserError(
            f"{name}: its config.json sets transformers_weights; remove that line, weights are read from {_WEIGHTS}"
        )
    named = json_object(folder / _INDEX).get("weight_map", {})
    for file in named.values() if isinstance(named, dict) else [named]:
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise UserError(f"{name}: its {_INDEX} names {file!r}, which is not a file of weights in its folder")
    if not named and not (folder / _WEIGHTS).is_file():
        raise UserError(
            f"{name}: has no {_WEIGHTS}; pickled weights (pytorch_model.bin) can run code and are never opened: "
            "convert them in a sandbox, or use another model"
        )

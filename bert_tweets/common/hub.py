"""Names of models and tokenizers: local folders or names on the hub. Code in them is never run."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError
from .output_folder import from_json

MAIN = "main"
_SETTINGS = ("config.json", "tokenizer_config.json")


def is_local(name: str) -> bool:
    """Whether a name means a local folder. A name that looks like a path is never looked up on the hub."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or Path(name).is_absolute()
    return is_path or Path(name).exists()


def split_revision(name: str, revision: str = MAIN) -> tuple[str, str]:
    """Split `bert-base-uncased@86b5e09` into name and revision; names on the hub contain no @, folders keep theirs."""
    if is_local(name) or "@" not in name:
        return name, revision
    name, _, own = name.partition("@")
    return name, own or revision


def snapshot(name: str, revision: str = MAIN) -> Path | None:
    """Folder of a downloaded revision of a hub model; None if it was not downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, revision = split_revision(name, revision)
    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def require_no_code(folder: Path, name: str) -> None:
    """Raise UserError for a model or tokenizer that needs code of its own; `name` is for the message."""
    for file in _SETTINGS:
        if "auto_map" in json_object(folder / file):
            raise UserError(
                f"{name}: its {file} refers to code of its own (auto_map), which is never run; use a model that "
                "transformers supports itself"
            )


def json_object(path: Path) -> Mapping[str, Any]:
    """Content of a JSON file; empty if it is missing or not an object, which its loader will report."""
    try:
        found = from_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.cache
def in_reach() -> bool:
    """Whether the hub answers; checked once, because the hub's client would retry for minutes."""
    import urllib.error
    import urllib.request

    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not endpoint.startswith(("https://", "http://")):
        return False
    request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True

"""Names of models and tokenizers: folders on this machine, or names on the hub; what is in them is not run."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from .errors import UserError
from .output_folder import from_json

MAIN = "main"
_SETTINGS = ("config.json", "tokenizer_config.json")


def is_local(name: str) -> bool:
    """Whether a name means a folder here. What looks like a path never goes to the hub."""
    return (
        Path(name).expanduser().exists()
        or name.startswith((".", "/", "~", "\\"))
        or name.count("/") > 1
        or "\\" in name
        or Path(name).is_absolute()
    )


def split_revision(name: str, revision: str = MAIN) -> tuple[str, str]:
    """A name and its revision, which may stand behind it (`bert-base-uncased@86b5e09`), as no hub name holds an @.

    Args:
        name: a folder's keeps every @ that it has.
        revision: where none stands behind the name.
    """
    if is_local(name) or "@" not in name:
        return name, revision
    name, _, behind = name.partition("@")
    return name, behind or revision


def snapshot(name: str, revision: str = MAIN) -> Path | None:
    """The folder of the commit that a revision of a hub model means, among what was downloaded; None: nothing was."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, revision = split_revision(name, revision)
    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def require_no_code(folder: Path, name: str) -> None:
    """Raises UserError for a model or a tokenizer that brings code of its own; `name` is for the message."""
    for file in _SETTINGS:
        if "auto_map" in json_object(folder / file):
            raise UserError(
                f"{name}: its {file} names code of its own (auto_map), which is never run; take one that transformers "
                "knows by itself"
            )


def json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none, or none that is an object: who loads it tells of that."""
    try:
        found = from_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.cache
def in_reach() -> bool:
    """Whether the hub answers: asked once, before a client that would try for minutes."""
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

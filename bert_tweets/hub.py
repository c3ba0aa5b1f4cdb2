"""Names of models and tokenizers: folders on this machine, or names on the hub."""

from __future__ import annotations

import functools
import os
from pathlib import Path


def is_local(name: str) -> bool:
    """Whether a name means a folder here. What looks like a path never goes to the hub."""
    return (
        Path(name).expanduser().exists()
        or name.startswith((".", "/", "~", "\\"))
        or name.count("/") > 1
        or "\\" in name
        or Path(name).is_absolute()
    )


@functools.cache
def in_reach() -> bool:
    """Whether the hub answers: asked once, before a client that would try for minutes."""
    import urllib.error
    import urllib.request

    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    request = urllib.request.Request(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True

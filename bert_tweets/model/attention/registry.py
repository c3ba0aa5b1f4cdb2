"""The backends, and which of them suits a device."""

from __future__ import annotations

from bert_tweets.common.errors import UserError

from .base import Backend, Plan, Shape
from .bucketed_cpu import BucketedAttention
from .flex import Flex
from .sdpa import SDPA
from .triton_rows import TritonRows
from .varlen import Varlen

# By device, the fastest first; see benchmarks/NOTES.md for the races.
_PREFERRED = {"cpu": ("bucketed", "sdpa"), "cuda": ("triton", "varlen", "flex", "sdpa")}
_ALL: dict[str, Backend] = {
    backend.name: backend for backend in (SDPA(), BucketedAttention(), TritonRows(), Varlen(), Flex())
}


def backend_names() -> tuple[str, ...]:
    """What `model.attention` may be, `auto` apart."""
    return tuple(_ALL)


def backend_named(name: str) -> Backend:
    return _ALL[name]


def backend_for(asked: str, shape: Shape) -> Backend:
    """The backend of `model.attention=auto|NAME`.

    Raises:
        UserError: the one that is asked for cannot be used here.
    """
    if asked == "auto":
        return next(_ALL[name] for name in _PREFERRED[shape.device] if not _ALL[name].missing(shape))
    missing = _ALL[asked].missing(shape)
    if missing:
        raise UserError(f"model.attention={asked}: {missing}; leave it out, and the best that works is taken")
    return _ALL[asked]


__all__ = ["Backend", "Plan", "backend_for", "backend_named", "backend_names"]

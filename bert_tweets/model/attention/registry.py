"""The backends, and the choice of one for a device."""

from __future__ import annotations

from bert_tweets.common.errors import UserError

from .base import Backend, Shape
from .bucketed_cpu import BucketedAttention
from .flex import Flex
from .sdpa import SDPA
from .triton_rows import TritonRows
from .varlen import Varlen

# By device, fastest first; measured in benchmarks/NOTES.md.
_PREFERRED = {"cpu": ("bucketed", "sdpa"), "cuda": ("triton", "varlen", "flex", "sdpa")}
_ALL: dict[str, Backend] = {
    backend.name: backend for backend in (SDPA(), BucketedAttention(), TritonRows(), Varlen(), Flex())
}


def backend_names() -> tuple[str, ...]:
    """The values of `model.attention`, except `auto`."""
    return tuple(_ALL)


def backend_named(name: str) -> Backend:
    return _ALL[name]


def backend_for(name: str, shape: Shape) -> Backend:
    """The backend of `model.attention=auto|NAME`.

    Raises:
        UserError: the requested backend cannot be used here.
    """
    if name == "auto":
        return next(_ALL[other] for other in _PREFERRED[shape.device] if not _ALL[other].missing(shape))
    if missing := _ALL[name].missing(shape):
        raise UserError(f"model.attention={name}: {missing}; leave it out to use the fastest that works")
    return _ALL[name]

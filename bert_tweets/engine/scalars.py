"""The numbers of an engine that a checkpoint carries. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scalars:
    """Numbers of an engine.

    Attributes:
        optimizer_steps: optimizer steps taken, without skipped ones.
        loss_scale: scale of the loss in fp16; None otherwise.
        unscaled_steps: steps since the scale last changed; None if the engine does not count them.
    """

    optimizer_steps: int
    loss_scale: float | None = None
    unscaled_steps: int | None = None

"""Declaration of settings: dataclass fields with the metadata that `--help` and validation use."""

from __future__ import annotations

import dataclasses
from typing import Any

# The settings of a stage by name, as JSON and YAML hold them; settings of a group are nested.
Settings = dict[str, Any]


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    required: bool = False,
) -> Any:
    """Declare a setting as a dataclass field.

    Args:
        meaning, unit: description and unit of the value for `--help`.
        choices: allowed values; empty: any.
        at_least, above, at_most: smallest allowed value, exclusive lower limit, largest allowed value; None: no limit.
        required: whether the user must set it.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most}
    metadata = {"meaning": meaning, "unit": unit, "choices": choices, "required": required, **limits}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(default: Any, meaning: str) -> Any:
    """Declare a setting that the user must set."""
    return setting(default, meaning, required=True)


def settings_group(kind: type) -> Any:
    """Declare a group of settings, whose keys are `group.key`, as a dataclass field."""
    return dataclasses.field(default_factory=kind)


DEVICE = ("auto", "cpu", "cuda")

# Periods by which tweets can be grouped, each with its strftime format.
PERIODS = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "year": "%Y"}


def tokens_per_device() -> Any:
    """Declare the size of a micro-batch."""
    return setting(16_384, "maximum number of tokens in one micro-batch on one device", unit="tokens", at_least=8)


def inference_precision() -> Any:
    """Declare the precision of a stage that runs a model without training it."""
    return setting("fp32", "compute precision", choices=("fp32", "bf16"))


def device(use: str) -> Any:
    """Declare the device of a stage; `use` says what it is for."""
    return setting("auto", f"{use}; auto: the GPU if there is one, else the CPU", choices=DEVICE)

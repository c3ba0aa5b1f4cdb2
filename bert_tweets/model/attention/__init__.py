"""Attention over packed rows: a tweet attends to itself alone. Several backends, one protocol."""

from .base import Shape
from .hf_interface import NAME, register
from .registry import Backend, Plan, backend_for, backend_named, backend_names

__all__ = ["NAME", "Backend", "Plan", "Shape", "backend_for", "backend_named", "backend_names", "register"]

"""Attention over packed rows: a tweet attends to itself alone. Several backends, one protocol."""

from .backends import Backend, Plan, backend_for, backend_named, names
from .interface import NAME, register
from .protocol import Shape

__all__ = ["NAME", "Backend", "Plan", "Shape", "backend_for", "backend_named", "names", "register"]

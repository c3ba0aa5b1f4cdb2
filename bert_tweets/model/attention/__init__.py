"""Attention over packed rows: a tweet attends only to itself. Several backends with one interface."""

from .base import Backend, Plan, Shape
from .hf_interface import NAME, register
from .registry import backend_for, backend_named, backend_names

__all__ = ["NAME", "Backend", "Plan", "Shape", "backend_for", "backend_named", "backend_names", "register"]

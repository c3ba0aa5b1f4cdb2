"""Vectors as embed leaves them on disk, and the spaces that they belong to."""

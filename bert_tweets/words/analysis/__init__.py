"""Vectors → findings and verdicts."""

"""From occurrences to vectors on disk."""

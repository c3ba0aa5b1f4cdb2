"""Find clusters of near-duplicates, out of core."""

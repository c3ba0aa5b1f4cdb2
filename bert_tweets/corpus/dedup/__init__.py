"""Near-duplicate clusters, found out of core."""

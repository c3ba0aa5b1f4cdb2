"""Convert sources to shards, in restartable units of work."""

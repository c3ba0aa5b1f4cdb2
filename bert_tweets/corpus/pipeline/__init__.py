"""From sources to shards, in restartable units of work on workers."""

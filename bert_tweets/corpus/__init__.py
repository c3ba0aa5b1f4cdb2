"""From raw tweets to shards."""

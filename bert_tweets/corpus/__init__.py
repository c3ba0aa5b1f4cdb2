"""Convert raw tweets to shards."""

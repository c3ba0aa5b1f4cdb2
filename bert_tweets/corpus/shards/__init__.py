"""The on-disk format of prepared tweets: write, read, verify."""

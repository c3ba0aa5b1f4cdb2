"""The on-disk format of prepared tweets: written, read, verified."""

"""Tweets as text: reading sources, cleaning, duplicates, the tokenizer and its word boundaries."""

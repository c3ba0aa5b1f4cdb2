"""The text of a tweet: cleaning, tokenizer, recipe."""

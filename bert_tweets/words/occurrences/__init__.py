"""Where words occur, and which occurrences are sampled."""

"""Words: their occurrences, the vectors of these, neighbours, files and pictures."""

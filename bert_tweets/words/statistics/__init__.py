"""Statistics of vectors: arrays in, arrays out."""

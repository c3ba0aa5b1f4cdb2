"""Tokens at rest and on the way: shards, manifest, order, sampler, packing, masking, loader."""

"""From shards to micro-batches: order, sampler, packing, masking, loader."""

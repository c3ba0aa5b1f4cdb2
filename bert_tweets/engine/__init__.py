"""Engines: micro-batches in, one optimizer step out. The only room that knows DDP or DeepSpeed exist."""

"""Training: trainer, schedule, optimizer groups, checkpoints, metrics, validation, evaluation."""

"""What a training run needs beside its engine: schedule, optimizer groups, metrics, validation."""

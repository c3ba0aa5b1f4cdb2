"""What knows nothing of tweets: errors, output folders, terminal, arrays, system, hub, executors."""

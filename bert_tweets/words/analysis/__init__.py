"""From vectors to findings and verdicts."""

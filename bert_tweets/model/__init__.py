"""The encoder: loading, attention over packed rows, head and loss at masked positions, export."""

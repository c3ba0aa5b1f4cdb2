"""Read the bytes of files as rows."""

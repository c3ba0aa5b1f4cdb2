"""From the bytes of files to rows."""

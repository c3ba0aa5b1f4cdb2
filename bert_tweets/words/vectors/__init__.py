"""WordVectors, the Python face of an embed folder, and its exports."""

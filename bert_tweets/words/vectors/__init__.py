"""`WordVectors`: a folder of embed in Python, and its exports."""

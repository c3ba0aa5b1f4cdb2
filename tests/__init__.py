"""The tests; this is imported before any of them, and before NumPy."""

import os

# OpenBLAS and OpenMP, of NumPy and scikit-learn, would use a thread per core for matrices far too small for that: on
# two busy cores a test of statistics then takes three times the processor time, and four times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

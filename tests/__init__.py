"""The tests. This file is imported before all of them, and before NumPy."""

import os

# By default OpenBLAS and OpenMP (NumPy, scikit-learn) use one thread per core even for tiny matrices. On two busy cores
# a test of statistics then takes three times the CPU time and four times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

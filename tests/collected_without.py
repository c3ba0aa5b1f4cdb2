"""Collect the tests that need a GPU while hiding the packages that a bare GPU machine lacks."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    runpy.run_path(str(HERE / "without" / "sitecustomize.py"))
    from benchmarks.gpu_parts import gpu_test_files

    sys.exit(pytest.main(["--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider", *gpu_test_files()]))

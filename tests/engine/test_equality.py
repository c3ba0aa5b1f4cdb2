"""The same run at any size: one rank, two, three, and four micro-batches give the same losses, gradients and weights.

Real processes; the masked counts of ranks are unequal, and some rank has none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import generated_tweets, make_shards
from tests.processes import run

WORKER = str(Path(__file__).parent / "worker.py")
Outcome = dict[str, np.ndarray]

# Few and short tweets a step, so that some rank has no masked token at all.
BATCH_SIZE = 8


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("equality")
    texts = [" ".join(text.split()[: 1 + number % 6]) for number, text in enumerate(generated_tweets(300))]
    shards = make_shards(folder / "data", texts, max_length=16)
    found = {}
    for name, processes, tokens_per_device in (("1", 1, 4096), ("2", 2, 4096), ("3", 3, 4096), ("1 in parts", 1, 16)):
        output = folder / f"{name}.npz"
        arguments = [WORKER, str(shards), str(output), str(BATCH_SIZE), str(tokens_per_device)]
        done = run(arguments, processes=processes)
        assert done.returncode == 0, done.stderr
        with np.load(output) as arrays:
            found[name] = dict(arrays)
    return found


@pytest.mark.dist
def test_the_hard_cases_occur(outcomes: dict[str, Outcome]) -> None:
    for name in ("2", "3"):
        masked = outcomes[name]["masked"]
        assert (masked.min(axis=0) == 0).any() and (masked.max(axis=0) > masked.min(axis=0)).any()
        assert np.array_equal(masked.sum(axis=0), outcomes["1"]["masked"][0])
    assert outcomes["1 in parts"]["micro_batches"] >= 4 and outcomes["1"]["micro_batches"] == 1


@pytest.mark.dist
@pytest.mark.parametrize("name", ["2", "3", "1 in parts"])
def test_runs_of_any_size_are_the_same_run(outcomes: dict[str, Outcome], name: str) -> None:
    alone, other = outcomes["1"], outcomes[name]
    assert np.abs(alone["losses"] - other["losses"]).max() < 1e-5
    assert np.allclose(alone["norms"], other["norms"], rtol=1e-6, atol=0)
    gradients = [key for key in alone if key.startswith("gradient")]
    weights = [key for key in alone if key.startswith("weight")]
    assert len(gradients) > 30 and len(weights) >= len(gradients)
    for key in gradients:
        if not key.endswith("key.bias"):
            scale = np.linalg.norm(alone[key])
            assert np.linalg.norm(alone[key] - other[key]) < 1e-6 * scale + 1e-9, key
    for key in weights:
        # key.bias has no true gradient: Adam makes steps of size lr out of rounding, 20 at most each way.
        bound = 2 * 20 * 5e-5 if key.endswith("key.bias") else 1e-5
        assert np.abs(alone[key] - other[key]).max() < bound, key


@pytest.mark.dist
def test_the_run_learns(outcomes: dict[str, Outcome]) -> None:
    weights = [key for key in outcomes["1"] if key.startswith("weight")]
    assert all(np.isfinite(outcomes["1"][key]).all() for key in weights)
    assert outcomes["1"]["losses"].std() > 0

"""The same run at any size and with any engine: losses, gradients, norms and weights, in real processes.

One, two and three ranks; DDP and DeepSpeed's four ZeRO stages; one micro-batch per step and several. The ranks have
different numbers of masked tokens, some none. Each number of ranks is started once, for all of its cases.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.cases import ENGINES, FEW, RATE, SETTINGS, SETTINGS_FILE, STEPS
from tests.helpers import generated_tweets, make_shards
from tests.processes import run

pytestmark = pytest.mark.xdist_group("ranks")

WORKER = str(Path(__file__).parent / "worker.py")
Outcome = dict[str, np.ndarray]

FROZEN = ["ddp-frozen", "zero3-frozen", "zero2-frozen-weights"]
KEPT = ["zero1-offload", "zero2-offload", "zero3-offload", "ddp-recomputed", "zero3-recomputed"]
MATRIX = [f"{name}{parts}" for name in ENGINES for parts in ("", "-parts")]
STAGES = [name for name in ENGINES if name != "ddp"]
MORE = [f"{name}-bf16" for name in ENGINES] + [f"{name}-weights" for name in ENGINES if name != "zero0"]
MORE += [f"{name}-clipped" for name in ("ddp", "zero0", "zero2", "zero3")]
MORE += [f"{name}-compressed" for name in ("ddp", "zero0", "zero2")] + [
    "ddp-fp16",
    "zero0-fp16",
    "zero1-fp16",
    "zero3-fp16",
]
MORE += [*KEPT, *FROZEN]
ALONE = ["ddp", "ddp-parts", "zero0", "zero2", "zero3"]
# Cases at three ranks; make soak runs all of MATRIX.
AT_THREE = ["ddp", "ddp-parts", "zero2-parts", "zero3"]
RESTARTS = ["restart", "restart-parts"]
ANY_SIZE = [f"1-{case}" for case in ALONE] + [f"2-{case}" for case in MATRIX] + [f"3-{case}" for case in AT_THREE]
OTHERS = [pytest.param(f"3-{case}", marks=pytest.mark.soak) for case in MATRIX if case not in AT_THREE]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The outcomes by ranks and case, such as `2-zero3-parts`."""
    selected = [item for item in request.session.items if item.path == request.path]
    soak = any(item.get_closest_marker("soak") for item in selected)
    launches = {1: ALONE, 2: [*MATRIX, *MORE], 3: [*(MATRIX if soak else AT_THREE), *RESTARTS]}
    folder = tmp_path_factory.mktemp("equality")
    texts = [" ".join(text.split()[: 1 + number % 6]) for number, text in enumerate(generated_tweets(300))]
    shards = make_shards(folder / "data", texts, max_length=8)
    (folder / SETTINGS_FILE).write_text(json.dumps(SETTINGS))
    found = {}
    for processes, cases in launches.items():
        done = run([WORKER, str(shards), str(folder), *cases], processes=processes if processes > 1 else 0)
        assert done.returncode == 0, done.stderr
        for case in cases:
            with np.load(folder / f"{processes}-{case}.npz") as arrays:
                found[f"{processes}-{case}"] = dict(arrays)
    return found


def names_of(outcome: Outcome, kind: str) -> list[str]:
    return [key for key in outcome if key.startswith(f"{kind} ")]


def distance(one: Outcome, other: Outcome, kind: str) -> float:
    """Largest distance: of gradients relative to the tensor's norm, of weights absolute; without `key.bias`."""
    names = [key for key in names_of(one, kind) if not key.endswith("key.bias")]
    assert len(names) > 30 and names_of(one, kind) == names_of(other, kind)
    if kind == "gradient":
        return max(float(np.linalg.norm(one[key] - other[key]) / (np.linalg.norm(one[key]) + 1e-3)) for key in names)
    return max(float(np.abs(one[key] - other[key]).max()) for key in names)


@pytest.mark.dist
def test_the_hard_cases_occur(outcomes: dict[str, Outcome]) -> None:
    for name in ("2-ddp", "3-ddp", "2-zero3-parts", "3-zero2-parts"):
        masked = outcomes[name]["masked"]
        assert (masked.min(axis=0) == 0).any() and (masked.max(axis=0) > masked.min(axis=0)).any()
        assert np.array_equal(masked.sum(axis=0), outcomes["1-ddp"]["masked"][0])
    assert (outcomes["1-ddp"]["micro_batches"] == 1).all()
    assert all(outcomes[f"{ranks}-ddp-parts"]["micro_batches"].max() >= 4 for ranks in (1, 2, 3))


@pytest.mark.dist
@pytest.mark.parametrize("name", [*ANY_SIZE, *OTHERS])
def test_runs_of_any_size_are_the_same_run(outcomes: dict[str, Outcome], name: str) -> None:
    alone, other = outcomes["1-ddp"], outcomes[name]
    assert len(alone["losses"]) == STEPS and alone["losses"].std() > 0
    assert np.abs(alone["losses"] - other["losses"]).max() < 1e-5
    assert np.allclose(alone["norms"], other["norms"], rtol=1e-6, atol=0)
    assert np.allclose(alone["validations"], other["validations"], rtol=0, atol=1e-5)
    assert distance(alone, other, "gradient") < 1e-6
    assert distance(alone, other, "weight") < 1e-5
    # key.bias has no true gradient: Adam makes steps of size lr out of rounding, at most 20 each way.
    for key in names_of(alone, "weight"):
        assert np.abs(alone[key] - other[key]).max() < 2 * STEPS * RATE, key


@pytest.mark.dist
@pytest.mark.parametrize("engine", STAGES)
def test_bf16_differs_from_ddp_by_the_rounding_of_products(outcomes: dict[str, Outcome], engine: str) -> None:
    """Products are rounded to 8 bits (2⁻⁹ of their size), and a sum in another order is rounded elsewhere: losses agree
    to about 2⁻⁹ of 5.5 nats, gradients to a few 2⁻⁹ of their norm. Adam makes steps of up to the learning rate,
    whatever the size of the gradient, so weights may differ by some of the 20 steps if a gradient is only rounding.
    """
    one, other = outcomes["2-ddp-bf16"], outcomes[f"2-{engine}-bf16"]
    assert np.abs(one["losses"] - other["losses"]).max() < 5e-3
    assert np.allclose(one["norms"], other["norms"], rtol=1e-2, atol=0)
    assert distance(one, other, "gradient") < 2e-2
    assert distance(one, other, "weight") < 5 * RATE
    assert np.abs(outcomes["2-ddp"]["losses"] - other["losses"]).max() < 5e-3
    assert not np.array_equal(outcomes["2-ddp"]["losses"], other["losses"])


@pytest.mark.dist
@pytest.mark.parametrize("engine", ["zero1", "zero2", "zero3"])
def test_bf16_weights_have_exact_master_weights(outcomes: dict[str, Outcome], engine: str) -> None:
    """Bounds as for bf16, with sums of gradients rounded too."""
    one, other = outcomes["2-ddp-weights"], outcomes[f"2-{engine}-weights"]
    assert len(one["losses"]) == FEW
    assert np.abs(one["losses"] - other["losses"]).max() < 1e-2
    assert np.allclose(one["norms"], other["norms"], rtol=2e-2, atol=0)
    assert distance(one, other, "weight") < 10 * RATE


@pytest.mark.dist
@pytest.mark.parametrize("engine", ["ddp", "zero0", "zero1", "zero3"])
def test_fp16_equals_fp32_except_for_rounding_at_any_loss_scale(outcomes: dict[str, Outcome], engine: str) -> None:
    """Numbers keep 11 bits: losses of 5.5 nats agree to about 2⁻¹² of that, and so do norms. A norm that is not finite
    marks a step that was skipped because the loss scale was too large: the runs diverge there."""
    other = outcomes[f"2-{engine}-fp16"]
    losses, norms = (outcomes["2-ddp"][kind][:FEW] for kind in ("losses", "norms"))
    finite = np.isfinite(other["norms"])
    alike = FEW if finite.all() else int(finite.argmin())
    assert alike >= FEW - 3 and finite.sum() >= FEW - 2
    assert np.abs(losses - other["losses"])[:alike].max() < 2e-3
    assert np.allclose(norms[:alike], other["norms"][:alike], rtol=2e-3, atol=0)
    assert np.abs(losses - other["losses"]).max() < 2e-2


@pytest.mark.dist
def test_no_engine_changes_the_weights_before_the_first_step(outcomes: dict[str, Outcome]) -> None:
    """DeepSpeed's own bf16 and fp16 optimizers take an Adam step at ZeRO 0 when they are constructed, and its master
    weights start as rounded weights: neither happens here."""
    first = outcomes["1-ddp"]
    for name, outcome in outcomes.items():
        if "restart" not in name:
            assert all(np.array_equal(first[key], outcome[key]) for key in names_of(first, "initial")), name
    # Nor is a step hidden in Adam's moments: in bf16 and fp16, where only the optimizer differs, the difference after
    # 20 steps is far less than one step.
    for precision in ("bf16", "fp16"):
        assert distance(outcomes[f"2-ddp-{precision}"], outcomes[f"2-zero0-{precision}"], "weight") < RATE / 5


@pytest.mark.dist
@pytest.mark.parametrize("engine", ["ddp", "zero0", "zero2", "zero3"])
def test_clipping_uses_our_norm_and_reports_the_one_before(outcomes: dict[str, Outcome], engine: str) -> None:
    free, clipped = outcomes[f"2-{engine}"], outcomes[f"2-{engine}-clipped"]
    assert free["norms"][0] > 0.5 and clipped["norms"][0] == pytest.approx(free["norms"][0], rel=1e-6)
    assert np.abs(outcomes["2-ddp-clipped"]["losses"] - clipped["losses"]).max() < 1e-5
    assert not np.allclose(free["losses"][:FEW], clipped["losses"], rtol=0, atol=1e-5)


@pytest.mark.dist
@pytest.mark.parametrize("case", KEPT)
def test_offloading_and_recomputation_change_nothing(outcomes: dict[str, Outcome], case: str) -> None:
    one, other = outcomes["2-ddp-parts"], outcomes[f"2-{case}"]
    assert np.abs(one["losses"][:FEW] - other["losses"]).max() < 1e-5
    assert np.allclose(one["norms"][:FEW], other["norms"], rtol=1e-6, atol=0)
    assert distance(outcomes["2-ddp-recomputed"], other, "weight") < 1e-5


@pytest.mark.dist
@pytest.mark.parametrize("case", FROZEN)
def test_frozen_weights_do_not_change(outcomes: dict[str, Outcome], case: str) -> None:
    outcome = outcomes[f"2-{case}"]
    names = [key.removeprefix("initial ") for key in names_of(outcome, "initial")]
    changed = {name for name in names if not np.array_equal(outcome[f"initial {name}"], outcome[f"weight {name}"])}
    assert changed == {"bert.embeddings.word_embeddings.weight"}


@pytest.mark.dist
@pytest.mark.parametrize("engine", ["ddp", "zero0", "zero2"])
def test_gradients_can_be_communicated_in_bf16(outcomes: dict[str, Outcome], engine: str) -> None:
    plain, compressed = outcomes[f"2-{engine}"], outcomes[f"2-{engine}-compressed"]
    for key in names_of(plain, "gradient"):
        # Each number has eight bits.
        assert np.array_equal(compressed[key], torch.from_numpy(compressed[key]).bfloat16().float().numpy()), key
    assert 1e-4 < distance(plain, compressed, "gradient") < 2**-7
    assert 0 < np.abs(plain["losses"][:FEW] - compressed["losses"]).max() < 1e-3


@pytest.mark.dist
def test_unsharded_gradients_are_communicated_once_per_step(outcomes: dict[str, Outcome]) -> None:
    """Also without `no_sync`, which ZeRO 2 and 3 reject: they communicate in every micro-batch."""
    for engine in ("zero0", "zero1"):
        whole, parts = (outcomes[f"2-{engine}{kind}"]["reductions"][5:] for kind in ("", "-parts"))
        assert whole.min() > 0 and np.array_equal(whole, parts)
    whole, parts = (outcomes[f"2-zero2{kind}"]["reductions"][5:] for kind in ("", "-parts"))
    assert (parts > whole).all()


@pytest.mark.dist
@pytest.mark.parametrize("parts", ["", "-parts"])
def test_a_run_restarted_in_the_middle_is_bit_identical(outcomes: dict[str, Outcome], parts: str) -> None:
    """On three ranks, where the order of a sum matters: DDP rebuilds its buckets in its first steps."""
    outcome = outcomes[f"3-restart{parts}"]
    names = [key.removeprefix("on ") for key in names_of(outcome, "on")]
    assert len(names) > 100 and all(np.array_equal(outcome[f"on {name}"], outcome[f"again {name}"]) for name in names)

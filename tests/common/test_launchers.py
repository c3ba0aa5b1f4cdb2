"""Ranks as DeepSpeed's launcher and Slurm tell them, in torchrun's variables."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.common.launchers import first_node, set_torchrun_variables, tasks_of_nodes
from bert_tweets.distributed.world import world_from_environment
from tests.processes import ROOT

TASK = {
    "SLURM_JOB_ID": "71234",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NUM_TASKS": "10",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),2",
    "SLURM_STEP_NODELIST": "gpu[007-008,011]",
}
# An environment in which nobody has started several processes.
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT", *TASK)


def spoken(environment: dict[str, str]) -> dict[str, str]:
    """The variables that are added."""
    whole = dict(environment)
    set_torchrun_variables(whole)
    assert environment.items() <= whole.items()
    return {name: value for name, value in whole.items() if name not in environment}


def test_a_task_of_slurm_is_a_rank() -> None:
    assert spoken(TASK) == {
        "RANK": "9",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "10",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "gpu007",
        "MASTER_PORT": "21236",
    }


def test_what_is_set_stays() -> None:
    assert spoken({**TASK, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "5"}).keys().isdisjoint({"MASTER_ADDR"})
    # torchrun under srun.
    assert not spoken({**TASK, "RANK": "1", "WORLD_SIZE": "2"})


def test_a_batch_script_is_one_process_however_many_tasks_its_job_has() -> None:
    assert not spoken({"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"})
    assert not spoken({**TASK, "SLURM_STEP_NUM_TASKS": "1"})


def test_deepspeed_calls_the_ranks_of_a_machine_otherwise() -> None:
    assert spoken({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_SIZE": "2"}) == {"LOCAL_WORLD_SIZE": "2"}
    assert not spoken({"RANK": "3", "LOCAL_SIZE": "2", "LOCAL_WORLD_SIZE": "4"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("login1", "login1"),
        ("gpu007,gpu009", "gpu007"),
        ("gpu[007-010,12],login1", "gpu007"),
        ("rack[2-3]n[04,06]", "rack2n04"),
        ("a-b.example.org,c", "a-b.example.org"),
    ],
)
def test_the_first_of_a_list_of_nodes(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


@given(st.lists(st.integers(1, 64), min_size=1, max_size=30))
def test_tasks_of_nodes_are_read_as_slurm_writes_them(tasks: list[int]) -> None:
    runs = [(count, len(list(same))) for count, same in itertools.groupby(tasks)]
    written = ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in runs)
    assert tasks_of_nodes(written) == tasks


def test_ranks_that_cannot_find_each_other_get_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="rank 1 of 2 has no MASTER_ADDR and no MASTER_PORT") as caught:
        world_from_environment("cpu")
    assert "\n" not in str(caught.value)


def test_every_stage_hears_of_the_ranks() -> None:
    program = "import os; from bert_tweets.cli import main\ntry: main(['train', 'x'])\n" + (
        "finally: print(os.environ['RANK'], os.environ['WORLD_SIZE'])"
    )
    step = {**TASK, "PYTHONPATH": str(ROOT), "SLURM_LOCALID": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=step, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("error: 'x'")
    assert done.stdout == "9 10\n"

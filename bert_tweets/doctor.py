"""doctor: devices, versions and limits of this machine, what would stop a run, and what would slow it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bert_tweets.common.errors import UserError, run_entry
from bert_tweets.common.terminal import console

from .config import DoctorConfig, parser

if TYPE_CHECKING:
    from bert_tweets.diagnosis.allreduce_check import RankReport
    from bert_tweets.diagnosis.checks import Problem
    from bert_tweets.diagnosis.probe import Facts

_GIB = 2**30
_COMPARED = ("python", "torch", "transformers", "deepspeed", "pyarrow")


def stage(argv: list[str]) -> None:
    """Print facts and problems of this machine; under a launcher also check an all-reduce of all ranks.

    Raises:
        SystemExit: code 2, if something would stop a run.
    """
    config = parser.load(DoctorConfig, argv)
    from bert_tweets.diagnosis.checks import Problem, is_reporter, problems_of, problems_of_ranks, world_size
    from bert_tweets.diagnosis.probe import gather_facts

    facts = gather_facts(config, os.environ)
    problems, reports = problems_of(facts), list["RankReport"]()
    is_main = is_reporter(facts)
    if is_main:
        _show_facts(facts)
    launched = world_size(facts) > 1
    # Ranks that cannot start would only be waited for.
    if launched and not (is_main and any(problem.stops for problem in problems)):
        try:
            reports = _check_ranks(config, facts, problems)
            problems += problems_of_ranks(reports)
        except UserError as error:
            if not is_main:
                raise
            problems.append(Problem(True, str(error)))
    if not is_main:
        return
    if launched:
        _show_ranks(reports)
    _show_problems(problems)
    if any(problem.stops for problem in problems):
        raise SystemExit(2)


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _check_ranks(config: DoctorConfig, facts: Facts, problems: list[Problem]) -> list[RankReport]:
    from bert_tweets.diagnosis.allreduce_check import check_all_reduce
    from bert_tweets.distributed.world import world_from_environment

    versions = {name: facts.versions.get(name, "") for name in _COMPARED} | {"CUDA": facts.cuda, "NCCL": facts.nccl}
    found = [(one.stops, one.text) for one in problems]
    world = world_from_environment(config.device)
    return check_all_reduce(world, socket.gethostname(), versions, found, config.timeout)


def _show_facts(facts: Facts) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section, lines in _sections(facts):
        for number, (name, value) in enumerate(lines):
            table.add_row("" if number else section, name, escape(value))
        table.add_row()
    console(width=120).print(table)


def _sections(facts: Facts) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    units = ", ".join(facts.bf16_units) or "none"
    cpu = f"{facts.cores} usable core(s), {facts.memory / _GIB:.1f} GiB, bf16 units: {units}"
    gpus = [
        (f"GPU {number}", f"{gpu.name}, {gpu.memory / _GIB:.1f} GiB, compute capability {_dotted(gpu.capability)}")
        for number, gpu in enumerate(facts.gpus)
    ]
    yield "devices", [("CPU", cpu), *(gpus or [("GPU", "none that torch can use")])]
    versions = [
        (name, (facts.versions.get(name) or "not installed") + (f"  ({wanted} required)" if wanted else ""))
        for name, wanted in {**facts.required, "tokenizers": ""}.items()
    ]
    built = (("CUDA", facts.cuda), ("cuDNN", facts.cudnn), ("NCCL", facts.nccl))
    versions += [(name, value or "torch is built without it") for name, value in built]
    driver = f"{facts.driver.release}, up to CUDA {_dotted(facts.driver.cuda)}" if facts.driver else "none"
    yield "versions", [*versions, ("driver", driver)]
    shared = f"{facts.shared.free / _GIB:.1f} GiB of {facts.shared.total / _GIB:.1f} free" if facts.shared else "none"
    yield "limits", [("/dev/shm", shared), ("open files", f"{facts.files:,}" if facts.files else "any number")]
    yield "disks", [(name, f"{disk.free / _GIB:.1f} GiB free at {disk.path}") for name, disk in facts.disks.items()]
    yield "environment", list(facts.environment.items()) or [("", "no launcher; nothing is set for hub or network")]
    yield "network", [*facts.interfaces.items(), ("hostname", facts.address or "does not resolve")]


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _show_ranks(reports: Sequence[RankReport]) -> None:
    from bert_tweets.diagnosis.allreduce_check import bytes_per_second

    out = console(width=120)
    out.print("all-reduce", style="bold")
    if not reports:
        out.print("  not done")
        return
    for one in reports:
        sums = "WRONG" if one["wrong_sums"] else "right"
        out.print(
            f"  rank {one['rank']}: {one['host']}, {one['device']}, sums are {sums}", markup=False, soft_wrap=True
        )
    latency, seconds = max(one["latency"] for one in reports), max(one["bandwidth"] for one in reports)
    rate = bytes_per_second(seconds, len(reports)) / 1e9
    out.print(
        f"  4 bytes: {latency * 1e6:,.0f} µs; 25 MiB: {seconds * 1e3:,.1f} ms, {rate:.2f} GB/s on each rank's link"
    )


def _show_problems(problems: Sequence[Problem]) -> None:
    out = console(width=120)
    for stops, title in ((True, "what would stop a run"), (False, "what would slow it")):
        lines = [problem.text for problem in problems if problem.stops == stops]
        out.print(f"\n{title}: {len(lines) or 'nothing'}", style="bold red" if stops and lines else "bold")
        for line in lines:
            out.print(f"  {line}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

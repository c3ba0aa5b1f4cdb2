"""doctor: devices, versions and limits of this machine, what would stop a run, and what would slow it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bert_tweets.common.errors import UserError, run_entry
from bert_tweets.common.terminal import console

from .config import DoctorConfig, parser

if TYPE_CHECKING:
    from bert_tweets.diagnosis.checks import Finding
    from bert_tweets.diagnosis.probe import Facts

_GIB = 2**30
_COMPARED = ("python", "torch", "transformers", "deepspeed", "pyarrow")


def stage(argv: list[str]) -> None:
    """Looks around and tells; under a launcher the ranks also add up, and rank 0 tells of all.

    Raises:
        SystemExit: code 2, where something would stop a run.
    """
    config = parser.load(DoctorConfig, argv)
    from bert_tweets.diagnosis.checks import Finding, findings, of_ranks, tells, world_size
    from bert_tweets.diagnosis.probe import gather

    facts = gather(config, os.environ)
    found = findings(facts)
    is_main = tells(facts)
    if is_main:
        _show_facts(facts)
    reports: list[dict[str, Any]] = []
    launched = world_size(facts) > 1
    # What is wrong here already would only be waited for.
    if launched and not (is_main and any(finding.stops for finding in found)):
        try:
            reports = _together(config, facts, found)
            found += of_ranks(reports)
        except UserError as error:
            if not is_main:
                raise
            found.append(Finding(True, str(error)))
    if not is_main:
        return
    if launched:
        _show_ranks(reports)
    _show_findings(found)
    if any(finding.stops for finding in found):
        raise SystemExit(2)


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _together(config: DoctorConfig, facts: Facts, found: list[Finding]) -> list[dict[str, Any]]:
    from bert_tweets.diagnosis.allreduce_check import trial
    from bert_tweets.distributed.world import world_from_environment

    versions = {name: facts.versions.get(name, "") for name in _COMPARED} | {"CUDA": facts.cuda, "NCCL": facts.nccl}
    about = {"host": socket.gethostname(), "versions": versions, "findings": [(one.stops, one.text) for one in found]}
    return trial(world_from_environment(config.device), about, config.timeout)


def _show_facts(facts: Facts) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for place, (section, lines) in enumerate(_sections(facts)):
        if place:
            table.add_row()
        for number, (what, value) in enumerate(lines):
            table.add_row("" if number else section, what, escape(value))
    console(width=120).print(table)


def _show_findings(found: list[Finding]) -> None:
    out = console(width=120)
    for stops, title in ((True, "what would stop a run"), (False, "what would slow it")):
        lines = [finding.text for finding in found if finding.stops == stops]
        out.print(f"\n{title}: {len(lines) or 'nothing'}", style="bold red" if stops and lines else "bold")
        for line in lines:
            out.print(f"  {line}", markup=False, soft_wrap=True)


def _sections(facts: Facts) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    from bert_tweets.diagnosis.checks import networks

    units = ", ".join(facts.bf16_units) or "none"
    cpu = f"{facts.cores} core(s) usable, {facts.memory / _GIB:.1f} GiB, units for bf16: {units}"
    gpus = [
        (
            f"GPU {number}",
            f"{gpu.name}, {gpu.memory / _GIB:.1f} GiB, compute capability {gpu.capability[0]}.{gpu.capability[1]}, "
            f"bf16: {'yes' if gpu.capability >= (8, 0) else 'no'}",
        )
        for number, gpu in enumerate(facts.gpus)
    ]
    yield "devices", [("CPU", cpu), *(gpus or [("GPU", "none that torch can use")])]
    versions = [
        (name, f"{facts.versions.get(name) or 'not installed'}" + (f"  ({asked} asked)" if asked else ""))
        for name, asked in {**facts.asked, "tokenizers": ""}.items()
    ]
    driver = f"{facts.driver.release}, CUDA {facts.driver.cuda[0]}.{facts.driver.cuda[1]}" if facts.driver else "none"
    built = (("CUDA", facts.cuda), ("cuDNN", facts.cudnn), ("NCCL", facts.nccl))
    yield (
        "versions",
        [*versions, *((name, value or "torch is built without") for name, value in built), ("driver", driver)],
    )
    shared = f"{facts.shared.free / _GIB:.1f} GiB of {facts.shared.total / _GIB:.1f} free" if facts.shared else "none"
    yield "limits", [("/dev/shm", shared), ("open files", f"{facts.files:,}" if facts.files else "any number")]
    yield "disks", [(name, f"{disk.free / _GIB:.1f} GiB free at {disk.path}") for name, disk in facts.disks.items()]
    yield "environment", list(facts.environment.items()) or [("", "no launcher; nothing is set for hub or network")]
    used = [(f"{library} takes", name) for library, name in networks(facts).items()]
    yield "network", [*facts.interfaces.items(), ("hostname", facts.address or "does not resolve"), *used]


def _show_ranks(reports: list[dict[str, Any]]) -> None:
    from bert_tweets.diagnosis.allreduce_check import SIZES, bandwidth

    out = console(width=120)
    out.print("\nall-reduce", style="bold")
    if not reports:
        out.print("  not done")
        return
    for one in reports:
        sums = "WRONG" if one["wrong"] else "right"
        out.print(
            f"  rank {one['rank']}: {one['host']}, {one['device']}, sums are {sums}", markup=False, soft_wrap=True
        )
    latency, seconds = (max(one[name] for one in reports) for name in SIZES)
    size, rate = 4 * SIZES["bandwidth"][0] // 2**20, bandwidth(seconds, len(reports)) / 1e9
    out.print(
        f"  4 bytes: {latency * 1e6:,.0f} µs; {size} MiB: {seconds * 1e3:,.1f} ms, {rate:.2f} GB/s on a rank's link"
    )


if __name__ == "__main__":
    main()

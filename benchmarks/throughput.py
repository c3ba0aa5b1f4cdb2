"""Our training step beside Hugging Face's Trainer on the same rows of the same shards, turn by turn.

    python -m benchmarks.throughput shards=shards/ model=FOLDER [key=value ...]

seconds            of a timed turn [20]
turns              of each party; they alternate, so that noise meets all [2]
precision          auto, or a list such as bf16,fp32; auto: bf16,fp32 on a CPU, bf16 on a GPU
tokens_per_device  of our micro-batch; 0: the sweep's best, else 4,096 on a CPU and 65,536 on a GPU
attention          our backend; auto: the sweep's best, else the tool's choice
batch_tweets       tweets of our step; 0: one full micro-batch a rank
references         true, false, or some of trainer_rows,trainer_concatenated,trainer_tuned,flash_padding_free
batches            rows of a reference's batch to try, such as 64,256; empty: a ladder for each
sweep              true: our step over backends, precisions and tokens a device
fits               true: tokens that fit on the GPU; on a CPU, peak memory at equal tokens
compare            false: nothing beside the references, for a sweep or `fits` alone
within             seconds; by half of them no further batches are tried, by two thirds the sweep ends; 0: no limit
ranks              processes of each party [1]
device             auto, cpu or cuda
output             of results, without suffix; empty: benchmarks/results/throughput-{cpu|gpu}

Rates count real tokens alone, and each step holds its optimizer step. MFU is what the model needs for its real tokens
(`bert_tweets.training.flops`; the same for all) over the matrix peak. Each party runs in processes of its own. Peak
memory is what torch allocated on a GPU, and on a CPU how far the process grew from before it loaded the model.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import throughput_report
from benchmarks.common import command_of, machine, words_of, write_rows
from benchmarks.throughput_fits import largest_that_fits
from benchmarks.throughput_parties import FailedError, Party, SkippedError, Timed

OURS = "bert_tweets"
TOKENS = {"cpu": 4096, "gpu": 65_536}
TOKENS_LADDER = {"cpu": (2048, 4096, 16_384), "gpu": (16_384, 65_536, 131_072, 262_144)}
PRECISIONS = {"cpu": ("bf16", "bf16_weights", "fp32"), "gpu": ("bf16", "bf16_weights", "fp16", "tf32", "fp32")}
COMPARED = {"cpu": ("bf16", "fp32"), "gpu": ("bf16",)}
# Rows of a batch: tweets, or concatenated rows; the likely best first.
BATCHES: dict[str, dict[str, tuple[int, ...]]] = {
    "cpu": {"trainer_rows": (32, 64), "trainer_concatenated": (32, 16), "trainer_tuned": (128, 64)},
    "gpu": {
        "trainer_rows": (256, 1024, 64),
        "trainer_concatenated": (256, 512, 64),
        "trainer_tuned": (1024, 256),
        "flash_padding_free": (1024, 2048, 256),
    },
}
# torch.compile meets most of its shapes within these.
WARM = {"cpu": 1, "gpu": 8}
EQUAL_TOKENS = 4096


class Benchmark:
    """A run of the benchmark: its settings, its parties, and the rows that it has found so far.

    Args:
        words: `key=value`.
    """

    def __init__(self, words: list[str]):
        self.given = words_of(
            words,
            shards="",
            model="",
            seconds=20.0,
            turns=2,
            precision="auto",
            tokens_per_device=0,
            attention="auto",
            batch_tweets=0,
            references="true",
            batches="",
            sweep="true",
            fits="true",
            compare="true",
            within=0.0,
            ranks=1,
            device="auto",
            output="",
        )
        if not self.given["shards"] or not self.given["model"]:
            raise SystemExit("shards= and model= are needed")
        self.shards, self.model = (str(Path(self.given[name]).resolve()) for name in ("shards", "model"))
        self.command = command_of("throughput", words)
        self.begun, self.rows = time.monotonic(), list[dict[str, Any]]()
        self.ours = Party("throughput_ours", self.shards, self.given["device"], self.given["ranks"])
        self.peaks: dict[str, dict[str, float]] = {}
        self.built: dict[str, Any] = {}
        self.grown = False  # something has been built in the process of ours

    def run(self) -> None:
        """Everything that was asked for; rows are written as they are found."""
        asked = self.given["precision"]
        self.peak("bf16" if asked == "auto" else asked.split(",")[0])
        hello = dict(self.ours.hello)
        self.kind, self.memory = hello["kind"], hello.get("memory_bytes", 0)
        self.machine = machine() | ({"device": hello["device"]} if "device" in hello else {})
        self.output = self.given["output"] or f"benchmarks/results/throughput-{self.kind}"
        self.precisions = COMPARED[self.kind] if asked == "auto" else tuple(asked.split(","))
        self.best = {
            "tokens_per_device": self.given["tokens_per_device"] or TOKENS[self.kind],
            "model.attention": self.given["attention"],
        }
        if self.given["sweep"] == "true":
            self.sweep()
        if self.given["compare"] == "true":
            for precision in self.precisions:
                self.compare(precision)
        if self.given["fits"] == "true":
            (self.fit if self.kind == "gpu" else self.equal_tokens)()
        self.ours.close()
        throughput_report.picture(self.rows, self.output)

    def modes(self) -> tuple[str, ...]:
        """The references that are asked for."""
        asked = self.given["references"]
        every = tuple(BATCHES["gpu"])
        return {"true": every, "false": ()}.get(asked) or tuple(mode for mode in asked.split(",") if mode in every)

    def late(self, share: float) -> bool:
        """Whether that share of the time is over."""
        limit = self.given["within"]
        return bool(limit) and time.monotonic() > self.begun + share * limit

    # Our step

    def settings(self, precision: str, **other: Any) -> dict[str, Any]:
        given = {"model": self.model, "precision": precision, "batch_tweets": self.given["batch_tweets"]}
        return {**given, **self.best, **other}

    def build_ours(self, precision: str, **other: Any) -> dict[str, Any]:
        """Builds our step, and its columns of a row."""
        settings = self.settings(precision, **other)
        if self.kind == "cpu" and self.grown:
            self.ours.close()  # how far a process grows shows in a fresh one
            self.grown = False
        self.peak(precision)
        self.built = self.ours.build(**settings)
        self.grown = True
        return {
            "attention": self.built["attention"],
            "tokens_per_device": settings["tokens_per_device"],
            "batch_tweets": self.built["batch_tweets"],
        }

    def peak(self, precision: str) -> None:
        """Measures the matrix peaks again; the highest counts, for other work of the machine only lowers them."""
        before, now = self.peaks.get(precision, {}), self.ours.ask(peaks=precision)
        self.peaks[precision] = {name: max(value, before.get(name, 0.0)) for name, value in now.items()}

    def sweep(self) -> None:
        """Our step by backend, then by precision, then by tokens a device, each at the best of those before."""
        precision = self.precisions[0]
        found = self.short("backend", precision)
        others = [name for name in self.built.get("backends", []) if found and name != found["attention"]]
        ways = [found, *(self.short("backend", precision, **{"model.attention": name}) for name in others)]
        if self.given["attention"] == "auto":
            self.best["model.attention"] = _fastest(ways, "attention", self.best["model.attention"])
        sizes = [size for size in TOKENS_LADDER[self.kind] if size != self.best["tokens_per_device"]]
        if not self.given["tokens_per_device"]:
            ways += [self.short("tokens", precision, tokens_per_device=size) for size in sizes]
            self.best["tokens_per_device"] = _fastest(ways, "tokens_per_device", self.best["tokens_per_device"])
        for other in PRECISIONS[self.kind]:
            if other != precision:
                self.short("precision", other)

    def short(self, what: str, precision: str, **other: Any) -> dict[str, Any] | None:
        """A row of the sweep; None when that cannot be run, or time is up."""
        if self.late(2 / 3):
            return None
        about = {"who": OURS, "kind": "sweep", "sweep": what, "precision": precision, **_plain(other)}
        try:
            about |= self.build_ours(precision, **other)
            timed = Timed(self.ours, WARM[self.kind])
            timed.turn(self.given["seconds"] / 4)
        except FailedError as reason:
            self.add(about, skipped=str(reason))
            return None
        return self.add(about, timed.summary())

    # Beside the references

    def compare(self, precision: str) -> None:
        """Ours and each reference, turn by turn, each at its best batch."""
        about = {"who": OURS, "kind": "comparison", "precision": precision}
        parties: list[tuple[dict[str, Any], Timed]] = []
        references = [(mode, self.reference_party()) for mode in self.modes() if self.can_run(mode, precision)]
        self.ours.start()
        try:
            about |= self.build_ours(precision)
            parties.append((about, Timed(self.ours, WARM[self.kind])))
        except FailedError as reason:
            self.add(about, skipped=str(reason))
        for mode, party in references:
            found = self.reference(mode, party, precision)
            if found:
                parties.append(found)
        for _ in range(self.given["turns"]):
            for _, timed in parties:
                timed.turn(self.given["seconds"])
        if self.built:
            self.peak(precision)
        for about, timed in parties:
            ours = timed.party is self.ours
            parts = {"milliseconds_by_part": timed.party.ask(parts=3)} if ours else {}
            self.add(about, {**timed.summary(), **parts})
            if not ours:
                timed.party.close()

    def reference(self, mode: str, party: Party, precision: str) -> tuple[dict[str, Any], Timed] | None:
        """A reference at the best of some batch sizes, ready for its turns; None when it cannot be run here."""
        given = self.given["batches"]
        sizes = tuple(int(size) for size in given.split(",")) if given else BATCHES[self.kind][mode]
        about: dict[str, Any] = {"who": mode, "precision": precision}
        rates: dict[int, float] = {}
        reason = ""
        try:
            for size in sizes if len(sizes) > 1 else ():
                if rates and self.late(1 / 2):
                    break
                try:
                    self.build_reference(party, mode, precision, size)
                    timed = Timed(party, WARM[self.kind])
                    timed.turn(self.given["seconds"] / 4)
                except SkippedError:
                    raise
                except FailedError as failure:
                    reason = str(failure)
                    self.add(about | {"kind": "ladder", "batch_rows": size}, skipped=reason)
                    continue
                row = self.add(about | {"kind": "ladder", "batch_rows": size}, timed.summary())
                rates[size] = row["tokens_per_second"]
            if len(sizes) > 1 and not rates:
                raise FailedError(reason)
            best = max(rates, key=lambda size: rates[size]) if rates else sizes[0]
            if self.kind == "cpu":
                party.close()
            about |= {"batch_rows": best, **self.build_reference(party, mode, precision, best)}
            return about | {"kind": "comparison"}, Timed(party, WARM[self.kind])
        except FailedError as failure:
            party.close()
            self.add(about | {"kind": "comparison"}, skipped=str(failure))
            return None

    def can_run(self, mode: str, precision: str) -> bool:
        """Whether this device has what a reference needs; a row says if not."""
        can = self.kind == "gpu" or mode in BATCHES["cpu"]
        if not can:
            about = {"who": mode, "kind": "comparison", "precision": precision}
            self.add(about, skipped="FlashAttention needs a GPU")
        return can

    def reference_party(self) -> Party:
        device = "cuda" if self.kind == "gpu" else "cpu"
        party = Party("throughput_references", self.shards, device, self.given["ranks"])
        party.start()
        return party

    def build_reference(self, party: Party, mode: str, precision: str, size: int) -> dict[str, Any]:
        built = party.build(mode=mode, model=self.model, batch=size, precision=precision)
        return {"attention": built["attention"]}

    # Memory

    def equal_tokens(self) -> None:
        """Peak memory of one step of about as many real tokens, ours and the references'."""
        precision = self.precisions[0]
        about = {"who": OURS, "kind": "equal_tokens", "precision": precision}
        try:
            about |= self.build_ours(precision, tokens_per_device=EQUAL_TOKENS, batch_tweets=0)
        except FailedError as failure:
            self.add(about, skipped=str(failure))
            return
        tweets, row_length = self.built["batch_tweets"] // self.given["ranks"], self.built["row_length"]
        self.add(about, _one_turn(self.ours))
        for mode in (mode for mode in self.modes() if mode in BATCHES["cpu"]):
            size: int = max(1, EQUAL_TOKENS // row_length) if mode == "trainer_concatenated" else tweets
            party = self.reference_party()
            row = {"who": mode, "kind": "equal_tokens", "precision": precision, "batch_rows": size}
            try:
                row |= self.build_reference(party, mode, precision, size)
                self.add(row, _one_turn(party))
            except FailedError as failure:
                self.add(row, skipped=str(failure))
            party.close()

    def fit(self) -> None:
        """The most tokens of a step that the GPU's memory holds: ours against Trainer's."""
        precision = self.precisions[0]
        about = {"who": OURS, "kind": "fits", "precision": precision}

        def ours(tokens: int) -> dict[str, Any]:
            self.build_ours(precision, tokens_per_device=tokens, batch_tweets=0)
            return self.ours.turn(2, 0)

        self.add(about, *largest_that_fits(ours, self.best["tokens_per_device"], self.memory))
        self.ours.close()  # all memory is the reference's now
        for mode in ("trainer_rows", "trainer_tuned"):
            if mode not in self.modes():
                continue
            party = self.reference_party()

            def reference(tokens: int, mode: str = mode, party: Party = party) -> dict[str, Any]:
                tweets = max(1, round(tokens / self.built["mean_length"]))
                self.build_reference(party, mode, precision, tweets)
                return party.turn(2, 0)

            found = largest_that_fits(reference, self.best["tokens_per_device"] // 4, self.memory)
            self.add({"who": mode, "kind": "fits", "precision": precision}, *found)
            party.close()

    def add(self, about: dict[str, Any], found: dict[str, Any] | None = None, skipped: str = "") -> dict[str, Any]:
        """A row of results in the house's schema; all rows are written again, so that a run cut short has left them."""
        rate = (found or {}).get("tokens_per_second")
        row = {
            "device": self.machine["device"],
            "ranks": self.given["ranks"],
            "model": Path(self.model).name,
            "engine": "ddp" if about["who"] == OURS else "trainer",
            "attention": None,
            "optimizer_included": True,
            "tokens_per_second": None,
            "mfu": None,
            "padding_fraction": None,
            "peak_memory_bytes": None,
            **about,
            **(found or {}),
            **({"flops_per_token": self.built.get("flops_per_token")} if rate else {}),
            **({"skipped": skipped} if skipped else {}),
            "versions": self.machine["versions"],
            "commit": self.machine["commit"],
            "command": self.command,
        }
        self.rows.append(row)
        for each in self.rows:
            self.utilise(each)
        print(throughput_report.line(row), file=sys.stderr, flush=True)
        write_rows(f"{self.output}.json", self.rows)
        throughput_report.write(self.rows, self.output)
        return row

    def utilise(self, row: dict[str, Any]) -> None:
        """MFU of a row, over the peaks that are known by now."""
        if not row.get("flops_per_token"):
            return
        # A GPU counts once for each rank; the ranks of a CPU share it.
        devices = self.given["ranks"] if self.kind == "gpu" else 1
        row |= self.peaks[row["precision"]]
        needed = row["tokens_per_second"] * row["flops_per_token"] / devices
        row |= {"mfu": needed / row["matrix_peak"], "mfu_of_measured_peak": needed / row["measured_peak"]}


def _one_turn(party: Party) -> dict[str, Any]:
    timed = Timed(party, 1)
    timed.turn(0)
    return timed.summary()


def _fastest(rows: list[dict[str, Any] | None], column: str, otherwise: Any) -> Any:
    """That column of the fastest row; of equals, and where nothing ran, what it was."""
    best = max((row for row in rows if row), key=lambda row: row["tokens_per_second"], default=None)
    return best[column] if best else otherwise


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as columns of a row."""
    return {key.removeprefix("model."): value for key, value in settings.items()}


def main(words: list[str]) -> None:
    benchmark = Benchmark(words)
    try:
        benchmark.run()
    finally:
        benchmark.ours.close()
    print(throughput_report.markdown(benchmark.rows))
    if not any(row.get("tokens_per_second") or row.get("tokens_that_fit") for row in benchmark.rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

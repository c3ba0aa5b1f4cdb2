"""Throughput of our training step and of Hugging Face's Trainer on the same rows of the same shards, in turns.

    python -m benchmarks.throughput shards=shards/ model=FOLDER [key=value ...]

seconds            duration of a timed turn [20]
turns              turns per contestant; they alternate, so that noise affects all alike [2]
precision          auto, or a list such as bf16,fp32; auto: bf16,fp32 on a CPU, bf16 on a GPU
tokens_per_device  tokens of our micro-batch; 0: the sweep's best, without a sweep 4,096 on a CPU and 65,536 on a GPU
attention          our attention backend; auto: the sweep's best, without a sweep train's default
batch_tweets       tweets of our step; 0: one full micro-batch per rank
references         true, false, or some of trainer_rows,trainer_concatenated,trainer_tuned,flash_padding_free
batches            batch sizes in rows to try for references, such as 64,256; empty: a few for each
sweep              true: time our step over backends, precisions and tokens per device
fits               true: find the tokens that fit into a GPU's memory; on a CPU, compare peak memory at equal tokens
compare            false: skip the comparison with the references, for a sweep or `fits` alone
within             time limit in seconds; after half of it no further batch sizes are tried, after two thirds the sweep
                   ends; 0: no limit
ranks              processes per contestant [1]
device             auto, cpu or cuda
output             path of the results without suffix; empty: benchmarks/results/throughput-{cpu|gpu}

Rates count real tokens only, and each step includes its optimizer step. MFU is the FLOPs that the model needs for its
real tokens (`bert_tweets.training.flops`, the same for all) over the matrix peak. Each contestant runs in processes of
its own. Peak memory is what torch allocated on a GPU; on a CPU, how far the process grew after loading its code.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import throughput_report
from benchmarks.common import Row, provenance, read_settings, write_rows
from benchmarks.throughput_fits import largest_that_fits
from benchmarks.worker_group import FailedError, SkippedError, TurnTimer, WorkerGroup, utilisation

OURS = "bert_tweets"
TOKENS = {"cpu": 4096, "gpu": 65_536}
TOKENS_LADDER = {"cpu": (2048, 4096, 16_384), "gpu": (16_384, 65_536, 131_072, 262_144)}
PRECISIONS = {"cpu": ("bf16", "bf16_weights", "fp32"), "gpu": ("bf16", "bf16_weights", "fp16", "tf32", "fp32")}
COMPARED = {"cpu": ("bf16", "fp32"), "gpu": ("bf16",)}
# Batch sizes in rows (tweets, or concatenated rows), the likely best first.
BATCHES: dict[str, dict[str, tuple[int, ...]]] = {
    "cpu": {"trainer_rows": (32, 64), "trainer_concatenated": (32, 16), "trainer_tuned": (128, 64)},
    "gpu": {
        "trainer_rows": (256, 1024, 64),
        "trainer_concatenated": (256, 512, 64),
        "trainer_tuned": (1024, 256),
        "flash_padding_free": (1024, 2048, 256),
    },
}
# Warm-up steps; torch.compile meets most shapes within them.
WARMUP = {"cpu": 1, "gpu": 8}
EQUAL_TOKENS = 4096


class Benchmark:
    """A run of the benchmark: its settings, workers and rows of results.

    Args:
        arguments: `key=value` arguments.
    """

    def __init__(self, arguments: list[str]):
        self.settings = read_settings(
            arguments,
            __doc__,
            ("shards", "model"),
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
        self.shards, self.model = (str(Path(self.settings[name]).resolve()) for name in ("shards", "model"))
        self.provenance = provenance("throughput", arguments)
        self.start, self.rows = time.monotonic(), list[Row]()
        self.ours = WorkerGroup("throughput_ours", self.shards, self.settings["device"], self.settings["ranks"])
        self.peaks: dict[str, dict[str, float]] = {}
        self.build_answer: Row = {}
        self.used = False  # whether our worker has built a training run

    def run(self) -> None:
        """Run everything that the settings request; each row is written at once."""
        precision = self.settings["precision"]
        self.measure_peak("bf16" if precision == "auto" else precision.split(",")[0])
        hello = dict(self.ours.hello)
        self.kind, self.memory = hello["kind"], hello.get("memory_bytes", 0)
        self.provenance |= {"device": hello["device"]} if "device" in hello else {}
        self.output = self.settings["output"] or f"benchmarks/results/throughput-{self.kind}"
        self.precisions = COMPARED[self.kind] if precision == "auto" else tuple(precision.split(","))
        self.best = {
            "tokens_per_device": self.settings["tokens_per_device"] or TOKENS[self.kind],
            "model.attention": self.settings["attention"],
        }
        if self.settings["sweep"] == "true":
            self.sweep()
        if self.settings["compare"] == "true":
            for precision in self.precisions:
                self.compare(precision)
        if self.settings["fits"] == "true":
            (self.fit if self.kind == "gpu" else self.equal_tokens)()
        self.ours.close()
        throughput_report.plot(self.rows, self.output)

    def modes(self) -> tuple[str, ...]:
        """The requested references."""
        value, modes = self.settings["references"], tuple(BATCHES["gpu"])
        return {"true": modes, "false": ()}.get(value) or tuple(mode for mode in value.split(",") if mode in modes)

    def late(self, share: float) -> bool:
        """Whether this share of the time limit has passed."""
        limit = self.settings["within"]
        return bool(limit) and time.monotonic() > self.start + share * limit

    # Our step

    def step_settings(self, precision: str, **overrides: Any) -> dict[str, Any]:
        own = {"model": self.model, "precision": precision, "batch_tweets": self.settings["batch_tweets"]}
        return {**own, **self.best, **overrides}

    def build_ours(self, precision: str, **overrides: Any) -> Row:
        """Build our step; return its columns of a row."""
        settings = self.step_settings(precision, **overrides)
        if self.kind == "cpu" and self.used:
            self.ours.close()  # peak memory on a CPU is how far a fresh process grows
            self.used = False
        self.measure_peak(precision)
        self.build_answer = self.ours.build(**settings)
        self.used = True
        return {
            "attention": self.build_answer["attention"],
            "tokens_per_device": settings["tokens_per_device"],
            "batch_tweets": self.build_answer["batch_tweets"],
        }

    def measure_peak(self, precision: str) -> None:
        """Measure the matrix peaks again and keep the highest, because other load only lowers them."""
        before, now = self.peaks.get(precision, {}), self.ours.request(peaks=precision)
        self.peaks[precision] = {name: max(value, before.get(name, 0.0)) for name, value in now.items()}

    def sweep(self) -> None:
        """Time our step by backend, then by tokens per device, then by precision, each at the best settings so far."""
        precision = self.precisions[0]
        first = self.time_briefly("backend", precision)
        others = [name for name in self.build_answer.get("backends", []) if first and name != first["attention"]]
        rows = [first, *(self.time_briefly("backend", precision, **{"model.attention": name}) for name in others)]
        if self.settings["attention"] == "auto":
            self.best["model.attention"] = _fastest(rows, "attention", self.best["model.attention"])
        sizes = [size for size in TOKENS_LADDER[self.kind] if size != self.best["tokens_per_device"]]
        if not self.settings["tokens_per_device"]:
            rows += [self.time_briefly("tokens", precision, tokens_per_device=size) for size in sizes]
            self.best["tokens_per_device"] = _fastest(rows, "tokens_per_device", self.best["tokens_per_device"])
        for other in PRECISIONS[self.kind]:
            if other != precision:
                self.time_briefly("precision", other)

    def time_briefly(self, changed: str, precision: str, **overrides: Any) -> Row | None:
        """Add a row of the sweep; None if the settings are not supported or the time limit is near."""
        if self.late(2 / 3):
            return None
        plain = {key.removeprefix("model."): value for key, value in overrides.items()}
        columns = {"who": OURS, "kind": "sweep", "sweep": changed, "precision": precision, **plain}
        try:
            columns |= self.build_ours(precision, **overrides)
            timer = TurnTimer(self.ours, WARMUP[self.kind])
            timer.turn(self.settings["seconds"] / 4)
        except FailedError as reason:
            self.add(columns, skipped=str(reason))
            return None
        return self.add(columns, timer.summary())

    # Comparison with the references

    def compare(self, precision: str) -> None:
        """Time ours and each reference in turns, each at its best batch size."""
        columns: Row = {"who": OURS, "kind": "comparison", "precision": precision}
        contestants: list[tuple[Row, TurnTimer, WorkerGroup]] = []
        references = [(mode, self.start_reference()) for mode in self.modes() if self.can_run(mode, precision)]
        self.ours.start()
        try:
            columns |= self.build_ours(precision)
            contestants.append((columns, TurnTimer(self.ours, WARMUP[self.kind]), self.ours))
        except FailedError as reason:
            self.add(columns, skipped=str(reason))
        for mode, workers in references:
            ready = self.prepare_reference(mode, workers, precision)
            if ready:
                contestants.append((*ready, workers))
        for _ in range(self.settings["turns"]):
            for _, timer, _ in contestants:
                timer.turn(self.settings["seconds"])
        if self.build_answer:
            self.measure_peak(precision)
        for columns, timer, workers in contestants:
            ours = workers is self.ours
            phases = {"milliseconds_by_phase": workers.request(phases=3)} if ours else {}
            self.add(columns, {**timer.summary(), **phases})
            if not ours:
                workers.close()

    def prepare_reference(self, mode: str, workers: WorkerGroup, precision: str) -> tuple[Row, TurnTimer] | None:
        """Build a reference at the best of some batch sizes; None if it is not supported here."""
        batches = self.settings["batches"]
        sizes = tuple(int(size) for size in batches.split(",")) if batches else BATCHES[self.kind][mode]
        columns: Row = {"who": mode, "precision": precision}
        rates: dict[int, float] = {}
        reason = ""
        try:
            for size in sizes if len(sizes) > 1 else ():
                if rates and self.late(1 / 2):
                    break
                try:
                    self.build_reference(workers, mode, precision, size)
                    timer = TurnTimer(workers, WARMUP[self.kind])
                    timer.turn(self.settings["seconds"] / 4)
                except SkippedError:
                    raise
                except FailedError as failure:
                    reason = str(failure)
                    self.add(columns | {"kind": "ladder", "batch_rows": size}, skipped=reason)
                    continue
                row = self.add(columns | {"kind": "ladder", "batch_rows": size}, timer.summary())
                rates[size] = row["tokens_per_second"]
            if len(sizes) > 1 and not rates:
                raise FailedError(reason)
            best = max(rates, key=lambda size: rates[size]) if rates else sizes[0]
            if self.kind == "cpu":
                workers.close()
            columns |= {"batch_rows": best, **self.build_reference(workers, mode, precision, best)}
            return columns | {"kind": "comparison"}, TurnTimer(workers, WARMUP[self.kind])
        except FailedError as failure:
            workers.close()
            self.add(columns | {"kind": "comparison"}, skipped=str(failure))
            return None

    def can_run(self, mode: str, precision: str) -> bool:
        """Whether this device supports a reference; if not, add a row with the reason."""
        supported = self.kind == "gpu" or mode in BATCHES["cpu"]
        if not supported:
            columns = {"who": mode, "kind": "comparison", "precision": precision}
            self.add(columns, skipped="FlashAttention needs a GPU")
        return supported

    def start_reference(self) -> WorkerGroup:
        device = "cuda" if self.kind == "gpu" else "cpu"
        workers = WorkerGroup("throughput_references", self.shards, device, self.settings["ranks"])
        workers.start()
        return workers

    def build_reference(self, workers: WorkerGroup, mode: str, precision: str, size: int) -> Row:
        answer = workers.build(mode=mode, model=self.model, batch=size, precision=precision)
        return {"attention": answer["attention"]}

    # Memory

    def equal_tokens(self) -> None:
        """Measure the peak memory of one step with about equally many real tokens, for ours and the references."""
        precision = self.precisions[0]
        columns = {"who": OURS, "kind": "equal_tokens", "precision": precision}
        try:
            columns |= self.build_ours(precision, tokens_per_device=EQUAL_TOKENS, batch_tweets=0)
        except FailedError as failure:
            self.add(columns, skipped=str(failure))
            return
        tweets = self.build_answer["batch_tweets"] // self.settings["ranks"]
        rows = max(1, EQUAL_TOKENS // self.build_answer["row_length"])
        self.add(columns, _one_turn(self.ours))
        for mode in (mode for mode in self.modes() if mode in BATCHES["cpu"]):
            size: int = rows if mode == "trainer_concatenated" else tweets
            workers = self.start_reference()
            row = {"who": mode, "kind": "equal_tokens", "precision": precision, "batch_rows": size}
            try:
                row |= self.build_reference(workers, mode, precision, size)
                self.add(row, _one_turn(workers))
            except FailedError as failure:
                self.add(row, skipped=str(failure))
            workers.close()

    def fit(self) -> None:
        """Find the largest number of tokens per step that fits into the GPU's memory, for ours and Trainer."""
        precision = self.precisions[0]
        columns = {"who": OURS, "kind": "fits", "precision": precision}

        def ours(tokens: int) -> Row:
            self.build_ours(precision, tokens_per_device=tokens, batch_tweets=0)
            return self.ours.turn(2, 0)

        self.add(columns, *largest_that_fits(ours, self.best["tokens_per_device"], self.memory))
        self.ours.close()  # leaves all memory to the reference
        for mode in ("trainer_rows", "trainer_tuned"):
            if mode not in self.modes():
                continue
            workers = self.start_reference()

            def reference(tokens: int, mode: str = mode, workers: WorkerGroup = workers) -> Row:
                tweets = max(1, round(tokens / self.build_answer["mean_length"]))
                self.build_reference(workers, mode, precision, tweets)
                return workers.turn(2, 0)

            result = largest_that_fits(reference, self.best["tokens_per_device"] // 4, self.memory)
            self.add({"who": mode, "kind": "fits", "precision": precision}, *result)
            workers.close()

    def add(self, columns: Row, measured: Row | None = None, skipped: str = "") -> Row:
        """Add a row of results; all rows are written again, so that an interrupted run keeps them."""
        rate = (measured or {}).get("tokens_per_second")
        row = {
            "ranks": self.settings["ranks"],
            "model": Path(self.model).name,
            "engine": "ddp" if columns["who"] == OURS else "trainer",
            "attention": None,
            "optimizer_included": True,
            "tokens_per_second": None,
            "mfu": None,
            "padding_fraction": None,
            "peak_memory_bytes": None,
            **columns,
            **(measured or {}),
            **({"flops_per_token": self.build_answer.get("flops_per_token")} if rate else {}),
            **({"skipped": skipped} if skipped else {}),
            **self.provenance,
        }
        self.rows.append(row)
        for each in self.rows:
            self.add_mfu(each)
        print(throughput_report.line(row), file=sys.stderr, flush=True)
        write_rows(f"{self.output}.json", self.rows)
        throughput_report.write(self.rows, self.output)
        return row

    def add_mfu(self, row: Row) -> None:
        """Compute a row's MFU from the highest peaks measured so far."""
        if not row.get("flops_per_token"):
            return
        # Each rank has its own GPU, but all ranks share the CPU.
        devices = self.settings["ranks"] if self.kind == "gpu" else 1
        peak = self.peaks[row["precision"]]
        row |= peak | utilisation(row["tokens_per_second"] * row["flops_per_token"] / devices, peak)


def _one_turn(workers: WorkerGroup) -> Row:
    timer = TurnTimer(workers, 1)
    timer.turn(0)
    return timer.summary()


def _fastest(rows: list[Row | None], column: str, default: Any) -> Any:
    """The value of a column in the fastest row; the default if nothing ran."""
    best = max((row for row in rows if row), key=lambda row: row["tokens_per_second"], default=None)
    return best[column] if best else default


def main(arguments: list[str]) -> None:
    benchmark = Benchmark(arguments)
    try:
        benchmark.run()
    finally:
        benchmark.ours.close()
    print(throughput_report.markdown(benchmark.rows))
    if not any(row.get("tokens_per_second") or row.get("tokens_that_fit") for row in benchmark.rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The experiment of docs/answer.md: what each mistake of the posted training loop does.

    python -m benchmarks.answer data=everyday_en.csv.gz model=minilm-l6 topic=airline [key=value ...]

data                tweets, CSV with a column `text`
model               folder of a BERT; without a masked-LM head, it first gets one by training on other tweets
topic               tweets to adapt to: rows whose column `column` has this value; empty: random rows
column              name of that column [source]
work                folder for finished steps; rerun the same command to resume [a temporary folder]
seconds             stop after the step that exceeds this many seconds, with exit status 75; 0: no limit [0]
tweets              number of training tweets, used once, 20 per step [2000]
held_out            number of tweets for the held-out masked loss [1000]
general             number of other tweets for training the head [64000]
background          number of those that are embedded next to the query words [4000]
base_steps          steps of 128 tweets for training the head [500]
base_learning_rate  learning rate of those steps [3e-4]
seeds               seeds per arm [3]
padding_seeds       seeds of the arms that pad to 82 tokens, which take longest [1]
precision           bf16 or fp32 [bf16]
output              path of the results without suffix; .json and .png are written [benchmarks/results/answer]

Every arm starts from the same weights and takes the same tweets in the same number of steps. Its result is measured by
`bert_tweets.evaluate`: the same masked tokens of the same held-out tweets. `answer_arms.py` defines the arms.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import answer_plot
from benchmarks.common import ROOT, Row, markdown_table, provenance, read_settings, rows_of_kind

Step = tuple[str, Callable[[], list[Row]]]

_BASE_BATCH, _BASE_STEPS_PER_LAUNCH, _BATCH = 128, 60, 20
# Steps after which the held-out loss of a plain loop is measured.
_CURVE = (10, 25, 50)
OURS, LONGER = "bert_tweets", "bert_tweets, 3 epochs"


def stage(name: str, **settings: Any) -> None:
    """Run one stage of bert_tweets in this process, as its command would."""
    arguments = [f"{key}={value}" for key, value in settings.items()]
    print(f"\n$ python -m bert_tweets.{name} {' '.join(arguments)}", flush=True)
    import_module(f"bert_tweets.{name}").stage(arguments)


class Experiment:
    """The steps of the experiment, each run once; results stay in `work`.

    Args:
        settings: settings of the benchmark.
        work: folder for data, models and results of steps.
    """

    def __init__(self, settings: Row, work: Path):
        self.settings, self.work = settings, work
        self.base, self.study = work / "base" / "model", work / "study"

    def steps(self) -> Iterator[Step]:
        """Yield the name and function of each step, in order."""
        yield "tweets", self.tweets
        total = self.settings["base_steps"]
        for done in range(0, total, _BASE_STEPS_PER_LAUNCH):
            yield f"base-{min(done + _BASE_STEPS_PER_LAUNCH, total)}", self.train_base
        yield "references", self.references
        yield "padding", self.padding
        from benchmarks.answer_arms import ARMS

        for seed in range(self.settings["seeds"]):
            for arm in (OURS, *ARMS):
                if arm in ARMS and ARMS[arm].padding and seed >= self.settings["padding_seeds"]:
                    continue
                yield f"arm-{arm}-{seed}", lambda arm=arm, seed=seed: self.arm(arm, seed)  # type: ignore[misc]
            if seed == 0:
                yield "longer", lambda: self.arm(LONGER, 0)
                yield "occurrences", self.occurrences
                yield "movement", self.movement

    def tweets(self) -> list[Row]:
        from benchmarks.answer_tweets import write_tweets

        write_tweets(self.settings, self.work)
        held_out = self.settings["held_out"] / (self.settings["held_out"] + self.settings["tweets"])
        for name, fraction in (("general", 0.01), ("words", 0.01), ("study", held_out)):
            paths = {
                "input": self.work / f"{name}.csv",
                "output": self.work / name,
                "tokenizer": self.settings["model"],
            }
            stage("prepare", **paths, validation_fraction=fraction, text_column="text")
        return []

    def train_base(self) -> list[Row]:
        """Train the encoder's head for some steps; the next call resumes."""
        stage(
            "train",
            **{"data.path": self.work / "general", "model.name": self.settings["model"], "output": self.work / "base"},
            **{
                "max_steps": self.settings["base_steps"],
                "batch_size": _BASE_BATCH,
                "stop_after_steps": _BASE_STEPS_PER_LAUNCH,
            },
            **{"optimizer.learning_rate": self.settings["base_learning_rate"], "precision": self.settings["precision"]},
        )
        return []

    def references(self) -> list[Row]:
        """Measure the base model, and a model that knows only how frequent each token is."""
        from benchmarks import answer_measures

        unigram = self.work / "unigram"
        answer_measures.save_unigram(self.study, self.base, unigram)
        return [self._measure("base", 0, self.base), self._measure("unigram", 0, unigram)]

    def padding(self) -> list[Row]:
        from benchmarks import answer_measures

        return answer_measures.padding(self.study, self.base, self.settings["precision"])

    def arm(self, name: str, seed: int) -> list[Row]:
        """Train one arm from the base model and measure it."""
        folder = self.work / "arm"
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        ours = name in (OURS, LONGER)
        columns, curve = self._train_ours(name, seed, folder) if ours else self._train_plain(name, seed, folder)
        seconds = time.perf_counter() - start
        row = self._measure(name, seed, folder / "model") | columns | {"seconds": seconds, "curve": curve}
        if ours and seed == 0:
            self._adapted_model(name).parent.mkdir(exist_ok=True)
            shutil.move(folder / "model", self._adapted_model(name))
        return [row]

    def _train_ours(self, name: str, seed: int, folder: Path) -> tuple[Row, list[Row]]:
        stage(
            "train",
            **{"data.path": self.study, "model.name": self.base, "output": folder, "seed": seed, "batch_size": _BATCH},
            **{"epochs": 3 if name == LONGER else 1, "precision": self.settings["precision"]},
            # Only at the start and the end: the tweets that measure all arms must not choose the exported step.
            **{"validation.every_steps": 10**6},
        )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return {"steps": lines[-1]["step"], "losses": [[line["step"], line["loss_mean"]] for line in lines]}, []

    def _train_plain(self, name: str, seed: int, folder: Path) -> tuple[Row, list[Row]]:
        """Train a plain loop; for the first seed, also measure the held-out loss during training."""
        from benchmarks.answer_arms import ARMS, train

        curve: list[Row] = []

        def after_step(step: int, save: Callable[[Path], None]) -> None:
            if seed == 0 and step in _CURVE:
                shutil.rmtree(folder, ignore_errors=True)
                save(folder / "model")
                curve.append({"step": step, "loss": self._evaluate(folder / "model", False)["loss"]})

        columns, save = train(ARMS[name], self.study, self.base, seed, _BATCH, self.settings["precision"], after_step)
        shutil.rmtree(folder, ignore_errors=True)
        save(folder / "model")
        return columns, curve

    def _measure(self, name: str, seed: int, model: Path) -> Row:
        from benchmarks import answer_measures

        return {
            "kind": "arm",
            "who": name,
            "seed": seed,
            "masked": self._evaluate(model, seed == 0 and model != self.base),
            "copying": answer_measures.copying(self.study, model, self.settings["precision"]),
            "input_matrix_change": answer_measures.input_matrix_change(self.study, self.base, model),
        }

    def _evaluate(self, model: Path, compare_with_base: bool) -> Row:
        """Evaluate a model: loss and accuracy at masked tokens, and their difference from the base model's."""
        folder = self.work / "evaluation"
        shutil.rmtree(folder, ignore_errors=True)
        base = {"base": self.base} if compare_with_base else {}
        data = {"data.path": self.study, "precision": self.settings["precision"]}
        stage("evaluate", model=model, **base, output=folder, **data)
        metrics = json.loads((folder / "metrics.json").read_text())
        names = ("loss", "low", "high", "accuracy", "masked_tokens", "tweets")
        return {name: metrics["model"][name] for name in names} | {"difference_from_base": metrics["difference"]}

    def occurrences(self) -> list[Row]:
        from benchmarks import answer_words
        from benchmarks.answer_tweets import PROBES, USES

        words = answer_words.common_words(self.work / "words", 100, max(3, self.settings["background"] // 130))
        probes = [probe for probes_of_word in PROBES.values() for probe in probes_of_word]
        queries = list(dict.fromkeys([*USES, *probes, *words]))
        folder = self._embed("words", queries, model=self.base, include_text="true", max_occurrences=1000)
        return answer_words.occurrences(folder, self.base)

    def movement(self) -> list[Row]:
        from benchmarks import answer_words

        words = answer_words.common_words(self.study, 200, max(3, self.settings["tweets"] // 100))
        rows = []
        for name in (OURS, LONGER):
            model = self._adapted_model(name)
            folder = self._embed("study", words, model=model, base=self.base)
            rows.append({"who": name, **answer_words.movement(folder, words, model, self.base)})
        return rows

    def _adapted_model(self, name: str) -> Path:
        """The folder of an adapted model; its name has no comma, which would separate two models."""
        return self.work / "adapted" / name.replace(", ", "-").replace(" ", "-")

    def _embed(self, shards: str, words: list[str], **settings: Any) -> Path:
        folder = self.work / f"embedded-{shards}"
        shutil.rmtree(folder, ignore_errors=True)
        paths = {"words": json.dumps(words), "output": folder, "data.path": self.work / shards}
        sizes = {"max_occurrences": 300, "background_tweets": 500, "precision": self.settings["precision"]}
        stage("embed", **paths, **sizes | settings)
        return folder


def run(experiment: Experiment, seconds: float) -> list[Row]:
    """Run the steps that have no result yet; return the rows of all steps, in order.

    Raises:
        SystemExit: code 75, the time limit was reached before the last step.
    """
    start, rows = time.perf_counter(), []
    done = experiment.work / "done"
    done.mkdir(parents=True, exist_ok=True)
    for name, step in experiment.steps():
        file = done / f"{name}.json"
        if not file.exists():
            if seconds and time.perf_counter() - start > seconds:
                print(f"time limit reached before {name}; rerun the same command to resume")
                raise SystemExit(75)
            step_start = time.perf_counter()
            file.write_text(json.dumps(step()))
            print(f"== {name}: {time.perf_counter() - step_start:.1f} s", flush=True)
        rows += json.loads(file.read_text())
    return rows


def summary_table(rows: list[Row]) -> str:
    """The arms as a table: held-out masked loss and accuracy, and loss of copying; means over seeds."""
    cells = []
    arms = rows_of_kind(rows, "arm")
    for who in dict.fromkeys(row["who"] for row in arms):
        seeds = [row for row in arms if row["who"] == who]
        masked, accuracy = ([row["masked"][name] for row in seeds] for name in ("loss", "accuracy"))
        copying = [row["copying"]["loss"] for row in seeds]
        mean = [sum(values) / len(values) for values in (masked, accuracy, copying)]
        value_range = f"{min(masked):.2f} to {max(masked):.2f}"
        cells.append((who, str(len(seeds)), f"{mean[0]:.3f}", value_range, f"{mean[1]:.1%}", f"{mean[2]:.4f}"))
    return markdown_table(("arm", "seeds", "held-out masked loss", "range", "accuracy", "loss of copying"), cells)


def main(arguments: list[str]) -> None:
    settings = read_settings(
        arguments,
        __doc__,
        ("data", "model"),
        **{"data": "", "model": "", "topic": "", "column": "source", "work": "", "seconds": 0.0, "tweets": 2000},
        **{"held_out": 1000, "general": 64_000, "background": 4000, "base_steps": 500, "base_learning_rate": 3e-4},
        **{"seeds": 3, "padding_seeds": 1, "precision": "bf16", "output": "benchmarks/results/answer"},
    )
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(settings["work"] or temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = run(Experiment(settings, work), settings["seconds"])
    output = ROOT / settings["output"]
    reproducible = [argument for argument in arguments if argument.split("=")[0] not in ("work", "seconds")]
    header = {"kind": "about", **provenance("answer", reproducible)}
    _write(Path(f"{output}.json"), [header | {"settings": _recorded(settings)}, *rows])
    answer_plot.plot(rows, Path(f"{output}.png"))
    print(summary_table(rows))


def _write(path: Path, rows: list[Row]) -> None:
    """Write one row per line, because lists of losses are long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(_rounded(row), ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Round every number to five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def _recorded(settings: Row) -> Row:
    """The settings that determine the result, with paths shortened to their last part."""
    return {
        name: Path(value).name if name in ("data", "model") else value
        for name, value in settings.items()
        if name not in ("work", "seconds", "output")
    }


if __name__ == "__main__":
    main(sys.argv[1:])

"""The question that the project came from, answered by runs: what each mistake of the posted loop does.

    python -m benchmarks.answer data=everyday_en.csv.gz model=minilm-l6 topic=airline [key=value ...]

data        tweets, CSV with a column `text`
model       folder of a BERT; one without a masked-LM head is given one first, by training on other tweets
topic       the tweets to adapt to: rows whose column `column` holds this; empty: rows at random
column      that column [source]
work        folder that keeps what is done; the same command goes on from there [a temporary folder]
seconds     leave after so many seconds, with exit status 75, once a part is done; 0: never [0]
tweets      to train on, once, 20 a step [2000]
held_out    tweets for the masked loss [1000]
general     other tweets, for the head [64000]
background  of them are embedded beside the asked words [4000]
base_steps  steps of 128 tweets for the head [500]
base_rate   their learning rate [3e-4]
seeds       of each arm [3]
padded      seeds of those that pad to 82 tokens, which take longest [1]
precision   bf16 or fp32 [bf16]
output      without ending: .json and .png [benchmarks/results/answer]

Every arm begins with the same weights and takes the same tweets in the same number of steps. What each has learnt is
measured by `bert_tweets.evaluate`: the same masked tokens of the same held-out tweets. `answer_arms.py` says what each
arm does.
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

from benchmarks import answer_picture
from benchmarks.common import ROOT, command_of, machine, table, words_of

Row = dict[str, Any]
Part = tuple[str, Callable[[], list[Row]]]

_BASE_BATCH, _BASE_PIECE, _BATCH = 128, 60, 20
_CURVE = (10, 25, 50)
OURS, LONGER = "bert_tweets", "bert_tweets, 3 epochs"


def stage(name: str, **words: Any) -> None:
    """Runs one stage of the project in this process, as its command would."""
    print(f"\n$ python -m bert_tweets.{name} {' '.join(f'{key}={value}' for key, value in words.items())}", flush=True)
    import_module(f"bert_tweets.{name}").stage([f"{key}={value}" for key, value in words.items()])


class Answer:
    """All parts, each done once; what is done stays in `work`.

    Args:
        given: the settings.
        work: folder.
    """

    def __init__(self, given: Row, work: Path):
        self.given, self.work = given, work
        self.base, self.study = work / "base" / "model", work / "study"

    def parts(self) -> Iterator[Part]:
        """Name and function of each part, in order."""
        yield "tweets", self.tweets
        steps = self.given["base_steps"]
        for done in range(0, steps, _BASE_PIECE):
            yield f"base-{min(done + _BASE_PIECE, steps)}", self.train_base
        yield "references", self.references
        yield "padding", self.padding
        from benchmarks.answer_arms import ARMS

        for seed in range(self.given["seeds"]):
            for arm in (OURS, *ARMS):
                if arm in ARMS and ARMS[arm].padding and seed >= self.given["padded"]:
                    continue
                yield f"arm-{arm}-{seed}", lambda arm=arm, seed=seed: self.arm(arm, seed)  # type: ignore[misc]
            if seed == 0:
                yield "longer", lambda: self.arm(LONGER, 0)
                yield "occurrences", self.occurrences
                yield "movement", self.movement

    def tweets(self) -> list[Row]:
        from benchmarks.answer_tweets import write_tweets

        write_tweets(self.given, self.work)
        held_out = self.given["held_out"] / (self.given["held_out"] + self.given["tweets"])
        for name, fraction in (("general", 0.01), ("words", 0.01), ("study", held_out)):
            words = {"input": self.work / f"{name}.csv", "output": self.work / name, "tokenizer": self.given["model"]}
            stage("prepare", **words, validation_fraction=fraction, text_column="text")
        return []

    def train_base(self) -> list[Row]:
        """A piece of the training that gives the encoder its head."""
        stage(
            "train",
            **{"data.path": self.work / "general", "model.name": self.given["model"], "output": self.work / "base"},
            **{"max_steps": self.given["base_steps"], "batch_size": _BASE_BATCH, "stop_after_steps": _BASE_PIECE},
            **{"optimizer.learning_rate": self.given["base_rate"], "precision": self.given["precision"]},
        )
        return []

    def references(self) -> list[Row]:
        """The base itself, and one that knows nothing but how frequent each token is."""
        from benchmarks import answer_measures

        unigram = self.work / "unigram"
        answer_measures.save_unigram(self.study, self.base, unigram)
        return [self._scored("base", 0, self.base), self._scored("unigram", 0, unigram)]

    def padding(self) -> list[Row]:
        from benchmarks import answer_measures

        return answer_measures.padding(self.study, self.base, self.given["precision"])

    def arm(self, name: str, seed: int) -> list[Row]:
        """Trains one arm from the base, and measures it."""
        folder = self.work / "arm"
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        ours = name in (OURS, LONGER)
        about, curve = self._ours(name, seed, folder) if ours else self._plain(name, seed, folder)
        seconds = time.perf_counter() - begun
        row = self._scored(name, seed, folder / "model") | about | {"seconds": seconds, "curve": curve}
        if ours and seed == 0:
            self._kept(name).parent.mkdir(exist_ok=True)
            shutil.move(folder / "model", self._kept(name))
        return [row]

    def _ours(self, name: str, seed: int, folder: Path) -> tuple[Row, list[Row]]:
        stage(
            "train",
            **{"data.path": self.study, "model.name": self.base, "output": folder, "seed": seed, "batch_size": _BATCH},
            **{"epochs": 3 if name == LONGER else 1, "precision": self.given["precision"]},
            # At the start and at the end alone: no step is chosen by the tweets that all arms are measured by.
            **{"validation.every_steps": 10**6},
        )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return {"steps": lines[-1]["step"], "losses": [[line["step"], line["loss_mean"]] for line in lines]}, []

    def _plain(self, name: str, seed: int, folder: Path) -> tuple[Row, list[Row]]:
        """A plain loop; of the first seed also the held-out loss on the way."""
        from benchmarks.answer_arms import ARMS, train

        curve: list[Row] = []

        def look(step: int, save: Callable[[Path], None]) -> None:
            if seed == 0 and step in _CURVE:
                shutil.rmtree(folder, ignore_errors=True)
                save(folder / "model")
                curve.append({"step": step, "loss": self._evaluated(folder / "model", False)["loss"]})

        about, save = train(ARMS[name], self.study, self.base, seed, _BATCH, self.given["precision"], look)
        shutil.rmtree(folder, ignore_errors=True)
        save(folder / "model")
        return about, curve

    def _scored(self, name: str, seed: int, model: Path) -> Row:
        from benchmarks import answer_measures

        figures = self._evaluated(model, seed == 0 and model != self.base)
        return {
            "part": "arm",
            "who": name,
            "seed": seed,
            "masked": figures,
            "copying": answer_measures.copying(self.study, model, self.given["precision"]),
            "input_rows": answer_measures.moved_rows(self.study, self.base, model),
        }

    def _evaluated(self, model: Path, beside_base: bool) -> Row:
        """What evaluate says of a model: loss and accuracy at the masked tokens, and the difference to the base."""
        folder = self.work / "evaluation"
        shutil.rmtree(folder, ignore_errors=True)
        base = {"base": self.base} if beside_base else {}
        about = {"data.path": self.study, "precision": self.given["precision"]}
        stage("evaluate", model=model, **base, output=folder, **about)
        metrics = json.loads((folder / "metrics.json").read_text())
        names = ("loss", "low", "high", "accuracy", "masked_tokens", "tweets")
        return {name: metrics["model"][name] for name in names} | {"to_base": metrics["difference"]}

    def occurrences(self) -> list[Row]:
        from benchmarks import answer_words
        from benchmarks.answer_tweets import PROBES, USES

        words = answer_words.common_words(self.work / "words", 100, max(3, self.given["background"] // 130))
        asked = dict.fromkeys([*USES, *(probe for some in PROBES.values() for probe in some), *words])
        folder = self._embedded("words", list(asked), model=self.base, include_text="true", max_occurrences=1000)
        return answer_words.occurrences(folder, self.base)

    def movement(self) -> list[Row]:
        from benchmarks import answer_words

        words = answer_words.common_words(self.study, 200, max(3, self.given["tweets"] // 100))
        rows = []
        for name in (OURS, LONGER):
            model = self._kept(name)
            folder = self._embedded("study", words, model=model, base=self.base)
            rows.append({"who": name, **answer_words.movement(folder, words, model, self.base)})
        return rows

    def _kept(self, name: str) -> Path:
        """Where an adapted model stays; a comma would be read as two."""
        return self.work / "adapted" / name.replace(", ", "-").replace(" ", "-")

    def _embedded(self, shards: str, words: list[str], **about: Any) -> Path:
        folder = self.work / f"embedded-{shards}"
        shutil.rmtree(folder, ignore_errors=True)
        asked = {"words": json.dumps(words), "output": folder, "data.path": self.work / shards}
        sizes = {"max_occurrences": 300, "background_tweets": 500, "precision": self.given["precision"]}
        stage("embed", **asked, **sizes | about)
        return folder


def run(answer: Answer, seconds: float) -> list[Row]:
    """Does the parts that are not done yet; their rows in order.

    Raises:
        SystemExit: 75, the time is over and parts are left.
    """
    begun, rows = time.perf_counter(), []
    done = answer.work / "done"
    done.mkdir(parents=True, exist_ok=True)
    for name, part in answer.parts():
        file = done / f"{name}.json"
        if not file.exists():
            if seconds and time.perf_counter() - begun > seconds:
                print(f"time is over before {name}; the same command goes on")
                raise SystemExit(75)
            started = time.perf_counter()
            found = part()
            file.write_text(json.dumps(found))
            print(f"== {name}: {time.perf_counter() - started:.1f} s", flush=True)
        rows += json.loads(file.read_text())
    return rows


def shown(rows: list[Row]) -> str:
    """The arms as a table: masked held-out loss and accuracy, and the loss of copying; means over seeds."""
    cells = []
    arms = [row for row in rows if row["part"] == "arm"]
    for who in dict.fromkeys(row["who"] for row in arms):
        mine = [row for row in arms if row["who"] == who]
        masked, accuracy = ([row["masked"][name] for row in mine] for name in ("loss", "accuracy"))
        copying = [row["copying"]["loss"] for row in mine]
        mean = [sum(values) / len(values) for values in (masked, accuracy, copying)]
        spread = f"{min(masked):.2f} to {max(masked):.2f}"
        cells.append((who, str(len(mine)), f"{mean[0]:.3f}", spread, f"{mean[1]:.1%}", f"{mean[2]:.4f}"))
    return table(("arm", "seeds", "masked held-out loss", "range", "accuracy", "loss of copying"), cells)


def main(words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        print((__doc__ or "").strip())
        return
    given = words_of(
        words,
        **{"data": "", "model": "", "topic": "", "column": "source", "work": "", "seconds": 0.0, "tweets": 2000},
        **{"held_out": 1000, "general": 64_000, "background": 4000, "base_steps": 500, "base_rate": 3e-4, "seeds": 3},
        **{"padded": 1, "precision": "bf16", "output": "benchmarks/results/answer"},
    )
    for name in ("data", "model"):
        if not given[name] or not Path(given[name]).exists():
            raise SystemExit(f"error: {name}={given[name]}: no such path; give {name}=PATH (--help tells more)")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(given["work"] or temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = run(Answer(given, work), given["seconds"])
    output = ROOT / given["output"]
    kept = [word for word in words if word.split("=")[0] not in ("work", "seconds")]
    about = {"part": "about", **machine(), "command": command_of("answer", kept), "settings": _settings(given)}
    _write(Path(f"{output}.json"), [about, *rows])
    answer_picture.picture(rows, Path(f"{output}.png"))
    print(shown(rows))


def _write(path: Path, rows: list[Row]) -> None:
    """A row a line: losses are long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(_rounded(row), ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """With five digits of each figure."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def _settings(given: Row) -> Row:
    """All of them, paths by their last part."""
    hidden = ("work", "seconds", "output")
    return {
        name: Path(value).name if name in ("data", "model") else value
        for name, value in given.items()
        if name not in hidden
    }


if __name__ == "__main__":
    main(sys.argv[1:])

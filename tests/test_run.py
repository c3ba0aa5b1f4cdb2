"""run: a plan first, then each stage by the command that would run it alone."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from bert_tweets import run as run_stage
from bert_tweets.common import subprocesses
from bert_tweets.common.errors import UserError
from bert_tweets.config import RunConfig
from bert_tweets.run import Trial, plan, stages
from tests.helpers import generated_tweets, write_csv
from tests.processes import failure, run, stage, warm_commands
from tests.test_evaluate import export_scratch


def config_of(**more: object) -> RunConfig:
    return RunConfig(**{"input": ["a.csv"], "output": "study", "words": ["mask", "virus"], "device": "cpu", **more})  # type: ignore[arg-type]


TRIAL = Trial(rows=100_000, kept=0.9, tweets_per_second=10_000, tokens_per_tweet=20, tokens_per_second=2_000)


def test_the_plan_tells_steps_and_time_and_what_to_change() -> None:
    lines = plan(config_of(epochs=2, controls=0), TRIAL)
    # 90,000 tweets, of which a hundredth is held out, twice, in steps of 256.
    assert "697 steps" in lines[1] and "2.00 epochs" in lines[1]
    assert "30 min" in lines[2] and "prepare 9 s" in lines[2]
    assert "too long?" in lines[-1]
    steps = int(lines[-1].split("max_steps=")[1].split()[0])
    shorter = plan(config_of(max_steps=steps, controls=0), TRIAL)
    assert "too long?" not in shorter[-1] and "15 min" in shorter[2]
    # No more tweets are embedded than there are, whatever the controls.
    assert "embed 20 min" in plan(config_of(), TRIAL)[2] and "controls=" in lines[-1]


def test_commands_are_shown_as_one_would_type_them() -> None:
    for arguments in stages(config_of(words=["#metoo", "😷", "on the other hand"], max_steps=5)):
        typed = shlex.split(subprocesses.shell_line(arguments))
        assert [sys.executable, *typed[1:]] == arguments
    assert subprocesses.shell_line(subprocesses.command("train", ["a=b"], 8)) == (
        "torchrun --standalone --nproc_per_node=8 -m bert_tweets.train a=b"
    )


def test_what_words_are_compared_by_is_kept_by_prepare_and_given_to_embed() -> None:
    for by, kept in (("", None), ("month", None), ("party", "group_columns=party")):
        commands = {subprocesses.stage_of(arguments): arguments for arguments in stages(config_of(by=by))}
        assert [word for word in commands["prepare"] if word.startswith("group_columns")] == ([kept] if kept else [])
        assert [word for word in commands["embed"] if word.startswith("by=")] == ([f"by={by}"] if by else [])


def test_text_is_kept_and_shown_only_where_asked() -> None:
    for include_text in (False, True):
        commands = {
            subprocesses.stage_of(arguments): arguments for arguments in stages(config_of(include_text=include_text))
        }
        for stage_name in ("embed", "report"):
            assert f"include_text={str(include_text).lower()}" in commands[stage_name]


@pytest.fixture
def study(shards: Path, tmp_path: Path) -> list[str]:
    """The words of a small study with a tiny model."""
    model = export_scratch(tmp_path / "model", shards, 0)
    rows = [(str(number), text) for number, text in enumerate(generated_tweets(1500, seed=5))]
    source = write_csv(tmp_path / "tweets.csv", ["id", "tweet"], rows)
    words = "words=[mask,#metoo,zebra]"
    return [f"input={source}", f"output={tmp_path}/study", f"model={model}", words, "device=cpu", "precision=fp32"]


@pytest.mark.dist
@pytest.mark.slow
def test_the_full_pipeline_and_again(
    study: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warm_commands(monkeypatch)
    run_stage.stage([*study, "max_steps=6", "batch_size=32"])
    said = capsys.readouterr().out
    assert (
        said.index("plan: ")
        < said.index("$ python -m bert_tweets.prepare")
        < said.index("$ python -m bert_tweets.report")
    )
    folder = tmp_path / "study"
    names = {path.name for path in folder.iterdir()}
    made = {"methods.md", "references.bib", "reproduce.json", "pictures"}
    assert names == {"shards", "run", "eval", "words", "report.html", *made}
    summary = json.loads((folder / "words/summary.json").read_text())["words"]
    assert summary["mask"]["found"] > 0 and summary["zebra"]["found"] == 0
    assert "6 steps" in said
    # The stage's own command, as shown, finds its work done.
    shown = next(line for line in said.splitlines() if line.startswith("$ python -m bert_tweets.train"))
    again = run(shlex.split(shown[2:])[1:])
    assert again.returncode == 0 and "finished" in again.stdout


@pytest.mark.dist
@pytest.mark.soak
def test_a_few_tweets_and_other_words_end_in_a_report(study: list[str], tmp_path: Path) -> None:
    source = write_csv(tmp_path / "few.csv", ["text"], [[text] for text in generated_tweets(12)])
    words = [f"input={source}" if word.startswith("input=") else word for word in study]
    said = stage("run", *words).stdout
    assert "1.00 epochs" in said and "too few held-out tweets to evaluate" in said
    assert "was not evaluated" in (tmp_path / "study/report.html").read_text(encoding="utf-8")
    others = [word for word in words if not word.startswith("words=")]
    again = stage("run", *others, "words=virus").stdout
    assert "embedding again" in again and "already" in again
    assert set(json.loads((tmp_path / "study/words/summary.json").read_text())["words"]) == {"virus"}
    (tmp_path / "study" / "thesis.tex").write_text("all of it")
    assert "contains other files (thesis.tex)" in failure("run", *words)


@pytest.mark.dist
def test_a_mistake_shows_before_the_road_is_begun(study: list[str], tmp_path: Path) -> None:
    line = failure("run", *[word for word in study if not word.startswith("model=")], "model=./no/model")
    assert "./no/model: no such folder" in line
    assert "column" in failure("run", *study, "text_column=body")
    assert not (tmp_path / "study").exists()


def test_the_libraries_of_the_report_are_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(UserError, match="needs plotly"):
        run_stage.stage([f"input={tmp_path}/not-there.csv", f"output={tmp_path / 'study'}", "words=mask"])

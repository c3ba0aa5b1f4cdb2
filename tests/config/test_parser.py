"""Settings: text is literal, numbers are numbers, and all mistakes are reported at once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets import config
from bert_tweets.common.errors import UserError
from bert_tweets.config import parser

NEEDED = ["data.path=shards", "model.name=bert", "output=run"]
EMBED = ["data.path=shards", "model=m", "output=o"]
STAGES = [value for value in vars(config).values() if isinstance(value, type) and value.__name__.endswith("Config")]


def test_words_are_words() -> None:
    asked = "words=[no,on,007,#metoo,@user,null,1e3,true,😷,${x},a=b]"
    parsed = parser.load(config.EmbedConfig, [*EMBED, asked])
    assert parsed.words == ["no", "on", "007", "#metoo", "@user", "null", "1e3", "true", "😷", "${x}", "a=b"]
    assert parser.load(config.EmbedConfig, [*EMBED, "words=mask"]).words == ["mask"]


def test_words_are_words_in_yaml_too(tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"
    file.write_text("words: [no, on, 007, '#metoo', null, 1e3, '${x}', 'a, b']\n", encoding="utf-8")
    parsed = parser.load(config.EmbedConfig, [*EMBED, "--config", str(file)])
    assert parsed.words == ["no", "on", "007", "#metoo", "null", "1e3", "${x}", "a, b"]


def test_a_list_may_be_written_as_json() -> None:
    parsed = parser.load(config.EmbedConfig, [*EMBED, 'words=["1,000", "[UNK]", "mask"]'])
    assert parsed.words == ["1,000", "[UNK]", "mask"]
    assert f"words={parser.shown_value(parsed.words)}" in parser.overrides(parsed)
    for wrong in ("words=[love,rain", "words=love]", 'words=["a", 1]', 'words=["a"'):
        with pytest.raises(UserError, match="words="):
            parser.load(config.EmbedConfig, [*EMBED, wrong])


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "\\${oc.env:HOME}", "\\\\${x}", "ru${n", "a\\b"])
def test_nothing_is_looked_up(text: str) -> None:
    assert parser.load(config.ReportConfig, ["run=r", f"title={text}"]).title == text


def test_a_tilde_is_the_home_of_a_path() -> None:
    parsed = parser.load(config.TrainConfig, ["data.path=~/shards", "model.name=bert", "output=~/run"])
    assert (parsed.data.path, parsed.output) == (str(Path.home() / "shards"), str(Path.home() / "run"))


@given(st.floats(1e-9, 1e-3), st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_overrides_make_the_same_settings(rate: float, words: list[str]) -> None:
    trained = parser.load(config.TrainConfig, [*NEEDED, f"optimizer.learning_rate={rate!r}"])
    assert parser.load(config.TrainConfig, parser.overrides(trained)) == trained
    asked = config.EmbedConfig(model=["m"], words=words, output="o", data=config.DataConfig(path="p"))
    assert parser.load(config.EmbedConfig, parser.overrides(asked)) == asked


def test_numbers_are_read_by_the_type_of_their_field() -> None:
    parsed = parser.load(
        config.TrainConfig,
        [*NEEDED, "max_steps=1e3", "seed=9223372036854775807", "optimizer.learning_rate=1e-4", "data.verify=off"],
    )
    assert (parsed.max_steps, parsed.seed) == (1000, 2**63 - 1)
    assert parsed.optimizer.learning_rate == 1e-4 and parsed.data.verify is False
    assert parser.load(config.TrainConfig, [*NEEDED, "max_steps=null"]).max_steps is None


def test_layers_of_settings(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("batch_size: 32\nseed: 1\noptimizer: {learning_rate: 1e-4, weight_decay: 0.1}\n")
    second.write_text("seed: 2\noptimizer: {weight_decay: 0.2}\n")
    files = ["--config", str(first), f"--config={second}"]
    parsed = parser.load(config.TrainConfig, [*files, *NEEDED, "optimizer.weight_decay=0.3"])
    assert (parsed.batch_size, parsed.seed) == (32, 2)
    assert (parsed.optimizer.learning_rate, parsed.optimizer.weight_decay) == (1e-4, 0.3)
    assert parsed.precision == "bf16"


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optimiser: {learning_rate: 1}\nbatch_size: many\n")
    with pytest.raises(UserError) as caught:
        parser.load(
            config.TrainConfig,
            [
                "--config",
                str(file),
                "precision=bf61",
                "epochs=0",
                "seed=1.5",
                "masking.probability=nan",
                "optimizer=3",
                "x",
            ],
        )
    message = str(caught.value)
    for part in (
        f"optimiser.learning_rate (in {file}): no such key (did you mean 'optimizer.learning_rate'?)",
        f"batch_size (in {file})=many: is not a number",
        "precision=bf61: must be one of fp32, tf32, bf16, bf16_weights, fp16 (did you mean 'bf16'?)",
        "epochs=0: must be greater than 0",
        "seed=1.5: is not a whole number",
        "masking.probability=nan: is not a finite number",
        "optimizer: is a group",
        "'x': not understood",
        "output: is required",
        "data.path: is required",
    ):
        assert part in message


@pytest.mark.parametrize("words", [["--local_rank=3"], ["--local-rank=3"], ["--local_rank", "3"]])
def test_the_word_of_launchers_is_ignored(words: list[str]) -> None:
    assert parser.load(config.TrainConfig, [*words, *NEEDED]).output == "run"


@pytest.mark.parametrize("content", ["- a list\n", "{", "a: [1\n", "\x00"])
def test_a_file_that_holds_no_settings_is_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=r"bad\.yaml") as caught:
        parser.load(config.TrainConfig, ["--config", str(file)])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        parser.load(config.TrainConfig, ["--config", str(tmp_path / "none.yaml")])


@pytest.mark.parametrize("rate", ["1.1e-3", "1e-2"])
def test_a_high_learning_rate_has_to_be_insisted_on(rate: str) -> None:
    with pytest.raises(UserError, match="allow_high_learning_rate"):
        parser.load(config.TrainConfig, [*NEEDED, f"optimizer.learning_rate={rate}"])
    parser.load(
        config.TrainConfig, [*NEEDED, f"optimizer.learning_rate={rate}", "optimizer.allow_high_learning_rate=true"]
    )
    parser.load(config.TrainConfig, [*NEEDED, "optimizer.learning_rate=1e-3"])


def test_a_decay_of_its_own_is_for_the_schedule_that_has_one() -> None:
    decay = "schedule.decay_steps=100"
    assert parser.load(config.TrainConfig, [*NEEDED, "schedule.name=wsd", decay]).schedule.decay_steps == 100
    with pytest.raises(UserError, match=r"schedule\.decay_steps=100: schedule\.name=linear"):
        parser.load(config.TrainConfig, [*NEEDED, decay])


def test_a_phrase_in_quotes_is_the_phrase() -> None:
    parsed = parser.load(config.EmbedConfig, [*EMBED, 'words=[mask,"last night",5"]'])
    assert parsed.words == ["mask", "last night", '5"']


@given(
    words=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1), min_size=1),
    rate=st.floats(1e-9, 1e-3),
    seed=st.integers(0, 2**63 - 1),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], rate: float, seed: int
) -> None:
    file = tmp_path_factory.mktemp("dump") / "config.yaml"
    asked = config.EmbedConfig(model=["m"], words=words, output="o", data=config.DataConfig(path="p"), seed=seed)
    file.write_text(parser.dump(asked), encoding="utf-8")
    assert parser.load(config.EmbedConfig, ["--config", str(file)]) == asked
    trained = config.TrainConfig(output="o", data=config.DataConfig(path="p"), model=config.ModelConfig(name="b"))
    trained.optimizer.learning_rate = rate
    file.write_text(parser.dump(trained), encoding="utf-8")
    assert parser.load(config.TrainConfig, ["--config", str(file)]) == trained


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_every_setting_says_what_it_means(stage: type) -> None:
    for field in parser.fields_of(stage):
        assert field.metadata["meaning"], field.key
        if field.kind in (int, float) and field.default not in (None, 0) and "unit" in field.metadata:
            assert isinstance(field.metadata["unit"], str)
    assert dataclasses.is_dataclass(stage)


@pytest.mark.parametrize(
    "stage",
    [
        "prepare",
        "train",
        "evaluate",
        "embed",
        "analyze",
        "meaning-test",
        "export",
        "report",
        "run",
        "demo",
        "verify",
        "inspect",
        "doctor",
    ],
)
def test_help_lists_every_key_without_importing_torch(stage: str) -> None:
    program = (
        "import sys; from bert_tweets.cli import main\ntry: main(['{}', '--help'])\nfinally: print(sorted(sys.modules))"
    )
    code = program.format(stage)
    started = time.perf_counter()
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    seconds = time.perf_counter() - started
    text, _, modules = shown.rpartition("\n[")
    for field in parser.fields_of(getattr(config, f"{stage.title().replace('-', '')}Config")):
        assert field.key in text
    assert not any(f"'{name}'" in modules for name in ("torch", "transformers", "deepspeed"))
    # Well under half a second on a quiet machine; a test must bear a busy one.
    assert seconds < 5


def test_a_list_that_is_given_twice_is_reported_and_the_last_one_counts(capsys):
    given = ["output=out", "tokenizer=x", "seed=1", "seed=2"]
    found = parser.load(config.PrepareConfig, ["input=a.csv", *given, "input=b.csv"])
    assert (found.input, found.seed) == (["b.csv"], 2)
    assert capsys.readouterr().err.startswith(
        "warning: input is given more than once; only the last value is used. To use all, write"
    )


def test_a_mapping_is_text_as_it_stands(tmp_path: Path) -> None:
    given = [
        "lemmas={virus: [virus, viruses, #covid, @who, no], null: 007, 'a: b': [\"x, y\", don't]}",
        'patterns={covid: covid(-?19)?, long: "a{1,3}, b: \\d+", class: [a-z,:]+\\b, quote: "say ""no"""}',
    ]
    parsed = parser.load(config.EmbedConfig, [*EMBED, *given])
    assert parsed.lemmas == {
        "virus": ["virus", "viruses", "#covid", "@who", "no"],
        "null": ["007"],
        "a: b": ["x, y", "don't"],
    }
    assert parsed.patterns == {
        "covid": "covid(-?19)?",
        "long": "a{1,3}, b: \\d+",
        "class": "[a-z,:]+\\b",
        "quote": 'say "no"',
    }
    file = tmp_path / "words.yaml"
    file.write_text("lemmas:\n  virus: [virus, no, 007, null, '${x}']\n  on: off\npatterns: {'a.b': '\\d{2}'}\n")
    parsed = parser.load(config.EmbedConfig, [*EMBED, "--config", str(file)])
    assert parsed.lemmas == {"virus": ["virus", "no", "007", "null", "${x}"], "on": ["off"]}
    assert parsed.patterns == {"a.b": "\\d{2}"}


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(
    lambda text: text.strip()
)


@given(st.dictionaries(TEXTS, st.lists(TEXTS, min_size=1), max_size=3), st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_a_mapping_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, lemmas: dict[str, list[str]], patterns: dict[str, str]
) -> None:
    asked = config.EmbedConfig(
        model=["m"], words=["w"], output="o", data=config.DataConfig(path="p"), lemmas=lemmas, patterns=patterns
    )
    assert parser.load(config.EmbedConfig, parser.overrides(asked)) == asked
    file = tmp_path_factory.mktemp("dump") / "config.yaml"
    file.write_text(parser.dump(asked), encoding="utf-8")
    assert parser.load(config.EmbedConfig, ["--config", str(file)]) == asked


@pytest.mark.parametrize(
    "wrong",
    [
        "lemmas=virus",
        "lemmas={virus}",
        "lemmas={virus: [a}",
        "lemmas={virus: }",
        "lemmas={virus: []}",
        "lemmas={a: b, a: c}",
        'patterns={a: "b}',
        "patterns={a: (b}",
    ],
)
def test_a_mapping_that_is_none_is_one_line(wrong: str) -> None:
    with pytest.raises(UserError, match=wrong.partition("=")[0] + "=") as caught:
        parser.load(config.EmbedConfig, [*EMBED, wrong, "words=w"])
    assert "\n" not in str(caught.value)


def test_one_of_several_ways_to_ask_is_needed() -> None:
    assert parser.load(config.EmbedConfig, [*EMBED, "patterns={a: b}"]).words == []
    with pytest.raises(UserError, match=r"words: is required \(.*\), or words_file, or lemmas, or patterns"):
        parser.load(config.EmbedConfig, EMBED)

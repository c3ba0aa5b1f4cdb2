"""embed writes vectors in common formats, and the same bytes for the same seed."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from bert_tweets import analyze, embed
from bert_tweets.common.errors import UserError
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.model.loading import load_model
from bert_tweets.words.occurrences.find import open_corpus, tweet_columns
from bert_tweets.words.store.summary import read_summary
from tests.helpers import generated_tweets, make_shards, write_csv

WORDS = ["mask", "the internet", "😷", "#metoo", "@user", "no", "007", "nowhere"]


@pytest.fixture(scope="module")
def models(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models with different weights; the second is an encoder without a head."""
    manifest, tokenizer = Manifest.read(shards), load_tokenizer(str(shards / "tokenizer"))
    folders = tmp_path_factory.mktemp("models") / "model", tmp_path_factory.mktemp("models") / "base"
    for seed, folder in enumerate(folders):
        model = load_model(ModelConfig(name="scratch"), manifest, seed).model
        (model if seed == 0 else model.bert).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folders


def arguments(shards: Path, models: tuple[Path, Path], output: Path, *more: str) -> list[str]:
    words = f"words=[{','.join(WORDS)}]"
    where = [f"model={models[0]}", f"base={models[1]}", f"data.path={shards}", f"output={output}"]
    return [*where, words, "layers=-1", "tokens_per_device=1024", *more]


@pytest.fixture(scope="module")
def made(shards: Path, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("embedded") / "words"
    embed.stage(arguments(shards, models, output))
    return output


def vectors_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    count, width = map(int, header.split())
    table = {line.split(" ")[0]: np.array(line.split(" ")[1:], np.float32) for line in lines}
    assert len(table) == count and all(len(vector) == width for vector in table.values())
    return table


def test_there_is_a_row_per_occurrence_and_model(made: Path, shards: Path) -> None:
    table = pq.read_table(made / "occurrences.parquet")
    assert "text" not in table.column_names
    corpus = open_corpus(str(shards), Manifest.read(shards))
    everything = tweet_columns(corpus, np.arange(len(corpus)), ["id", "text", "author", "time"]).to_pylist()
    tweets = {tweet["id"]: tweet for tweet in everything}
    rows = table.to_pylist()
    assert {row["model"] for row in rows} == {"model", "base"}
    assert {row["layer"] for row in rows} == {"mean(2)"} and {row["correction"] for row in rows} == {"none"}
    for row in rows:
        tweet = tweets[row["tweet_id"]]
        span = tweet["text"][row["start"] : row["end"]]
        assert span.casefold() == row["word"] and row["cluster"] >= 0
        assert (row["author"], row["time"]) == (tweet["author"], tweet["time"])
        assert (row["vector"] is not None) == (row["status"] == "found")
    keys = {
        role: [(row["word"], row["tweet_id"], row["start"]) for row in rows if row["model"] == role]
        for role in ("model", "base")
    }
    assert keys["model"] == keys["base"] and len(set(keys["model"])) == len(keys["model"])


def test_centroids_are_the_means_of_the_rows(made: Path) -> None:
    rows = pq.read_table(made / "occurrences.parquet").to_pylist()
    for role, name in (("model", "vectors.txt"), ("base", "base_vectors.txt")):
        centroids = vectors_of(made / name)
        assert set(centroids) == {"mask", "the_internet", "😷", "#metoo", "@user"} - {
            word for word in ("😷",) if not any(r["word"] == word and r["status"] == "found" for r in rows)
        }
        for word, centroid in centroids.items():
            mine = [r["vector"] for r in rows if r["word"].replace(" ", "_") == word and r["model"] == role]
            np.testing.assert_allclose(centroid, np.mean([v for v in mine if v], axis=0), atol=1e-5)


def test_the_summary_describes_every_word(made: Path, shards: Path) -> None:
    summary = read_summary(made)
    assert list(summary.words) == WORDS
    assert summary.recipe == Manifest.read(shards).recipe.hash
    assert summary.words["nowhere"].found == 0 and summary.words["nowhere"].neighbours == []
    mask = summary.words["mask"]
    assert mask.sampled == mask.matches > 20
    assert mask.clusters <= mask.tweets <= mask.found
    assert len(mask.neighbours) == len(mask.base_neighbours) == 10
    names = [{word for word, _ in near} for near in (mask.neighbours, mask.base_neighbours)]
    assert mask.neighbour_overlap == len(names[0] & names[1]) / 10
    assert mask.neighbours == sorted(mask.neighbours, key=lambda pair: -pair[1])
    assert not {word for word, _ in summary.words["the internet"].neighbours} & {"the", "internet"}


def test_the_same_seed_gives_the_same_bytes(
    made: Path, shards: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    embed.stage(arguments(shards, models, tmp_path / "again"))
    files = sorted(path.name for path in made.iterdir())
    assert files == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in files:
        assert (made / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_running_again_changes_nothing(
    made: Path, shards: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (made / "summary.json").stat().st_mtime_ns
    embed.main(arguments(shards, models, made))
    assert "is complete" in capsys.readouterr().out
    assert (made / "summary.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [("seed=1", "other settings"), ("layers=7", "other settings"), ("words=other", "other settings")],
)
def test_other_settings_do_not_overwrite(
    made: Path,
    shards: Path,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    change: str,
    message: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        embed.main(arguments(shards, models, made, change))
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_wrong_layer_writes_nothing(
    shards: Path, models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        embed.main(arguments(shards, models, tmp_path / "words", "layers=7"))
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "has 2 layers" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_that_diverged_writes_nothing(shards: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    diverged = tmp_path / "diverged"
    shutil.copytree(models[0], diverged)
    weights = load_file(diverged / "model.safetensors")
    weights["bert.embeddings.LayerNorm.weight"][3] = float("nan")
    save_file(weights, diverged / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="diverged: some vectors contain NaN"):
        embed.stage(arguments(shards, (diverged, models[1]), tmp_path / "words"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diverged"]


def test_words_that_are_not_in_the_tweets_give_a_warning(
    shards: Path, models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "words"
    where = [f"model={models[0]}", f"data.path={shards}", f"output={output}"]
    embed.main([*where, "words=[pikachu,null,@alice]", "layers=-1", "background_tweets=0", "include_text=true"])
    error = capsys.readouterr().err
    assert "none of the words" in error and "@alice: cannot be found" in error
    assert pq.read_table(output / "occurrences.parquet").num_rows == 0
    assert (output / "vectors.txt").read_text() == "0 128\n"
    assert not (output / "base_vectors.txt").exists()


def test_text_is_written_only_on_request(shards: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "words"
    where = [f"model={models[0]}", f"data.path={shards}", f"output={output}"]
    embed.main([*where, "words=mask", "layers=-1", "max_occurrences=7", "include_text=true", "controls=0"])
    rows = pq.read_table(output / "occurrences.parquet").to_pylist()
    assert len(rows) == 7
    assert all(row["text"][row["start"] : row["end"]].lower() == "mask" for row in rows)


def test_the_table_has_what_analyze_needs(tmp_path: Path, models: tuple[Path, Path]) -> None:
    rows = [
        (str(number), f"2020-{number % 2 + 1:02d}-01", f"a{number}", "left" if number % 3 else "right", text)
        for number, text in enumerate(generated_tweets(400))
    ]
    source = write_csv(tmp_path / "party.csv", ["id", "created_at", "author", "party", "text"], rows)
    shards = make_shards(tmp_path, None, input=[str(source)], group_columns=["party"])
    output = tmp_path / "words"
    embed.stage(arguments(shards, models, output, "words=[mask,unbelievable]"))
    table = pq.read_table(output / "occurrences.parquet")
    found = [row for row in table.to_pylist() if row["status"] == "found"]
    assert {row["group.party"] for row in found} == {"left", "right"}
    tokenizer = load_tokenizer(str(shards / "tokenizer"))
    for word in ("mask", "unbelievable"):
        pieces = {row["subwords"] for row in found if row["word"] == word}
        assert pieces == {len(tokenizer.tokenize(word))}
    assert all(row["subwords"] == 0 for row in table.to_pylist() if row["status"] != "found")
    for by in ("party", "month"):
        analyze.stage([f"words={output}", f"by={by}", f"output={tmp_path / by}", "permutations=99"])
        rows = json.loads((tmp_path / by / "change.json").read_text())
        assert {row["word"] for row in rows} == {"mask", "unbelievable"} and rows[0]["clusters"] > 20


@pytest.fixture(scope="module")
def by_month(shards: Path, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("by") / "words"
    embed.stage(arguments(shards, models, output, "words=[mask,the]", "by=month", "max_occurrences=4", "controls=9"))
    return output


def test_each_group_is_sampled_separately_and_compared(by_month: Path) -> None:
    rows = [row for row in pq.read_table(by_month / "occurrences.parquet").to_pylist() if row["model"] == "model"]
    counts = Counter((row["word"], row["time"].month) for row in rows if not row["control"])
    assert max(counts.values()) == 4 and len({month for _, month in counts}) == 12
    changes = json.loads((by_month / "change.json").read_text())
    assert {row["word"] for row in changes} == {"mask", "the"} and changes[0]["measure"] == "energy"
    made = json.loads((by_month / "analyze.json").read_text())
    assert made["settings"]["by"] == "month" and made["words"] == json.loads((by_month / "embed.json").read_text())


def test_control_words_are_written_and_summarised(by_month: Path, made: Path) -> None:
    for folder, most in ((by_month, 18), (made, 250 * len(WORDS))):
        rows = [row for row in pq.read_table(folder / "occurrences.parquet").to_pylist() if row["control"]]
        controls = read_summary(folder).control_words
        assert 0 < len(controls) <= most and {row["word"] for row in rows} == set(controls)
        assert {row["model"] for row in rows} == {"model", "base"}
        for word, record in controls.items():
            mine = [row for row in rows if row["word"] == word and row["model"] == "model"]
            assert len(mine) == min(record.matches, 200)
            assert record.subwords == np.median([row["subwords"] for row in mine if row["status"] == "found"])
        assert not set(controls) & {"mask", "the", "no"}


def test_context_is_that_of_the_tweet(made: Path, shards: Path) -> None:
    corpus = open_corpus(str(shards), Manifest.read(shards))
    table = tweet_columns(corpus, np.arange(len(corpus)), ["id", "text", "input_ids", "retweet_of"]).to_pylist()
    tweets = {tweet["id"]: tweet for tweet in table}
    tokenizer = load_tokenizer(str(shards / "tokenizer"))
    rows = pq.read_table(made / "occurrences.parquet").to_pylist()
    for row in rows:
        tweet = tweets[row["tweet_id"]]
        assert row["tweet_length"] == len(tweet["input_ids"])
        assert row["links"] == tweet["text"].split().count("http")
        assert row["retweet"] == (tweet["retweet_of"] is not None)
        assert (row["position"] >= 0) == (row["status"] == "found")
        if row["position"] >= 0 and row["word"] in ("mask", "no"):
            pieces = tweet["input_ids"][row["position"] : row["position"] + row["subwords"]]
            assert tokenizer.decode(pieces).replace(" ", "") == row["word"]
    assert {row["links"] for row in rows} > {0} and {row["casing"] for row in rows} >= {"lower", "title", "none"}


def test_a_wrong_by_is_reported_before_any_model_runs(
    shards: Path, models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        embed.main(arguments(shards, models, tmp_path / "words", "by=mnth"))
    assert "did you mean 'month'" in capsys.readouterr().err and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        embed.main(arguments(shards, models, tmp_path / "words", "by=year"))
    error = capsys.readouterr().err
    assert "all occurrences are of 1 year: nothing to compare" in error and "embedding with" not in error


def test_lemmas_and_patterns_are_words(shards: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("virus\n")
    settings = [f"words_file={file}", "lemmas={subject: [mask, government, virus]}", "patterns={vacc: vaccin\\w*}"]
    where = [f"model={models[0]}", f"data.path={shards}", f"output={tmp_path / 'words'}", "controls=0"]
    embed.stage([*where, *settings, "layers=-1"])
    words = read_summary(tmp_path / "words").words
    assert list(words) == ["virus", "subject", "vacc"]
    counts = {name: word.matches for name, word in words.items()}
    texts = (
        tweet_columns(corpus := open_corpus(str(shards), Manifest.read(shards)), np.arange(len(corpus)), ["text"])
        .column("text")
        .to_pylist()
    )
    assert counts["virus"] == sum(len(re.findall(r"(?i)\bvirus\b", text)) for text in texts) > 0
    assert counts["subject"] == sum(len(re.findall(r"(?i)\b(?:mask|government|virus)\b", text)) for text in texts)
    assert counts["vacc"] == sum(len(re.findall(r"(?i)\bvaccination\b", text)) for text in texts) > 0
    assert not {word for word, _ in words["vacc"].neighbours} & {"vaccination"}


def test_substitutes_are_of_chosen_words_in_the_first_model(
    made: Path, shards: Path, models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pq.read_table(
        made / "occurrences.parquet", columns=["model", "status", "control", "substitutes"]
    ).to_pylist()
    for row in rows:
        expected = row["model"] == "model" and row["status"] == "found" and not row["control"]
        assert (row["substitutes"] is not None) == expected
        assert row["substitutes"] is None or len(row["substitutes"]) == 5
    words = f"words=[{','.join(WORDS[:2])}]"
    where = [f"model={models[1]}", f"data.path={shards}", "layers=-1", words, "controls=0"]
    embed.stage([*where, f"output={tmp_path / 'headless'}"])
    assert "has no trained masked-LM head, so there are no substitutes" in capsys.readouterr().err
    assert pq.read_table(tmp_path / "headless" / "occurrences.parquet")["substitutes"].null_count

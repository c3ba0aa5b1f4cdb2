"""WordVectors: vectors are those of the folder, no cosine crosses spaces, and other programs read the exports."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_tweets import WordVectors, analyze, export
from bert_tweets.common.errors import UserError
from bert_tweets.words.embedding.parquet_writer import occurrence_schema
from bert_tweets.words.store.reader import centroids_of, open_vectors, vectors_of
from bert_tweets.words.vectors.word_vectors import UnknownWord
from tests.words.summaries import summary_record, word_record, write_records

Rows = list[dict[str, Any]]

DAY = 86_400
WIDTH = 6


def rows_of(
    word: str, count: int, model: str = "model", layer: str = "mean(1,2)", **columns: Any
) -> list[dict[str, Any]]:
    random = np.random.default_rng([*word.encode(), *model.encode(), *layer.encode()])
    vectors = random.standard_normal((count, WIDTH)) + random.standard_normal(WIDTH)
    return [
        {
            "word": word,
            "tweet_id": f"{word}{number}",
            "cluster": number,
            "time": number % 2 * 40 * DAY,
            "group.party": "left" if number % 3 else "right",
            "start": 3,
            "end": 7,
            "status": "found",
            "subwords": 1,
            "model": model,
            "layer": layer,
            "correction": "none",
            "vector": vector.tolist(),
            "text": f"a {word} here",
            **columns,
        }
        for number, vector in enumerate(vectors.astype(np.float32))
    ]


def write(folder: Path, rows: Rows, **summary: Any) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(rows, occurrence_schema(True, ["party"])),
        folder / "occurrences.parquet",
        row_group_size=100,
    )
    mask = word_record(neighbours=[["cover", 0.5]], base_neighbours=[["face", 0.25]])
    write_records(folder, summary_record(**{"words": {"mask": mask}, "vectors_layer": "mean(1,2)", **summary}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [*rows_of("mask", 60), *rows_of("the internet", 50), *rows_of("😷", 40), *rows_of("mask", 60, "base")]
    lost = {**rows[0], "word": "lost", "tweet_id": "l", "status": "unknown", "vector": None}
    rows += [lost, {**rows[0], "tweet_id": "cut", "status": "truncated", "vector": None}]
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    return write(tmp_path_factory.mktemp("words") / "words", rows)


def test_words_are_the_means_of_their_found_occurrences(folder: Path) -> None:
    vectors = WordVectors.load(folder)
    assert sorted(vectors) == sorted(["mask", "the internet", "😷"]) and len(vectors) == 3
    assert "mask" in vectors and "lost" not in vectors and 3 not in vectors
    for word in vectors:
        own = vectors.vectors(word)
        assert own.dtype == vectors[word].dtype == np.float32 and vectors[word].shape == (WIDTH,)
        np.testing.assert_allclose(vectors[word], own.mean(axis=0), atol=1e-6)
    assert vectors.vectors("mask").shape == (60, WIDTH)


def test_occurrences_are_the_rows_of_one_space(folder: Path) -> None:
    vectors = WordVectors.load(folder)
    rows = vectors.occurrences("mask")
    assert len(rows) == 60 and set(rows.column("model").to_pylist()) == {"model"} and "vector" not in rows.column_names
    everything = pq.read_table(folder / "occurrences.parquet").to_pylist()
    own = {row["tweet_id"]: row["vector"] for row in everything if row["model"] == "model" and row["word"] == "mask"}
    expected = np.array([own[tweet] for tweet in rows.column("tweet_id").to_pylist()], np.float32)
    np.testing.assert_array_equal(vectors.vectors("mask"), expected)
    assert sorted(set(vectors.occurrences("mask", found=False).column("status").to_pylist())) == ["found", "truncated"]
    assert len(vectors.occurrences("lost", found=False)) == 1 and not len(vectors.occurrences("lost"))


@pytest.mark.parametrize(
    "ask", ["__getitem__", "vectors", "occurrences", "most_similar", "neighbours", "senses", "change"]
)
def test_an_unknown_word_is_reported_with_a_similar_one(folder: Path, ask: str) -> None:
    vectors = WordVectors.load(folder)
    for kind in (KeyError, UserError):
        with pytest.raises(kind) as caught:
            getattr(vectors, ask)("masc")
        assert str(caught.value) == f"'masc': is not in {folder} (did you mean 'mask'?)"
    with pytest.raises(UnknownWord, match="'lost': no occurrence with a vector was found"):
        vectors["lost"]


def test_cosines_are_within_one_space(folder: Path) -> None:
    vectors, base = WordVectors.load(folder), WordVectors.load(folder, model="base")
    first, second = (np.asarray(vectors[word], np.float64) for word in ("mask", "😷"))
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert vectors.similarity("mask", "😷") == pytest.approx(cosine) and vectors.origin == "nothing"
    assert vectors.similarity("mask", "mask") == pytest.approx(1)
    for other in (vectors["mask"], base["mask"]):
        with pytest.raises(UserError, match="an array does not record its space"):
            vectors.similarity("mask", other)  # type: ignore[arg-type]
    assert vectors.most_similar("mask", 1)[0][0] == max(
        ["the internet", "😷"], key=lambda w: vectors.similarity("mask", w)
    )
    assert [word for word, _ in vectors.most_similar("mask")].count("mask") == 0


def test_a_vector_is_a_plain_read_only_array(folder: Path) -> None:
    vector = WordVectors.load(folder)["mask"]
    assert type(vector) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        vector += 1


@pytest.mark.parametrize("ask", ["__getitem__", "most_similar", "occurrences", "vectors", "senses", "change"])
def test_a_word_that_is_not_a_string_is_refused(folder: Path, ask: str) -> None:
    vectors = WordVectors.load(folder)
    for what in (vectors["mask"], ["mask"], None):
        with pytest.raises(UserError, match="give words as strings"):
            getattr(vectors, ask)(what)
        assert what not in vectors


def test_the_mean_of_enough_control_words_is_subtracted(tmp_path: Path) -> None:
    rows = [{**row, "control": False} for word in ("mask", "face") for row in rows_of(word, 5)]
    for number in range(20):
        rows += [{**row, "control": True} for row in rows_of(f"c{number}", 3)]
    vectors = WordVectors.load(write(tmp_path / "words", rows))
    assert (
        vectors.chosen_words == ["mask", "face"] and len(vectors) == 22 and vectors.origin == "mean of 20 control words"
    )
    mean = np.mean([vectors[f"c{number}"] for number in range(20)], axis=0)
    first, second = vectors["mask"] - mean, vectors["face"] - mean
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert vectors.similarity("mask", "face") == pytest.approx(cosine, abs=1e-6)
    with pytest.raises(UnknownWord, match="'c3': is a control word; embed stores no neighbours of control words"):
        vectors.neighbours("c3")


def test_neighbours_are_those_of_embed(folder: Path) -> None:
    assert WordVectors.load(folder).neighbours("mask") == [("cover", 0.5)]
    assert WordVectors.load(folder, model="base").neighbours("mask") == [("face", 0.25)]


def test_a_space_must_be_named_if_there_are_several(tmp_path: Path) -> None:
    rows = [*rows_of("mask", 5, layer="1"), *rows_of("mask", 5, layer="2"), *rows_of("mask", 5, "model.2", "2")]
    words = write(tmp_path / "words", rows, vectors_layer="2")
    with pytest.raises(UserError, match=r"has vectors of layer 1, 2; give layer= one of them"):
        WordVectors.load(words)
    first, second = WordVectors.load(words, layer="1"), WordVectors.load(words, layer="2")
    assert first.vectors("mask").shape == (5, WIDTH) and first["mask"].tolist() != second["mask"].tolist()
    assert second.neighbours("mask") and WordVectors.load(words, "model.2").space.layer == "2"
    for vectors in (first, WordVectors.load(words, "model.2")):
        with pytest.raises(UserError, match="neighbours for model and base, at its highest layer"):
            vectors.neighbours("mask")
    with pytest.raises(UserError, match=r"has no model modle \(did you mean 'model'\?\); it has model, model\.2"):
        WordVectors.load(words, "modle")
    with pytest.raises(UserError, match=r"has no correction center; it has none"):
        WordVectors.load(words, layer="1", correction="center")
    with pytest.raises(UserError, match=r"has no occurrences\.parquet"):
        WordVectors.load(tmp_path)


def test_one_pass_computes_the_means_of_all_words(folder: Path) -> None:
    source = open_vectors(folder)
    means = dict(zip(source.words, centroids_of(source), strict=True))
    assert np.isnan(means["lost"]).all()
    for word in ("mask", "😷"):
        np.testing.assert_allclose(means[word], vectors_of(source.read(["vector"], [word])).mean(axis=0), atol=1e-6)


def test_change_gives_the_rows_of_analyze(folder: Path, tmp_path: Path) -> None:
    settings = {"permutations": 99, "min_clusters": 10}
    analyze.stage(
        [f"words={folder}", f"output={tmp_path / 'out'}", "by=month", "senses=false"]
        + [f"{name}={value}" for name, value in settings.items()]
    )
    rows = json.loads((tmp_path / "out" / "change.json").read_text(encoding="utf-8"))
    vectors = WordVectors.load(folder)
    found = vectors.change("mask", by="month", **settings)
    assert found == [row for row in rows if row["word"] == "mask"] and found[0]["p_value"]
    assert vectors.change("mask", by="month", covariates=["time"], **settings) == found
    with pytest.raises(UserError, match=r"permutation: is not a setting of change \(did you mean 'permutations'\?\)"):
        vectors.change("mask", permutation=99)
    with pytest.raises(UserError, match=r"did you mean 'month'"):
        vectors.senses("mask", by="moth")
    assert vectors.change("😷", by="month", **settings) == [row for row in rows if row["word"] == "😷"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `virus` has two uses, one in each month, and `rain` has one."""
    rows = [*rows_of("virus", 140), *rows_of("rain", 60)]
    for number, row in enumerate(rows[:140]):
        row["vector"] = [value + 12 * (number % 2) * (place == 2) for place, value in enumerate(row["vector"])]
    return write(tmp_path_factory.mktemp("planted") / "words", rows)


def test_analyze_writes_the_senses(planted: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    analyze.stage([f"words={planted}", f"output={output}", "by=month", "permutations=99"])
    records = json.loads((output / "senses.json").read_text(encoding="utf-8"))
    assert {word: record["count"] for word, record in records.items()} == {"virus": 2, "rain": 1}
    first = records["virus"]["senses"][0]
    assert sorted(share["share"] for share in first["shares"]) == [0, 1] and first["words"] == ["rain"]
    assert [share["group"] for share in first["shares"]] == ["1970-01", "1970-02"]
    assert records["rain"]["senses"][0]["associations"] == []
    table = pq.read_table(output / "senses.parquet")
    assert table.column_names == ["word", "tweet_id", "start", "end", "model", "sense"] and len(table) == 200
    by_tweet = dict(zip(table.column("tweet_id").to_pylist(), table.column("sense").to_pylist(), strict=True))
    assert len({by_tweet[f"virus{number}"] for number in range(0, 140, 2)}) == 1
    again = WordVectors.load(planted).senses("virus", by="month")
    assert again["senses"][0]["shares"] == first["shares"] and again["stability"] == records["virus"]["stability"]
    from gensim.models import KeyedVectors

    senses = KeyedVectors.load_word2vec_format(output / "sense_vectors.txt")
    assert sorted(senses.key_to_index) == ["rain#1", "virus#1", "virus#2"]


@pytest.mark.parametrize("suffix", ["txt", "bin"])
def test_gensim_reads_the_same_vectors_and_similarities(folder: Path, tmp_path: Path, suffix: str) -> None:
    from gensim.models import KeyedVectors

    vectors = WordVectors.load(folder)
    vectors.export(tmp_path / f"vectors.{suffix}")
    read = KeyedVectors.load_word2vec_format(tmp_path / f"vectors.{suffix}", binary=suffix == "bin")
    assert set(read.key_to_index) == {"mask", "the_internet", "😷"}
    for word in vectors:
        np.testing.assert_array_equal(read[word.replace(" ", "_")], vectors[word])
    assert read.similarity("mask", "the_internet") == pytest.approx(
        vectors.similarity("mask", "the internet"), abs=1e-6
    )
    assert [word for word, _ in read.most_similar("mask")] == [
        word.replace(" ", "_") for word, _ in vectors.most_similar("mask")
    ]


def test_arrays_keep_words_and_space(planted: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    vectors = WordVectors.load(planted)
    for name in ("v.npz", "v.safetensors"):
        vectors.export(tmp_path / name, senses=True)
    expected = ["virus", "rain", "virus#1", "virus#2", "rain#1"]
    with np.load(tmp_path / "v.npz") as file:
        assert file["words"].tolist() == expected and json.loads(str(file["space"]))["layer"] == "mean(1,2)"
        np.testing.assert_array_equal(file["vectors"][1], vectors["rain"])
    with safe_open(tmp_path / "v.safetensors", "np") as file:
        assert json.loads(file.metadata()["words"]) == expected and file.metadata()["weights"] == "w"
        np.testing.assert_array_equal(file.get_tensor("vectors")[0], vectors["virus"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.npz", "v.safetensors"]


def test_without_found_occurrences_there_are_no_words(tmp_path: Path) -> None:
    rows = [{**row, "status": "unknown", "vector": None} for row in rows_of("mask", 5)]
    vectors = WordVectors.load(write(tmp_path / "words", rows))
    assert len(vectors) == 0 and "mask" not in vectors and vectors.chosen_words == []
    with pytest.raises(UnknownWord, match="no occurrence with a vector"):
        vectors.similarity("mask", "mask")
    for suffix in ("txt", "bin", "npz", "safetensors", "parquet"):
        vectors.export(tmp_path / f"nothing.{suffix}", senses=True)
    assert (tmp_path / "nothing.txt").read_text().splitlines() == ["0 1"]


def test_an_export_does_not_change_the_folder_of_embed(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (planted / "occurrences.parquet").read_bytes()
    for name in ("occurrences.parquet", "vectors.txt"):
        with pytest.raises(UserError, match=r"is in a folder written by embed|exists already"):
            export.stage([f"words={planted}", f"output={planted / name}"])
    assert (planted / "occurrences.parquet").read_bytes() == before
    vectors = WordVectors.load(planted)
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "file").write_text("")
    for name, said in (("folder.txt", "is a folder"), ("file/v.txt", "a part of this path is a file")):
        with pytest.raises(UserError, match=said):
            vectors.export(tmp_path / name)
    (tmp_path / "v.txt").write_text("before")

    def full(path: Path, *_: Any) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bert_tweets.words.store.export_formats.write_word2vec_text", full)
    with pytest.raises(UserError, match=r"v\.txt: .*disk"):
        vectors.export(tmp_path / "v.txt")
    assert (tmp_path / "v.txt").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.txt", "v.txt"]


def test_occurrences_are_flat_for_data_frames(planted: Path, tmp_path: Path) -> None:
    arguments = [f"words={planted}", f"output={tmp_path / 'points.parquet'}", "senses=true"]
    export.stage(arguments)
    with pytest.raises(UserError, match="exists already"):
        export.stage(arguments)
    table = pq.read_table(tmp_path / "points.parquet")
    assert {"group_party", "projection_x", "projection_y", "text", "sense"} <= set(table.column_names)
    assert not any("." in name for name in table.column_names) and len(table) == 200
    assert pa.types.is_fixed_size_list(table.schema.field("vector").type)
    matrix = np.array(table.column("vector").to_pylist())
    # The first component has the most variance: that of the planted use.
    assert np.var(table.column("projection_x")) >= np.var(table.column("projection_y"))
    assert abs(np.corrcoef(table.column("projection_x"), matrix[:, 2])[0, 1]) > 0.9
    assert set(table.column("sense").to_pylist()) == {"virus#1", "virus#2", "rain#1"}
    with pytest.raises(UserError, match=r"use a file name that ends in \.txt, \.bin"):
        WordVectors.load(planted).export(tmp_path / "points.csv")


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = (
        "import sys, bert_tweets\n"
        "assert not {'numpy', 'pyarrow', 'torch'} & set(sys.modules)\n"
        "bert_tweets.WordVectors\n"
        "assert not {'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not hasattr(bert_tweets, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

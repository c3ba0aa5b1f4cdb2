"""Maps: a projection per model, the same occurrences in the same order, reproducible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.page.html import map_data
from bert_tweets.page.maps import SENSE, TIME, MapSpec, word_maps
from tests.page import study

TITLES = {"model": "after", "base": "before"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    study.write(folder, words=3, points=80, text=True)
    return folder


def spec(folder: Path, **more: Any) -> MapSpec:
    return MapSpec(["mask", "virus", "zoom"], TITLES, change=folder / "change", **more)


def vectors_of(folder: Path, word: str, model: str) -> np.ndarray[Any, Any]:
    table = pq.read_table(folder / "words/occurrences.parquet")
    table = table.filter(pc.and_(pc.equal(table["word"], word), pc.equal(table["model"], model)))
    return np.array(table["vector"].to_pylist())


@pytest.mark.parametrize("model", [0, 1])
def test_a_map_is_the_principal_components_of_one_model(folder: Path, model: int) -> None:
    (first, *_) = word_maps(folder / "words", spec(folder))
    vectors = vectors_of(folder, "mask", list(TITLES)[model])
    centred = vectors - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    expected /= np.abs(expected).max()
    points = first.spaces[model].points
    assert np.abs(points).max() == 1.0
    # Axes have no direction.
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-5)
    assert first.spaces[model].explained == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-6)


def test_a_sample_is_the_same_for_both_models_and_reproducible(folder: Path) -> None:
    few = word_maps(folder / "words", spec(folder, points=30))
    again = word_maps(folder / "words", spec(folder, points=30))
    other = word_maps(folder / "words", spec(folder, points=30, seed=1))
    assert [(len(one.spaces[0].points), one.total) for one in few] == [(30, 80), (30, 80), (12, 12)]
    assert map_data(few) == map_data(again) != map_data(other)
    assert few[0].spaces[0].points.shape == few[0].spaces[1].points.shape


def test_maps_of_many_words_share_the_points(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_tweets.page.maps._ALL_POINTS", 60)
    assert [len(one.spaces[0].points) for one in word_maps(folder / "words", spec(folder))] == [20, 20, 12]


def test_columns_and_excerpts_belong_to_their_points(folder: Path) -> None:
    (one, *_) = word_maps(folder / "words", spec(folder, points=30, include_text=True, senses={"mask": ["a", "b"]}))
    numbers = [int(text.rstrip("…").partition("number ")[2].partition(" ")[0] or -1) for text in one.texts]
    parties = [one.columns["group.party"].codes[place] for place in range(30)]
    expected = {0: "red", 1: "blue", 2: None}
    for number, party, sense in zip(numbers, parties, one.columns[SENSE].codes, strict=True):
        name = expected[number % 3]
        assert party == (-1 if name is None else one.columns["group.party"].names.index(name))
        assert sense == number % 2
    assert (one.columns[TIME].codes > 17_000).all() and one.columns[TIME].names == []


@pytest.mark.parametrize("away", range(52, 64))
def test_no_cut_separates_a_mention_from_its_at_sign(tmp_path: Path, away: int) -> None:
    """An excerpt that begins within `@some_body` does not hold `ome_body`."""
    study.write(tmp_path, words=2, points=6, text=True)
    path = tmp_path / "words/occurrences.parquet"
    table = pq.read_table(path)
    before = f"well @some_body{' ' * (away - len('some_body'))}"
    columns = {"text": f"{before}mask ありがとう@some_body RT@some_body", "start": len(before), "end": len(before) + 4}
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(
            place, table.schema.field(name), pa.array([value] * len(table), table.schema.types[place])
        )
    pq.write_table(table, path)
    data = map_data(word_maps(tmp_path / "words", spec(tmp_path, include_text=True)))
    assert data[0]["texts"] and all("mask" in text and "ありがとう@user" in text for text in data[0]["texts"])
    assert not any("body" in text for text in data[0]["texts"])


def test_missing_text_is_an_error(tmp_path: Path) -> None:
    study.write(tmp_path, words=2, points=20)
    with pytest.raises(UserError, match="has no text"):
        word_maps(tmp_path / "words", spec(tmp_path, include_text=True))


def test_text_is_read_only_if_asked_for(folder: Path) -> None:
    assert all(one.texts == [] for one in word_maps(folder / "words", spec(folder)))


def test_one_of_several_layers_is_drawn(tmp_path: Path) -> None:
    study.write(tmp_path, words=2, points=20)
    path = tmp_path / "words/occurrences.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("layer")
    layers = [table.set_column(place, "layer", pa.array([str(layer)] * len(table))) for layer in (2, 12)]
    vectors = layers[0].schema.get_field_index("vector")
    turned = pa.array([value[::-1] for value in table["vector"].to_pylist()], pa.list_(pa.float32()))
    pq.write_table(pa.concat_tables([layers[0], layers[1].set_column(vectors, "vector", turned)]), path)
    last, second = (word_maps(tmp_path / "words", spec(tmp_path, layer=layer)) for layer in (None, "2"))
    assert map_data(last) == map_data(word_maps(tmp_path / "words", spec(tmp_path, layer="12")))
    assert map_data(last) != map_data(second) and last[0].total == 20


def test_tsne_has_no_explained_variance(folder: Path) -> None:
    maps = word_maps(folder / "words", spec(folder, projection="tsne", points=20))
    assert all(space.explained is None for one in maps for space in one.spaces)
    assert np.abs(maps[0].spaces[0].points).max() == 1.0


def test_equal_vectors_are_one_point(tmp_path: Path) -> None:
    study.write(tmp_path, words=2, points=20)
    path = tmp_path / "words/occurrences.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("vector")
    pq.write_table(table.set_column(place, "vector", pa.array([[1.0] * 16] * len(table), pa.list_(pa.float32()))), path)
    (one, *_) = word_maps(tmp_path / "words", spec(tmp_path))
    assert (one.spaces[0].points == 0).all() and one.spaces[0].explained == 0


def test_unpaired_occurrences_are_an_error(tmp_path: Path) -> None:
    study.write(tmp_path, words=2, points=20)
    path = tmp_path / "words/occurrences.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(range(len(table) - 1, -1, -1))).slice(1), path)
    with pytest.raises(UserError, match="occurrences of virus differ between models"):
        word_maps(tmp_path / "words", spec(tmp_path))

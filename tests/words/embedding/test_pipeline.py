"""embed: several models and layers over the same occurrences, each in its own space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from transformers import AutoModelForMaskedLM

from bert_tweets.common.errors import UserError
from bert_tweets.config import DataConfig, EmbedConfig, ModelConfig, ScratchConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.distributed.world import world_from_environment
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import load_model
from bert_tweets.words.embedding import pipeline
from bert_tweets.words.embedding.pipeline import embed
from bert_tweets.words.embedding.study import Study
from bert_tweets.words.occurrences.control_words import ControlWord
from bert_tweets.words.occurrences.find import FOUND
from bert_tweets.words.store.summary import Summary, read_summary
from bert_tweets.words.store.vector_space import Vectors
from tests.helpers import make_shards
from tests.test_evaluate import export_scratch

WORDS = ["mask", "unbelievable", "football", "the internet"]


@pytest.fixture(scope="module")
def models(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two seeds of one model."""
    folder = tmp_path_factory.mktemp("models")
    return [str(export_scratch(folder / str(seed), shards, seed)) for seed in (0, 1)]


def embedded(shards: Path, model: list[str], folder: Path, **more: Any) -> tuple[Summary, list[dict[str, Any]]]:
    """The summary and the rows."""
    settings = {
        "words": WORDS,
        "controls": 0,
        "output": "-",
        "data": DataConfig(path=str(shards)),
        "device": "cpu",
        **more,
    }
    folder.mkdir(exist_ok=True)
    summary = embed(EmbedConfig(model=model, **settings), Manifest.read(shards), world_from_environment("cpu"), folder)
    assert summary is not None and read_summary(folder) == summary
    return summary, pq.read_table(folder / "occurrences.parquet").to_pylist()


def written(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return {line.split(" ")[0]: np.array(line.split(" ")[1:], dtype=float) for line in lines}


def matrix(rows: list[dict[str, Any]], **wanted: Any) -> np.ndarray[Any, Any]:
    """Vectors of the found rows that have these values."""
    mine = [row["vector"] for row in rows if row["vector"] and all(row[key] == wanted[key] for key in wanted)]
    return np.array(mine)


def spearman(rows: list[dict[str, Any]], *roles: str, **wanted: str) -> float:
    """Spearman's correlation of the cosine distances between occurrences, one per cluster."""
    first: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        first.setdefault((row["model"], row["cluster"]), row) if all(row[k] == v for k, v in wanted.items()) else None
    vectors = (matrix(list(first.values()), model=role) for role in roles)
    return float(spearmanr(*(pdist(values, "cosine") for values in vectors)).statistic)


def test_truncated_occurrences_are_not_in_the_centroid(tmp_path: Path) -> None:
    texts = [f"mask {number} mask and so on until the end of it comes the mask" for number in range(40)]
    shards = make_shards(tmp_path / "data", texts, max_length=10)
    model = str(export_scratch(tmp_path / "model", shards, 0))
    summary, rows = embedded(shards, [model], tmp_path, words=["mask"])
    mask = summary.words["mask"]
    assert mask.found >= 40 and mask.truncated >= 40 and mask.drift is None
    found = matrix(rows, status="found", control=False)
    assert len(found) == mask.found
    assert np.allclose(written(tmp_path / "vectors.txt")["mask"], found.mean(axis=0), atol=1e-5)


def test_seeds_and_layers_are_rows_of_the_same_occurrences(shards: Path, models: list[str], tmp_path: Path) -> None:
    choice: dict[str, Any] = {"base": models[0], "layers": [0, 1], "layer_pooling": "none", "pooling": "first"}
    summary, rows = embedded(shards, models, tmp_path / "corrected", correction="center", **choice)
    _, raw = embedded(shards, models, tmp_path / "raw", **choice)
    roles, layers = {"model", "model.2", "base"}, {"0", "1"}
    assert {row["model"] for row in rows} == roles and {row["layer"] for row in rows} == layers
    assert {row["correction"] for row in rows} == {"center"} and {row["correction"] for row in raw} == {"none"}
    occurrences = [
        [(row["word"], row["tweet_id"], row["start"]) for row in rows if (row["model"], row["layer"]) == (role, layer)]
        for role in roles
        for layer in layers
    ]
    assert all(keys == occurrences[0] for keys in occurrences)
    assert len(set(occurrences[0])) == len(occurrences[0]) > 100

    origins = []
    for role in sorted(roles):
        for layer in sorted(layers):
            shift = matrix(raw, model=role, layer=layer) - matrix(rows, model=role, layer=layer)
            np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-5)
            origins.append(shift[0])
    # Base and model are the same here, so their origins are equal; those of layers and seeds differ.
    np.testing.assert_array_equal(origins[:2], origins[2:4])
    assert len({tuple(np.round(origin, 3)) for origin in origins}) == 4
    np.testing.assert_allclose(
        written(tmp_path / "corrected" / "vectors.txt")["mask"],
        matrix(rows, model="model", layer="1", word="mask").mean(axis=0),
        atol=1e-5,
    )
    drift = summary.words["mask"].drift
    assert drift is not None and drift.distance_correlation.by_seed == [
        1.0,
        pytest.approx(spearman(rows, "base", "model.2", word="mask", layer="1"), abs=1e-4),
    ]
    assert (summary.layers, summary.vectors_layer, summary.models) == (["0", "1"], "1", models)
    assert (summary.pooling, summary.correction) == ("first", "center")
    assert set(summary.weights) == set(summary.correction_hashes) == roles


def test_neighbours_are_chosen_in_the_corrected_space(
    shards: Path, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Vectors, Vectors]] = []
    studies: list[Study] = []
    plain, study = pipeline.nearest, pipeline.find_study
    monkeypatch.setattr(pipeline, "nearest", lambda *given: (seen.append(given[:2]), plain(*given))[1])
    monkeypatch.setattr(pipeline, "find_study", lambda *given: (studies.append(study(*given)), studies[-1])[1])
    embedded(shards, models[:1], tmp_path, correction="center")
    (words, others), background = seen[0], studies[0].background_occurrences
    np.testing.assert_array_equal(words.values[0], written(tmp_path / "vectors.txt")["mask"].astype(np.float32))
    # The corrected mean of the occurrences that it was fitted on is 0.
    counts = np.bincount(background.places.word[background.status == FOUND], minlength=len(others))
    known = counts > 0
    assert np.abs(others.values[known]).max() > 0.1
    np.testing.assert_allclose(counts[known] @ others.values[known] / counts.sum(), 0, atol=1e-5)


def test_a_model_that_did_not_change_has_no_drift(shards: Path, models: list[str], tmp_path: Path) -> None:
    summary, _ = embedded(shards, models, tmp_path, base=models[0])
    for word in WORDS:
        drift = summary.words[word].drift
        assert drift is not None
        for measure in (drift.neighbour_overlap, drift.distance_correlation):
            same, other = measure.by_seed
            assert same == 1.0 and other is not None and -1 < other < 1 and measure.control_quantiles is None
    assert summary.control_words == {} and summary.words["mask"].neighbour_overlap == 1.0


def test_control_words_are_embedded_and_give_the_rank(
    shards: Path, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pipeline.find_study

    def with_controls(*arguments: Any) -> Any:
        study = plain(*arguments)
        others = [ControlWord(word.key, (word.text,), 0, 1, None) for word in study.words[1:]]
        return replace(study, words=study.words[:1], control_words=others)

    monkeypatch.setattr(pipeline, "find_study", with_controls)
    summary, rows = embedded(shards, models[1:], tmp_path, base=models[0])
    assert set(summary.control_words) == set(WORDS[1:]) and set(summary.words) == {"mask"}
    assert {row["word"] for row in rows} == set(WORDS)
    assert set(written(tmp_path / "vectors.txt")) == set(written(tmp_path / "static_vectors.txt")) == {"mask"}
    for name in ("neighbour_overlap", "distance_correlation"):
        measure = getattr(summary.words["mask"].drift, name)
        own, (low, middle, high) = measure.by_seed[0], measure.control_quantiles
        values = [getattr(control, name) for control in summary.control_words.values()]
        assert min(values) <= low <= middle == sorted(values)[1] <= high <= max(values)
        assert (measure.rank, measure.num_ranked) == (1 + sum(value <= own for value in values), len(values) + 1)
    assert all(control.matches > 20 and control.subwords > 0 for control in summary.control_words.values())


def test_static_vectors_are_rows_of_the_input_matrix(shards: Path, models: list[str], tmp_path: Path) -> None:
    embedded(shards, models, tmp_path, correction="standardize")
    rows = AutoModelForMaskedLM.from_pretrained(models[0]).get_input_embeddings().weight.detach().numpy()
    tokenizer = load_tokenizer(str(shards / "tokenizer"))
    found = written(tmp_path / "static_vectors.txt")
    for word in WORDS:
        mean = rows[tokenizer.encode(word, add_special_tokens=False)].mean(axis=0)
        np.testing.assert_allclose(found[word.replace(" ", "_")], mean, atol=1e-6)


def test_models_that_are_not_seeds_of_one_are_rejected(shards: Path, models: list[str], tmp_path: Path) -> None:
    manifest = Manifest.read(shards)
    sizes = ScratchConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    other = load_model(ModelConfig(name="scratch", scratch=sizes), manifest).model
    export_model(tmp_path / "narrow", other, None, manifest, str(shards))
    with pytest.raises(UserError, match="only if they are training seeds of one"):
        embedded(shards, [models[0], str(tmp_path / "narrow")], tmp_path / "words")
    with pytest.raises(UserError, match="the same model is given twice"):
        embedded(shards, [models[0], models[0]], tmp_path / "words")


def test_a_correction_needs_something_to_be_fitted_on(shards: Path, models: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="correction=center: is fitted on background words, but there are none"):
        embedded(shards, models, tmp_path, correction="center", background_tweets=0)

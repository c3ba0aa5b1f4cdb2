"""A vector is that of the stock model, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from bert_tweets.common.arrays import Floats
from bert_tweets.common.errors import UserError
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.data.layout import Layout
from bert_tweets.model.attention import backend_named
from bert_tweets.model.loading import load_model
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.words.embedding.extractor import Centroids, Extractor, layer_labels, prefetch_one, resolve_layers
from bert_tweets.words.occurrences import find as occurrences_module
from bert_tweets.words.occurrences.find import FOUND, Occurrences, align, find, open_corpus
from bert_tweets.words.occurrences.matching import words_of
from tests.helpers import make_shards
from tests.model.tiny import FAMILIES, packed, packed_model, tweets_of

WORDS = ["mask", "photographer", "the internet", "internet", "😷", "grandmothers"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Split, Occurrences]:
    # Short enough that some occurrences are truncated.
    folder = make_shards(tmp_path_factory.mktemp("vectors"), max_length=24)
    manifest = Manifest.read(folder)
    corpus = open_corpus(str(folder), manifest)
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    return manifest, corpus, align(corpus, find(corpus, words_of(WORDS)), tokenizer, manifest.unknown_id)


def reader(manifest: Manifest, tokens_per_device: int, layers: list[int], row_length: int = 0) -> Extractor:
    model = load_model(ModelConfig(name="scratch"), manifest).model
    layout = Layout(row_length or manifest.max_length, tokens_per_device, manifest.pad_id)
    return Extractor(PackedMaskedLM(model).eval(), layers, layout, "fp32", torch.device("cpu"))


def vectors(read: Extractor, corpus: Split, found: Occurrences) -> Floats:
    chunks = list(read.vectors(corpus, found))
    assert [rows.start for rows, _ in chunks[1:]] == [rows.stop for rows, _ in chunks[:-1]]
    return np.concatenate([chunk for _, chunk in chunks])


def test_layout_changes_nothing(study: tuple[Manifest, Split, Occurrences], monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, corpus, found = study
    expected = vectors(reader(manifest, 4096, [1, 2]), corpus, found)
    assert expected.dtype == np.float32 and expected.shape == (len(found), 1, 128)
    assert 0 < (found.status != FOUND).sum() < len(found)
    np.testing.assert_array_equal(np.isnan(expected).all(axis=(1, 2)), found.status != FOUND)
    np.testing.assert_array_equal(np.isnan(expected).any(axis=(1, 2)), found.status != FOUND)
    for tokens_per_device, row_length in ((128, 0), (1, 0), (4096, 97)):
        other = vectors(reader(manifest, tokens_per_device, [1, 2], row_length), corpus, found)
        np.testing.assert_allclose(other, expected, atol=1e-5)
    monkeypatch.setattr(occurrences_module, "CHUNK_TWEETS", 5)
    np.testing.assert_allclose(vectors(reader(manifest, 128, [1, 2]), corpus, found), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "layer_pooling", "pooling"),
    [
        ([0], "mean", "mean"),
        ([1], "mean", "mean"),
        ([0, 1, 2], "mean", "mean"),
        ([0, 1, 2], "none", "mean"),
        ([0, 2], "mean", "first"),
        ([1, 2], "mean", "max"),
        ([0, 2], "none", "max"),
    ],
)
def test_equal_to_the_stock_model_a_padded_tweet_at_a_time(
    study: tuple[Manifest, Split, Occurrences], layers: list[int], layer_pooling: str, pooling: str
) -> None:
    manifest, corpus, found = study
    read = replace(reader(manifest, 512, layers), layer_pooling=layer_pooling, pooling=pooling)
    mine = vectors(read, corpus, found)
    assert mine.shape == (len(found), len(read.labels), 128)
    stock = read.module.model
    stock.set_attn_implementation("eager")
    ends = np.cumsum(found.subword_counts)
    rows = np.flatnonzero(found.status == FOUND)
    assert (found.subword_counts[rows] > 1).any()
    for row in rows[:: max(1, len(rows) // 40)].tolist():
        ids = torch.from_numpy(corpus.gather(found.places.tweet[row : row + 1]).input_ids).long()[None]
        # Padded, as one would run it: the mask has to hide the padding.
        padding = torch.full((1, manifest.max_length - ids.shape[1]), manifest.pad_id)
        mask = torch.cat([torch.ones_like(ids), torch.zeros_like(padding)], dim=1)
        with torch.no_grad():
            output = stock.bert(
                input_ids=torch.cat([ids, padding], dim=1), attention_mask=mask, output_hidden_states=True
            )
        tokens = found.subword_positions[ends[row] - found.subword_counts[row] : ends[row]]
        states = torch.stack([output.hidden_states[layer][0, tokens] for layer in layers])
        if layer_pooling == "mean":
            states = states.mean(dim=0, keepdim=True)
        expected = {"mean": states.mean(dim=1), "first": states[:, 0], "max": states.amax(dim=1)}[pooling]
        np.testing.assert_allclose(mine[row], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_the_mean_of_each_layer_is_the_mean_of_the_layers(
    study: tuple[Manifest, Split, Occurrences], pooling: str
) -> None:
    manifest, corpus, found = study
    read = replace(reader(manifest, 512, [0, 1, 2]), pooling=pooling)
    of_each = vectors(replace(read, layer_pooling="none"), corpus, found)
    np.testing.assert_allclose(of_each.mean(axis=1), vectors(read, corpus, found)[:, 0], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["sdpa", "bucketed"])
@pytest.mark.parametrize("layers", [[0], [1], [0, 2], [1, 2]])
def test_layers_at_some_places_are_those_of_the_stock_loop(family: str, backend: str, layers: list[int]) -> None:
    batch = packed(tweets_of([5, 9, 17, 3, 12]))
    module = PackedMaskedLM(packed_model(family), backend_named(backend)).eval()
    places = torch.tensor([0, 3, 3, 20, 30])
    with torch.no_grad():
        every, some = module.hidden_states(batch), module.layers_at(batch, places, layers)
    expected = torch.stack([every[layer].flatten(0, 1)[places] for layer in layers])
    real = batch.segment_ids.flatten()[places] > 0
    torch.testing.assert_close(some[:, real], expected[:, real], atol=1e-5, rtol=1e-5)


def test_layers_above_the_highest_one_are_not_run(
    study: tuple[Manifest, Split, Occurrences], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, corpus, found = study
    read = reader(manifest, 512, [0, 1])
    monkeypatch.setattr(read.module.model.base_model.encoder.layer[1], "attention", None)
    assert np.isfinite(vectors(read, corpus, found)[found.status == FOUND]).all()


def test_items_come_in_order_each_after_the_next_was_requested() -> None:
    log: list[str] = []

    def requested() -> Iterator[int]:
        for number in range(3):
            log.append(f"begin {number}")
            yield number

    for number in prefetch_one(requested()):
        log.append(f"end {number}")
    assert log == ["begin 0", "begin 1", "end 0", "begin 2", "end 1", "end 2"]
    assert list(prefetch_one([])) == []


def test_layers_count_from_both_ends() -> None:
    assert resolve_layers([-4, -3, -2, -1], 12, "m") == [9, 10, 11, 12]
    assert resolve_layers([0, -1, 12], 12, "m") == [0, 12]
    assert resolve_layers([-13], 12, "m") == [0]
    assert layer_labels([9, 12], "mean") == ["mean(9,12)"] and layer_labels([0, 9], "none") == ["0", "9"]


@pytest.mark.parametrize("layer", [3, -4])
def test_a_missing_layer_is_refused(layer: int) -> None:
    with pytest.raises(UserError, match=f"layers={layer}: tiny has 2 layers"):
        resolve_layers([layer], 2, "tiny")


@pytest.mark.parametrize(("layers", "expected"), [(12, [9, 10, 11, 12]), (4, [1, 2, 3, 4]), (2, [1, 2]), (1, [1])])
def test_the_default_is_the_last_four_layers_without_the_embeddings(layers: int, expected: list[int]) -> None:
    assert resolve_layers([], layers, "tiny") == expected


def test_centroids_are_means() -> None:
    centroids = Centroids(3, 2)
    centroids.add(np.array([0, 0, 2]), np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    centroids.add(np.array([0]), np.array([[5, 6]], np.float32))
    np.testing.assert_array_equal(centroids.means(), [[3, 4], [np.nan, np.nan], [5, 6]])

"""A stock model gets rows for added tokens: new rows are means, old ones stay, and base and model start alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from bert_tweets.common.errors import UserError
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text import recipe
from bert_tweets.corpus.text.added_tokens import add_emoji, recipe_of
from bert_tweets.corpus.text.recipe import FORMAT_VERSION, Recipe
from bert_tweets.corpus.text.tokenizer import fingerprint, ids_of, load_tokenizer
from bert_tweets.model.export import export_model
from bert_tweets.model.loading import check_model, extend, load_model
from tests.model.tiny import SIZES, VOCABULARY, stock_model

EMOJI = pa.array(["😷 😷 😷 🔥 🔥 ❤️"])
FAMILIES = ("bert", "roberta")
PIECES = [[7, 9, 11], [8], [7, 7, 12, 40]]


def manifest_of(tokenizer: Any) -> Manifest:
    """The manifest of shards made with this tokenizer."""
    return Manifest(
        recipe=recipe_of("tweets", "rules", tokenizer),
        max_length=32,
        vocabulary_size=len(tokenizer),
        special_ids=ids_of(tokenizer)["special_ids"],
        pad_id=tokenizer.pad_token_id,
        mask_id=tokenizer.mask_token_id,
        unknown_id=tokenizer.unk_token_id,
        unknown_tokens=0,
        splits={"train": [], "validation": []},
    )


@pytest.fixture(scope="module")
def stock_tokenizer(tokenizer_folder: Path) -> Any:
    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture(scope="module")
def manifest(stock_tokenizer: Any) -> Manifest:
    """The manifest of shards with two added emoji; the tokenizer was trained on 😷 among other characters."""
    found = manifest_of(add_emoji(stock_tokenizer, [EMOJI], 2))
    assert [added.token for added in found.recipe.added] == ["🔥", "❤"]
    return found


def saved(folder: Path, tokenizer: Any, kind: type = BertForMaskedLM, rows: int = 0) -> str:
    """A stock model with random weights and its tokenizer; by default with as many rows as the tokenizer has tokens."""
    torch.manual_seed(3)
    config = RobertaConfig if kind is RobertaForMaskedLM else BertConfig
    model = kind(config(**{**SIZES, "vocab_size": rows or len(tokenizer), "pad_token_id": tokenizer.pad_token_id}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tables(model: Any) -> dict[str, torch.Tensor]:
    """The tensors with a row per token."""
    decoder = model.get_output_embeddings()
    parts = {"embedding": model.get_input_embeddings().weight, "decoder": decoder.weight, "bias": decoder.bias}
    return {name: part.detach() for name, part in parts.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", [VOCABULARY, VOCABULARY - 2])
def test_new_rows_are_means_and_old_rows_do_not_change(family: str, first: int) -> None:
    stock, model = stock_model(family), stock_model(family)
    extend(model, PIECES, first)
    for name, before in tables(stock).items():
        after = tables(model)[name]
        assert len(after) == first + len(PIECES)
        assert torch.equal(after[:first], before[:first])
        for row, pieces in enumerate(PIECES, start=first):
            torch.testing.assert_close(after[row], sum(before[piece] for piece in pieces) / len(pieces))
    others = {name: tensor for name, tensor in model.state_dict().items() if tensor.shape[0] != first + len(PIECES)}
    assert len(others) == len(stock.state_dict()) - 4
    assert all(torch.equal(tensor, stock.state_dict()[name]) for name, tensor in others.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_embedding_and_decoder_stay_tied_and_both_biases_too(family: str) -> None:
    model = stock_model(family)
    extend(model, PIECES, VOCABULARY)
    head = model.cls.predictions if family == "bert" else model.lm_head
    assert head.decoder.weight is model.get_input_embeddings().weight
    assert head.decoder.bias is head.bias
    assert model.config.vocab_size == len(head.bias) == model.get_output_embeddings().out_features
    assert model.get_input_embeddings().padding_idx == stock_model(family).get_input_embeddings().padding_idx


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_old_tokens_do_not_change_on_old_text(family: str) -> None:
    stock, model = stock_model(family).eval(), stock_model(family).eval()
    extend(model, PIECES, VOCABULARY)
    ids = torch.randint(5, VOCABULARY, (4, 20), generator=torch.Generator().manual_seed(0))
    before, after = (x(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for x in (stock, model))
    torch.testing.assert_close(after[..., :VOCABULARY], before, rtol=1e-5, atol=1e-5)


def test_a_model_with_spare_rows_keeps_its_size(tmp_path: Path, stock_tokenizer: Any, manifest: Manifest) -> None:
    size = len(stock_tokenizer)
    name = saved(tmp_path, stock_tokenizer, rows=size + 16)
    before, after = BertForMaskedLM.from_pretrained(name), load_model(ModelConfig(name=name), manifest).model
    for part, table in tables(after).items():
        untouched = [*range(size), *range(size + 2, size + 16)]
        assert torch.equal(table[untouched], tables(before)[part][untouched])
        for row, added in enumerate(manifest.recipe.added, start=size):
            torch.testing.assert_close(table[row], tables(before)[part][added.pieces].mean(0))


@pytest.mark.parametrize("kind", [BertForMaskedLM, RobertaForMaskedLM])
def test_a_stock_model_is_accepted_and_gets_rows_from_the_subwords_of_the_names(
    kind: type, tmp_path: Path, stock_tokenizer: Any, manifest: Manifest
) -> None:
    name = saved(tmp_path, stock_tokenizer, kind)
    check_model(ModelConfig(name=name), manifest)
    state = torch.get_rng_state()
    loaded, again = (load_model(ModelConfig(name=name), manifest, seed) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.added_tokens == 2 and loaded.has_trained_head
    before = tables(kind.from_pretrained(name))  # type: ignore[attr-defined]
    for part, table in tables(loaded.model).items():
        assert torch.equal(table, tables(again.model)[part])
        assert torch.equal(table[:-2], before[part])
        for row, emoji in ((-2, "fire"), (-1, "heavy black heart")):
            pieces = stock_tokenizer(emoji, add_special_tokens=False).input_ids
            torch.testing.assert_close(table[row], before[part][pieces].mean(0))


def test_an_encoder_without_a_head_gets_them_too(tmp_path: Path, stock_tokenizer: Any, manifest: Manifest) -> None:
    loaded = load_model(ModelConfig(name=saved(tmp_path, stock_tokenizer, BertModel)), manifest)
    assert not loaded.has_trained_head and loaded.added_tokens == 2
    assert not tables(loaded.model)["bias"].any()
    embedding = tables(loaded.model)["embedding"]
    torch.testing.assert_close(embedding[-2], embedding[manifest.recipe.added[0].pieces].mean(0))


def test_a_new_model_has_rows_for_all_tokens(manifest: Manifest) -> None:
    loaded = load_model(ModelConfig(name="scratch"), manifest)
    assert loaded.added_tokens == 0 and loaded.model.config.vocab_size == manifest.vocabulary_size


@pytest.fixture
def exported(tmp_path: Path, stock_tokenizer: Any, manifest: Manifest) -> Path:
    """A model with rows for the added tokens, then modified as training would."""
    model = load_model(ModelConfig(name=saved(tmp_path / "stock", stock_tokenizer)), manifest).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    add_emoji(stock_tokenizer, [EMOJI], 2).save_pretrained(tmp_path / "shards" / "tokenizer")
    export_model(tmp_path / "model", model, None, manifest, str(tmp_path / "shards"))
    return tmp_path / "model"


def test_an_exported_model_loads_anywhere_and_is_accepted_again(exported: Path, manifest: Manifest) -> None:
    from safetensors.torch import load_file

    model, tokenizer = AutoModelForMaskedLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    assert model.config.vocab_size == len(tokenizer) == manifest.vocabulary_size
    assert fingerprint(tokenizer) == manifest.recipe.tokenizer
    assert manifest_of(tokenizer).recipe == manifest.recipe
    assert tokenizer.convert_ids_to_tokens([len(tokenizer) - 2, len(tokenizer) - 1]) == ["🔥", "❤"]
    check_model(ModelConfig(name=str(exported)), manifest)
    again = load_model(ModelConfig(name=str(exported)), manifest)
    assert again.added_tokens == 0
    stored = load_file(exported / "model.safetensors")
    for name, tensor in stored.items():
        assert torch.equal(again.model.state_dict()[name], tensor) and torch.equal(model.state_dict()[name], tensor)


def test_without_its_recipe_an_exported_model_is_judged_by_its_tokenizer(exported: Path, manifest: Manifest) -> None:
    (exported / "recipe.json").unlink()
    check_model(ModelConfig(name=str(exported)), manifest)
    assert load_model(ModelConfig(name=str(exported)), manifest).added_tokens == 0


def test_models_with_other_added_tokens_are_rejected_with_the_difference(
    exported: Path, stock_tokenizer: Any, manifest: Manifest
) -> None:
    def refused(carried: Recipe) -> str:
        (exported / "recipe.json").write_text(json.dumps(carried.to_json()), encoding="utf-8")
        with pytest.raises(UserError, match="its recipe is not that of the shards") as caught:
            check_model(ModelConfig(name=str(exported)), manifest)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    other = manifest_of(add_emoji(stock_tokenizer, [pa.array(["👾"])], 2)).recipe
    assert "added (2 tokens, " in refused(other) and "against 1 tokens, " in refused(other)
    without = manifest_of(stock_tokenizer).recipe
    assert "against no tokens" in refused(without)
    with pytest.raises(UserError, match="added \\(no tokens against 1 tokens, "):
        recipe.require_same(without, other, None, "model")
    first, second = manifest.recipe.added
    renamed = replace(manifest.recipe, added=[first, replace(second, pieces=[5])])
    assert "shards: added (" in refused(renamed)
    assert f"format_version ({FORMAT_VERSION} against 1)" in refused(replace(manifest.recipe, format_version=1))


def test_a_model_that_is_too_small_or_has_other_tokens_is_rejected(
    tmp_path: Path, stock_tokenizer: Any, manifest: Manifest
) -> None:
    small = saved(tmp_path / "small", stock_tokenizer, rows=len(stock_tokenizer) - 1)
    with pytest.raises(UserError, match=f"has {len(stock_tokenizer) - 1} tokens, the shards have 240"):
        load_model(ModelConfig(name=small), manifest)
    added = saved(tmp_path / "added", add_emoji(stock_tokenizer, [pa.array(["👾"])], 1))
    with pytest.raises(UserError, match="recipe is not that of the shards: tokenizer"):
        check_model(ModelConfig(name=added), manifest)
    # Shards without added tokens still reject a model that has some.
    with pytest.raises(UserError, match="recipe is not that of the shards: tokenizer"):
        check_model(ModelConfig(name=added), manifest_of(stock_tokenizer))

"""Loading: fp32, our attention, whether the head is trained, and one-line errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from bert_tweets.common.errors import UserError
from bert_tweets.config import ModelConfig, ScratchConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.model.attention import NAME
from bert_tweets.model.loading import check_model, load_model
from tests.model.tiny import SIZES


@pytest.fixture(scope="module")
def manifest(shards: Path) -> Manifest:
    return Manifest.read(shards)


@pytest.fixture(autouse=True)
def _tokenizer(shards: Path) -> None:
    """Models are saved with the tokenizer of the shards: one without any is rejected."""
    saved.tokenizer = shards / "tokenizer"  # type: ignore[attr-defined]


def saved(folder: Path, manifest: Manifest, kind: type = BertForMaskedLM, **changes: object) -> str:
    sizes = {**SIZES, "vocab_size": manifest.vocabulary_size, "max_position_embeddings": 128, "pad_token_id": 0}
    torch.manual_seed(0)
    kind(BertConfig(**{**sizes, **changes})).save_pretrained(folder)
    shutil.copytree(saved.tokenizer, folder, dirs_exist_ok=True)  # type: ignore[attr-defined]
    return str(folder)


def test_a_half_precision_file_becomes_a_full_precision_model(tmp_path: Path, manifest: Manifest) -> None:
    BertForMaskedLM(
        BertConfig(**{**SIZES, "vocab_size": manifest.vocabulary_size, "max_position_embeddings": 128})
    ).half().save_pretrained(tmp_path)
    loaded = load_model(ModelConfig(name=str(tmp_path)), manifest)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.model.parameters())
    assert loaded.has_trained_head
    assert loaded.model.config._attn_implementation == NAME


def test_dropout_is_as_set_and_attention_dropout_is_off(tmp_path: Path, manifest: Manifest) -> None:
    name = saved(tmp_path, manifest, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    for asked in (0.0, 0.2):
        model = load_model(ModelConfig(name=name, dropout=asked), manifest).model
        rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
        assert rates == {asked, 0.0}
        assert model.config.attention_probs_dropout_prob == 0


def test_an_encoder_gets_a_head_on_the_scale_of_its_embeddings(tmp_path: Path, manifest: Manifest) -> None:
    name = saved(tmp_path, manifest, BertModel, initializer_range=0.3)
    first, second, other = (load_model(ModelConfig(name=name), manifest, seed) for seed in (0, 0, 1))
    assert not first.has_trained_head
    head = first.model.cls.predictions
    scale = float(first.model.get_input_embeddings().weight.detach().std())
    assert float(head.transform.dense.weight.detach().std()) == pytest.approx(scale, rel=0.15)
    assert not head.transform.dense.bias.any() and not head.decoder.bias.any()
    assert head.decoder.weight is first.model.get_input_embeddings().weight
    again, different = (x.model.cls.predictions.transform.dense.weight for x in (second, other))
    assert torch.equal(head.transform.dense.weight, again)
    assert not torch.equal(head.transform.dense.weight, different)
    stored = BertModel.from_pretrained(name)
    assert torch.equal(
        first.model.bert.encoder.layer[1].output.dense.weight, stored.encoder.layer[1].output.dense.weight
    )


def test_a_model_from_scratch_is_a_function_of_its_seed(manifest: Manifest) -> None:
    config = ModelConfig(name="scratch", scratch=ScratchConfig(32, 1, 2, 32))
    before = torch.get_rng_state()
    one, same, other = (load_model(config, manifest, seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_models_that_do_not_fit_are_rejected_in_one_line(tmp_path: Path, manifest: Manifest) -> None:
    def refused(name: str) -> str:
        with pytest.raises(UserError) as caught:
            check_model(ModelConfig(name=name), manifest)
            load_model(ModelConfig(name=name), manifest)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such folder" in refused(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    assert "is not a model" in refused(str(tmp_path / "empty"))
    assert "has 50 tokens" in refused(saved(tmp_path / "small", manifest, vocab_size=50))
    assert "max_length=64" in refused(saved(tmp_path / "short", manifest, max_position_embeddings=64))
    pickled = Path(saved(tmp_path / "pickled", manifest))
    torch.save({}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    assert "has no model.safetensors" in refused(str(pickled))
    hollow = Path(saved(tmp_path / "hollow", manifest))
    saved(tmp_path / "wide", manifest, hidden_size=64)
    (hollow / "config.json").write_text((tmp_path / "wide" / "config.json").read_text())
    assert "weights" in refused(str(hollow))
    assert "no such folder, and not available from the hub" in refused("no-such-organisation/no-such-model")


def test_a_stock_model_with_another_tokenizer_is_rejected(tmp_path: Path, manifest: Manifest) -> None:
    from bert_tweets.corpus.text.tokenizer import train_wordpiece

    name = saved(tmp_path, manifest)
    check_model(ModelConfig(name=name), manifest)
    train_wordpiece([["quite other words than those of the tweets " * 3]], 60).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="its recipe is not that of the shards: tokenizer"):
        check_model(ModelConfig(name=name), manifest)

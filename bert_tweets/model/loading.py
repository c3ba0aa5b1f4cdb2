"""Loading: the model that `transformers` loads, in fp32, with our attention; says whether its head is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bert_tweets.common.errors import UserError
from bert_tweets.common.hub import MAIN, in_reach, is_local, snapshot, split_revision
from bert_tweets.config import EmbedConfig, EvaluateConfig, ModelConfig
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest
from bert_tweets.corpus.text import recipe
from bert_tweets.corpus.text.tokenizer import fingerprint, load_tokenizer

from .attention import register
from .encoder import Head, first_position
from .safety import require_safe

ARCHITECTURES = ("bert", "camembert", "roberta", "xlm-roberta", "modernbert")
SCRATCH = "scratch"


@dataclass(frozen=True)
class LoadedModel:
    """A masked language model of `transformers`, fp32, on the CPU.

    Attributes:
        has_trained_head: False if the files held only an encoder, or nothing was loaded: its masked-LM head is new,
            and the first fall of its loss is that head being learnt.
        added_tokens: rows that were added for tokens of the shards that it lacked.
    """

    model: Any
    has_trained_head: bool
    added_tokens: int = 0


def fetch(name: str, revision: str) -> None:
    """Download a hub model; one process per machine calls it, before the others load.

    Raises:
        UserError: the hub does not have it or is not reachable.
    """
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.safetensors"]
    try:
        place, revision = split_revision(name, revision)
        snapshot_download(place, revision=revision, allow_patterns=wanted, local_files_only=not in_reach())
    except Exception as error:  # the hub's client raises many kinds of errors, also those of requests
        raise UserError(_unreachable(name, error)) from None


def check_model(config: ModelConfig, manifest: Manifest | None) -> None:
    """Reject a model that cannot be adapted to these shards (None: to any), before its weights are read.

    Raises:
        UserError: not found, of an unsupported architecture, or of another recipe or tokenizer than the shards; the
            message says which part differs.
    """
    if config.name != SCRATCH:
        _settings(config)
        if manifest is not None:
            recipe.require_same(manifest.recipe, *own_recipe(config), config.name)


def load_model(config: ModelConfig, manifest: Manifest, seed: int = 0) -> LoadedModel:
    """Load, or make with new weights from `seed`, the masked language model for these shards.

    A stock model gets rows for the tokens that were added to the shards' tokenizer, see `extend`.

    Raises:
        UserError: not found, of an unsupported architecture, without safetensors, or too small for the shards.
    """
    quiet_transformers()
    loaded = _scratch(config, manifest, seed) if config.name == SCRATCH else _pretrained(config, seed)
    missing = _missing_tokens(config, manifest)
    first = manifest.vocabulary_size - len(missing)
    size, positions = loaded.model.config.vocab_size, _positions(loaded.model.config)
    if size < first:
        raise UserError(f"{config.name}: has {size} tokens, the shards have {first}")
    if positions < manifest.max_length:
        raise UserError(
            f"{config.name}: takes at most {positions} tokens, the shards' longest tweet may have "
            f"{manifest.max_length}; prepare with max_length={positions}"
        )
    if missing:
        extend(loaded.model, [token.pieces for token in missing], first)
    return replace(loaded, added_tokens=len(missing))


def empty_model(config: ModelConfig, manifest: Manifest, multiple: int = 1) -> Any:
    """The model of a run without weights, on torch's meta device, made from its config.json.

    For `multiple`, see `pad_vocabulary`. Raises UserError as `load_model` does, but checks no weights.
    """
    from transformers import AutoModelForMaskedLM

    quiet_transformers()
    settings = _scratch_settings(config, manifest) if config.name == SCRATCH else _settings(config)
    size = max(settings.vocab_size, manifest.vocabulary_size if _missing_tokens(config, manifest) else 0)
    settings.vocab_size = -(-size // multiple) * multiple
    with torch.device("meta"):
        return AutoModelForMaskedLM.from_config(settings, attn_implementation=register(), dtype=torch.float32)


def extend(model: Any, pieces: list[list[int]], first: int) -> None:
    """Add rows for new tokens: embedding, decoder and decoder bias start as the mean of the rows of their subwords.

    Other rows stay as they are, except those from `first` on, which belonged to no token.

    Args:
        pieces: ids of the subwords of each new token, all below `first`.
        first: id of the first new token; the others follow.
    """
    size = first + len(pieces)
    if size > model.config.vocab_size:
        _seeded(0, lambda: model.resize_token_embeddings(size, mean_resizing=False))
    decoder = model.get_output_embeddings()
    with torch.no_grad():
        for table in (model.get_input_embeddings().weight, decoder.weight, decoder.bias):
            table[first:size] = torch.stack([table[ids].mean(dim=0) for ids in pieces])


def load_weights(model: Any, weights: dict[str, Tensor]) -> None:
    """Load weights by the stock names, tied ones once, as an engine returns them, into a stock model.

    Raises:
        ValueError: they belong to another model; names the first weight that differs.
    """
    own = dict(model.named_parameters())
    if own.keys() != weights.keys():
        raise ValueError(f"the weights differ in {sorted(own.keys() ^ weights.keys())[0]}")
    with torch.no_grad():
        for name, weight in own.items():
            if weight.shape != weights[name].shape:
                raise ValueError(f"{name} is {list(weights[name].shape)}, not {list(weight.shape)}")
            weight.copy_(weights[name])


def weights_identity(name: str, revision: str = MAIN) -> str:
    """The identity of a model's weights: sha256 over its safetensors, or the hub's name and commit."""
    if not is_local(name):
        taken = snapshot(name, revision)
        return f"{split_revision(name)[0]}@{taken.name}" if taken else name
    digest = hashlib.sha256()
    for path in sorted(Path(name).glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def output_fingerprint(config: EvaluateConfig | EmbedConfig, manifest: Manifest) -> Mapping[str, object]:
    """The fingerprint of an output of models and base: settings except `output`, tweets, weights."""
    models = config.model if isinstance(config.model, list) else [config.model]
    return {
        "settings": {key: value for key, value in asdict(config).items() if key != "output"},
        "data": manifest.fingerprint,
        "weights": {name: weights_identity(name) for name in (*models, config.base) if name},
    }


def quiet_transformers() -> None:
    """Silence the progress bars of transformers, and its report on new weights, which we log ourselves."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def set_dropout(config: Any, dropout: float) -> None:
    """Set hidden dropout; attention dropout is off, because packed attention has none."""
    if config.model_type == "modernbert":
        config.embedding_dropout = config.mlp_dropout = dropout
        config.attention_dropout = 0.0
    else:
        config.hidden_dropout_prob = dropout
        config.attention_probs_dropout_prob = 0.0


def _missing_tokens(config: ModelConfig, manifest: Manifest) -> list[recipe.Added]:
    """The added tokens of the shards that a model has no rows for: all of them for a stock model, else none."""
    added = manifest.recipe.added
    if not added or config.name == SCRATCH:
        return []
    return added if recipe.lacks_added_tokens(manifest.recipe, own_recipe(config)[1]) else []


def own_recipe(config: ModelConfig) -> tuple[recipe.Recipe | None, str | None]:
    """The recipe that a model carries, or the fingerprint of its own tokenizer; raises UserError if it has neither."""
    own = recipe.read_recipe(config.name if is_local(config.name) else _hub_folder(config))
    # A model without either could belong to any tokenizer.
    return own, fingerprint(load_tokenizer(config.name, config.revision)) if own is None else None


def _scratch(config: ModelConfig, manifest: Manifest, seed: int) -> LoadedModel:
    from transformers import BertForMaskedLM

    bert = _scratch_settings(config, manifest)
    bert._attn_implementation = register()
    return LoadedModel(_seeded(seed, lambda: BertForMaskedLM(bert)), has_trained_head=False)


def _scratch_settings(config: ModelConfig, manifest: Manifest) -> Any:
    from transformers import BertConfig

    sizes = config.scratch
    bert = BertConfig(
        vocab_size=manifest.vocabulary_size,
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.num_hidden_layers,
        num_attention_heads=sizes.num_attention_heads,
        intermediate_size=sizes.intermediate_size,
        max_position_embeddings=manifest.max_length,
        pad_token_id=manifest.pad_id,
    )
    set_dropout(bert, config.dropout)
    return bert


def _settings(config: ModelConfig) -> Any:
    """The model's own configuration, of a supported architecture."""
    from transformers import AutoConfig

    if is_local(config.name):
        folder, inside = Path(config.name), Path(config.name) / "model"
        if not folder.is_dir():
            raise UserError(f"{config.name}: no such folder; name the folder of a model, or a model on the hub")
        if not (folder / "config.json").is_file():
            hint = f"did you mean {inside}?" if (inside / "config.json").is_file() else "it holds no config.json"
            raise UserError(f"{config.name}: is not a model; {hint}")
        require_safe(folder, config.name)
    try:
        name, options = _where(config)
        settings = AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # missing, malformed, unreachable: each library involved has its own kinds
        raise UserError(_unreachable(config.name, error)) from None
    if not is_local(config.name) and (taken := snapshot(config.name, config.revision)):
        require_safe(taken, config.name)
    if settings.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{config.name}: architecture '{settings.model_type}' is not supported; use one of {known}")
    set_dropout(settings, config.dropout)
    return settings


def _where(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """The name and options that say where to look; without a reachable hub transformers must not try for minutes."""
    name, revision = split_revision(config.name, config.revision)
    return name, {"revision": revision, "local_files_only": is_local(config.name) or not in_reach()}


def _pretrained(config: ModelConfig, seed: int) -> LoadedModel:
    from transformers import AutoModelForMaskedLM

    settings, (name, options) = _settings(config), _where(config)

    def load() -> Any:
        return AutoModelForMaskedLM.from_pretrained(
            name,
            config=settings,
            dtype=torch.float32,  # a file in fp16 would silently give a model in fp16
            attn_implementation=register(),
            use_safetensors=True,  # pickled weights can run code
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )

    try:
        model, report = _seeded(seed, load)
    except Exception as error:
        raise UserError(f"{config.name}: its weights cannot be loaded: {_first_line(error)}") from None
    missing = set(report["missing_keys"])
    in_head = {key for key in missing if key.startswith(("cls.", "lm_head.", "head.", "decoder."))}
    if missing - in_head or report.get("mismatched_keys"):
        odd = sorted(missing - in_head) or sorted(map(str, report["mismatched_keys"]))
        raise UserError(f"{config.name}: its weights do not fit its config.json ({odd[0]} …)")
    has_head = not any("dense" in key for key in in_head)
    if not has_head:
        _seeded(seed, lambda: _new_head(model))
    return LoadedModel(model, has_head)


def _new_head(model: Any) -> None:
    """Initialise a new head on the scale of the embeddings that it is tied to, so that its logits have a usual size."""
    scale, head = float(model.get_input_embeddings().weight.detach().std()), Head(model)
    with torch.no_grad():
        head.dense.weight.normal_(0.0, scale)
        head.norm.weight.fill_(1.0)
        for bias in (head.dense.bias, head.norm.bias, head.decoder.bias):
            if bias is not None:
                bias.zero_()


def _seeded(seed: int, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def positions_of(config: ModelConfig) -> int:
    """The longest sequence that a model takes, in tokens, from its config.json; raises UserError as `check_model`."""
    return _positions(_settings(config))


def _positions(settings: Any) -> int:
    return int(settings.max_position_embeddings - first_position(settings))


def _hub_folder(config: ModelConfig) -> str:
    """The local folder of a hub model's recipe, if it was exported here; "" if it has none."""
    from huggingface_hub import hf_hub_download

    name, options = _where(config)
    try:
        return str(Path(hf_hub_download(name, recipe.FILE, **options)).parent)
    except Exception:  # no such file, or not reachable: the client has many kinds of errors
        return ""


def _unreachable(name: str, error: Exception) -> str:
    if is_local(name):
        return f"{name}: is not a model: {_first_line(error)}"
    why = _first_line(error) if in_reach() else "it is not reachable, and nothing was downloaded before"
    return f"{name}: no such folder, and not available from the hub ({why}); name the folder of a model"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def tokenizer_folder(data_path: str) -> Path:
    """The folder of the shards' tokenizer."""
    return Path(data_path) / TOKENIZER_FOLDER

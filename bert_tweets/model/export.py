"""Export: a plain `save_pretrained` folder with tokenizer and recipe."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from bert_tweets.common.hub import json_object
from bert_tweets.common.output_folder import atomic_output_folder
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.text import recipe
from bert_tweets.corpus.text.tokenizer import load_tokenizer, save

from .loading import load_weights, set_dropout, tokenizer_folder
from .vocab_padding import cut_vocabulary


def export_model(
    folder: Path,
    model: Any,
    weights: dict[str, Tensor] | None,
    manifest: Manifest,
    data_path: str,
    vocabulary_size: int | None = None,
) -> None:
    """Write a model that `AutoModelForMaskedLM` and `AutoTokenizer` can load, completely or not at all.

    Args:
        folder: folder of the model; must not exist.
        weights: weights for such a model, see `load_weights`; None: those that it has. An engine may have sharded them.
        manifest: manifest of the shards that it was adapted to; their tokenizer and recipe are exported too.
        vocabulary_size: vocabulary size without padding rows; None: there are none.
    """
    if weights is not None:
        # Not handed to save_pretrained, which would write tied weights twice.
        model = type(model)(model.config)
        load_weights(model, weights)
    if vocabulary_size is not None:
        cut_vocabulary(model, vocabulary_size)
    if model.config.model_type != "modernbert":
        # Fine-tuning starts with BERT's usual dropout, whatever this training used.
        set_dropout(model.config, 0.1)
        model.config.attention_probs_dropout_prob = 0.1
    with atomic_output_folder(folder) as side:
        with _system_errors():
            model.save_pretrained(side)
        save(load_tokenizer(str(tokenizer_folder(data_path))), side)
        carried = {**manifest.recipe.to_json(), "data": manifest.fingerprint}
        (side / recipe.FILE).write_text(json.dumps(carried, indent=2), encoding="utf-8")


@contextmanager
def _system_errors() -> Iterator[None]:
    """Raise an error of the system, such as a full disk, as an OSError: safetensors has it only in its text."""
    try:
        yield
    except SafetensorError as error:
        if not (found := re.search(r"\(os error (\d+)\)", str(error))):
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from None


def adapted_on(name: str) -> str | None:
    """The fingerprint of the shards that a model was adapted to; None for a model that was not exported here."""
    return json_object(Path(name) / recipe.FILE).get("data")

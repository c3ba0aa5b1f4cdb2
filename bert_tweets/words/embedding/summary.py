"""The summary that embed leaves: what was found of each word, its neighbours, and how far it moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from bert_tweets.config import EmbedConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.words.occurrences.find import FOUND, STATUSES
from bert_tweets.words.occurrences.part_of_speech import part_of_speech
from bert_tweets.words.occurrences.select import usual_pieces

from .drift import MEASURES, over_seeds, rounded, summarized
from .study import BASE, MODEL, Answer, Study


def summarize(
    config: EmbedConfig,
    manifest: Manifest,
    study: Study,
    answers: dict[str, Answer],
    changes: list[dict[str, list[float | None]]],
) -> dict[str, Any]:
    """What summary.json says, but for its notes.

    Args:
        config: the settings.
        manifest: of the shards.
        study: what was asked.
        answers: by role.
        changes: by training seed, see `before_after.measured`; none without a base.
    """
    model, base = answers[MODEL], answers.get(BASE)
    before_after = summarized(changes, len(study.words)) if base else [None] * len(study.words)
    words = {
        word.text: {
            **_word_summary(study, number, model, base),
            "neighbour_overlap": changes[0]["neighbour_overlap"][number] if base else None,
            "before_after": before_after[number],
        }
        for number, word in enumerate(study.words)
    }
    return {
        "words": words,
        "asked": [word.text for word in study.words],
        "controls": _control_summary(study, changes),
        "layers": model.layers[0] if config.layer_pooling == "mean" else ", ".join(model.layers),
        "base_layers": None
        if not base
        else base.layers[0]
        if config.layer_pooling == "mean"
        else ", ".join(base.layers),
        # Of the files of vectors, the neighbours, and what is compared before and after.
        "vectors_layer": model.centroids.space.layer,
        "layer_pooling": config.layer_pooling,
        "pooling": config.pooling,
        "correction": config.correction,
        "correction_fitted": {role: answer.centroids.space.fitted for role, answer in answers.items()},
        "model": model.name,
        "models": config.model,
        "seeds": len(config.model),
        "base": config.base or None,
        "weights": {role: answer.centroids.space.weights for role, answer in answers.items()},
        "recipe": manifest.recipe.hash,
        "data": manifest.fingerprint,
        "background": {"tweets": study.background.tweets, "words": len(study.background.words)},
        "seed": config.seed,
    }


def _control_summary(study: Study, changes: list[dict[str, list[float | None]]]) -> dict[str, Any]:
    """Of each control: places in all tweets, tokens, and what is compared before and after, as means over seeds."""
    occurrences, first = study.occurrences, len(study.words)
    summary = {}
    for number, word in enumerate(study.controls, first):
        summary[word.text] = {
            "matches": int(study.matches[number]),
            "pieces": usual_pieces(occurrences, number),
            "part_of_speech": word.part_of_speech,
            **{name: rounded(over_seeds([seed[name][number] for seed in changes])) for name in MEASURES},
        }
    return summary


def _word_summary(study: Study, number: int, model: Answer, base: Answer | None) -> dict[str, Any]:
    occurrences = study.occurrences
    mine = occurrences.places.word == number
    found = mine & (occurrences.status == FOUND)
    counts = np.bincount(occurrences.status[mine], minlength=len(STATUSES)).tolist()
    return {
        **dict(zip(STATUSES, counts, strict=True)),
        "matches": int(study.matches[number]),
        "pieces": usual_pieces(occurrences, number),
        "part_of_speech": part_of_speech(study.words[number].key),
        "tweets": len(np.unique(occurrences.places.tweet[found])),
        "clusters": len(np.unique(occurrences.cluster[found])),
        "neighbours": [list(pair) for pair in model.neighbours[number]],
        "base_neighbours": [list(pair) for pair in base.neighbours[number]] if base else [],
    }

"""The meaning test: pairs of words in context through a model and its base; what some choose is frozen for others."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.common.arrays import Doubles
from bert_tweets.common.errors import UserError
from bert_tweets.common.hashing import generator
from bert_tweets.config import EmbedConfig, MeaningTestConfig, ModelConfig
from bert_tweets.distributed.download import check_local, fetch_and_check
from bert_tweets.distributed.world import World, process_group
from bert_tweets.model.loading import weights_identity
from bert_tweets.words.embedding.extractor import Reader, layer_labels
from bert_tweets.words.embedding.pipeline import reader_of
from bert_tweets.words.occurrences.find import FOUND
from bert_tweets.words.occurrences.span_corpus import SpanCorpus, spans_for
from bert_tweets.words.occurrences.span_file import SpanFile
from bert_tweets.words.statistics.pair_metrics import (
    FEW_WORDS,
    Frozen,
    choose_threshold,
    cosines,
    pair_scores,
    resampled,
    with_intervals,
)
from bert_tweets.words.store.reader import NO_NUMBERS

from .pair_files import Pairs, read_pairs

logger = logging.getLogger(__name__)

MODEL, BASE = "model", "base"
Scores = dict[str, Doubles]


@dataclass(frozen=True)
class Questions:
    """The files of a meaning test.

    Attributes:
        train: pairs that layer and threshold are chosen on.
        tests: pairs that they are tested on.
    """

    train: Pairs
    tests: list[Pairs]

    @property
    def files(self) -> list[Pairs]:
        return [self.train, *self.tests]


def questions_of(config: MeaningTestConfig) -> Questions:
    """Reads the files.

    Raises:
        UserError: one cannot be used, or is both for choosing and for testing.
    """
    labels = config.labels or [""] * len(config.test)
    if len(labels) != len(config.test):
        raise UserError(f"labels: names {len(labels)} files for {len(config.test)} of test; give one for each, or none")
    train = read_pairs(config.train, config.train_labels)
    if len(set(train.same.tolist())) < 2:
        raise UserError(f"{config.train}: all of its pairs have one label; nothing can be chosen on them")
    tests = [read_pairs(path, beside) for path, beside in zip(config.test, labels, strict=True)]
    for test in tests:
        if set(test.identities()) == set(train.identities()):
            raise UserError(f"{test.path}: holds the pairs of train; a test of what was chosen on them says nothing")
    return Questions(train, tests)


def meaning_test_fingerprint(config: MeaningTestConfig, questions: Questions) -> dict[str, Any]:
    """What decides an output: settings but for its place, pairs and their labels, weights."""
    pairs = [[one.words, one.texts, one.start.tolist(), one.end.tolist(), one.same.tolist()] for one in questions.files]
    names = [name for name in (config.model, config.base) if name]
    return {
        "settings": {key: value for key, value in asdict(config).items() if key != "output"},
        "pairs": hashlib.sha256(repr(pairs).encode()).hexdigest(),
        "weights": {name: weights_identity(name) for name in names},
    }


def judge(config: MeaningTestConfig, questions: Questions, world: World) -> dict[str, Any]:
    """Embeds all pairs, chooses on the training pairs, and tests; what meaning.json holds.

    Raises:
        UserError: a model does not fit, or too few pairs can be scored.
    """
    roles = {MODEL: config.model} | ({BASE: config.base} if config.base else {})
    models = [ModelConfig(name=name) for name in roles.values()]
    spans = spans_for(_file_of(questions.files), list(roles.values()))
    check_local(models, spans.manifest)
    scores: dict[str, Scores] = {}
    with process_group(world):
        fetch_and_check(models, spans.manifest, world)
        for role, name in roles.items():
            logger.info(f"embedding with {name}")
            scores[role] = _scores(_reader(config, spans, name, world), spans, config)
    bounds = np.cumsum([0, *map(len, questions.files)])
    parts = [slice(first, last) for first, last in pairwise(bounds.tolist())]
    # The same tokens of the same windows, in both models.
    found = (spans.occurrences.status == FOUND).reshape(-1, 2).all(axis=1)
    frozen = {role: _chosen(of_role, questions.train, parts[0], found) for role, of_role in scores.items()}
    for role, of_role in scores.items():
        if any(np.isnan(values[found]).any() for values in of_role.values()):
            raise UserError(f"{roles[role]}: {NO_NUMBERS}")
    of_train = set(questions.train.identities())
    tests = [
        _tested(
            test,
            {role: scores[role][frozen[role].layer][part] for role in roles},
            frozen,
            found[part],
            sum(key in of_train for key in test.identities()),
            config,
        )
        for test, part in zip(questions.tests, parts[1:], strict=True)
    ]
    return {
        **roles,
        "train": config.train,
        "frozen": {role: asdict(one) for role, one in frozen.items()},
        "pooling": config.pooling,
        "seed": config.seed,
        "bootstrap_samples": config.bootstrap_samples,
        "tests": tests,
    }


def _file_of(files: Sequence[Pairs]) -> SpanFile:
    """All texts of all pairs as spans, a row each."""
    texts = pa.array([text for one in files for text in one.texts], pa.string())
    nothing = pa.nulls(len(texts), pa.string())
    return SpanFile(
        texts,
        np.concatenate([one.start for one in files]),
        np.concatenate([one.end for one in files]),
        [],
        np.zeros(len(texts), np.int64),
        pa.array(map(str, range(len(texts))), pa.string()),
        nothing,
        pa.nulls(len(texts), pa.timestamp("s", tz="UTC")),
        {},
        "",
    )


def _reader(config: MeaningTestConfig, spans: SpanCorpus, name: str, world: World) -> Reader:
    """Of each layer that is asked for, of all where none is."""
    shared = {key: getattr(config, key) for key in ("layers", "pooling", "seed", "tokens_per_device", "precision")}
    reader = reader_of(EmbedConfig(model=[name], layer_pooling="none", **shared), spans.manifest, name, world)
    every = list(range(int(reader.module.model.config.num_hidden_layers) + 1))
    return reader if config.layers else replace(reader, layers=every)


def _scores(reader: Reader, spans: SpanCorpus, config: MeaningTestConfig) -> Scores:
    """Cosines of all pairs by layer; where layers are not asked for, those of the mean that embed takes too."""
    labels = list(reader.labels)
    last_four = reader.layers[max(1, len(reader.layers) - 4) :]
    # The largest values of a mean are not the mean of the largest values.
    mean = not config.layers and config.pooling != "max" and len(last_four) > 1
    if mean:
        labels += layer_labels(last_four, "mean")
    scores = np.full((len(spans.occurrences) // 2, len(labels)), np.nan)
    for rows, vectors in reader.vectors(spans.corpus, spans.occurrences):
        # A text is a tweet here, and slices are of an even number of these, so that pairs stay whole.
        assert rows.start % 2 == 0 and rows.stop % 2 == 0
        if mean:
            of_mean = vectors[:, [reader.layers.index(layer) for layer in last_four]].mean(axis=1, keepdims=True)
            vectors = np.concatenate([vectors, of_mean], axis=1)
        scores[rows.start // 2 : rows.stop // 2] = cosines(vectors[::2], vectors[1::2])
    return dict(zip(labels, scores.T, strict=True))


def _chosen(scores: Scores, train: Pairs, part: slice, found: npt.NDArray[np.bool_]) -> Frozen:
    there = found[part]
    if len(set(train.same[there].tolist())) < 2:
        raise UserError(f"{train.path}: of its pairs {int(there.sum())} can be scored, of one label; give more of them")
    return choose_threshold({layer: values[part][there] for layer, values in scores.items()}, train.same[there])


def _tested(
    test: Pairs,
    scores: Scores,
    frozen: dict[str, Frozen],
    found: npt.NDArray[np.bool_],
    in_train: int,
    config: MeaningTestConfig,
) -> dict[str, Any]:
    """What meaning.json holds of a file, of which some pairs may be in that of training too."""
    rows = np.flatnonzero(found)
    if not len(rows):
        raise UserError(f"{test.path}: none of its words has tokens of its own in both texts; nothing can be scored")
    words, same = [test.words[row] for row in rows.tolist()], test.same[rows]
    # The same resamples for both models, so that their difference is paired.
    weights = resampled(words, config.bootstrap_samples, generator(config.seed, "words of the meaning test"))
    values = {role: pair_scores(scores[role][rows], same, frozen[role].threshold, weights) for role in scores}
    result: dict[str, Any] = {
        "file": test.path,
        "pairs": len(test),
        "unlabelled": test.unlabelled,
        "in_train": in_train,
        "scored": len(rows),
        "words": len(set(words)),
        "same": float(same.mean()),
        **{role: with_intervals(of_role) for role, of_role in values.items()},
        "difference": with_intervals(values[MODEL] - values[BASE]) if BASE in values else None,
    }
    result["notes"] = _notes(result, list(values))
    return result


def _notes(result: dict[str, Any], roles: Sequence[str]) -> list[str]:
    where, notes = result["file"], []
    if result["unlabelled"]:
        notes.append(f"{where}: {result['unlabelled']:,} more pairs have no label and are left out")
    if result["in_train"]:
        notes.append(
            f"{where}: {result['in_train']:,} of its pairs are pairs of train, too, on which layer and threshold were "
            "chosen; its figures flatter the model"
        )
    if result["scored"] < result["pairs"]:
        lost = result["pairs"] - result["scored"]
        notes.append(f"{where}: {lost:,} of {result['pairs']:,} pairs are not scored, for a word is lost to [UNK]")
    if result["words"] < FEW_WORDS:
        notes.append(f"{where}: is of {result['words']} word(s), too few for its intervals to be trusted")
    for role in roles:
        auc = result[role]["auc"][0]
        if auc is None:
            notes.append(f"{where}: all scored pairs have one label; there is no AUC")
            break
        if auc < 0.5:
            notes.append(
                f"{where}: AUC of the {role} is {auc:.3f}, under .5: words that mean the same are less alike there; "
                "it is not turned round"
            )
    return notes

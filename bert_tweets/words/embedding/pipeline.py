"""Embedding: from asked words to their occurrences, vectors, centroids and neighbours, in model and base."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert_tweets.common.errors import UserError
from bert_tweets.common.output_folder import write_json_atomic
from bert_tweets.config import EmbedConfig, ModelConfig
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest
from bert_tweets.corpus.shards.reader import verify
from bert_tweets.corpus.text.cleaning import USER
from bert_tweets.data.layout import Layout, row_length_of
from bert_tweets.distributed.download import check_local, fetch_and_check
from bert_tweets.distributed.world import World, process_group
from bert_tweets.engine.precision import PRODUCTS
from bert_tweets.model.attention import Shape, backend_for
from bert_tweets.model.loading import load_model, weights_identity
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.words.occurrences.find import FOUND, UNKNOWN
from bert_tweets.words.occurrences.span_corpus import SpanCorpus
from bert_tweets.words.store.reader import NO_NUMBERS, OCCURRENCES, SUMMARY
from bert_tweets.words.store.vector_space import Vectors, VectorSpace

from .background_writer import Behind
from .drift import Kept, compared, distance_ranks, drift_by_word
from .extractor import Centroids, Floats, Reader, resolve_layers
from .gather_ordered import Vectors as Stream
from .gather_ordered import in_order
from .neighbours import background_mean, nearest
from .parquet_writer import OccurrenceWriter, write_word2vec
from .postprocess import Correction, Moments
from .static import static_vectors, usual_tokens
from .study import BASE, MODEL, Answer, Neighbours, Study
from .study_builder import find_study, words_of_study
from .substitutes import substitutes_of
from .summary import summarize

logger = logging.getLogger(__name__)

VECTORS, BASE_VECTORS, STATIC_VECTORS = "vectors.txt", "base_vectors.txt", "static_vectors.txt"


def roles_of(config: EmbedConfig) -> dict[str, str]:
    """The models by what the rows call them: base first, then `model`, `model.2`, … for further training seeds.

    Raises:
        UserError: a model is given twice.
    """
    if len(set(config.model)) < len(config.model):
        raise UserError("model: names one model twice; give each training seed's own, or one")
    models = {MODEL if not number else f"{MODEL}.{number + 1}": name for number, name in enumerate(config.model)}
    return ({BASE: config.base} if config.base else {}) | models


def embed(
    config: EmbedConfig, manifest: Manifest, world: World, folder: Path, spans: SpanCorpus | None = None
) -> dict[str, Any] | None:
    """Embeds the words and writes the files of a words folder; each rank looks for, and runs, its share of the tweets.

    Args:
        config: the settings.
        manifest: of the shards.
        world: the ranks.
        folder: takes the files; rank 0 has made it, and the others see it.
        spans: what `occurrences=` asks for, in place of shards; the manifest is theirs.

    Returns:
        What was written into summary.json; None on other ranks than 0, which write nothing that stays.

    Raises:
        UserError: a model, layer or shard that does not fit.
    """
    words, roles = words_of_study(config, manifest, spans), roles_of(config)
    models = [ModelConfig(name=name) for name in roles.values()]
    check_local(models, manifest)
    row_length_of(config.data, manifest)  # a mistake shows before the occurrences are looked for
    if config.data.verify and not spans:
        verify(config.data.path, world.local_part([shard for split in SPLITS for shard in manifest.splits[split]]))
    with process_group(world):
        fetch_and_check(models, manifest, world)
        study = find_study(config, manifest, words, world, spans)
        answers: dict[str, Answer] = {}
        changes: list[dict[str, list[float | None]]] = []
        notes: list[str] = []
        chosen = compared(study.occurrences, [word.key for word in study.embedded], config.seed)
        with _writer(config, manifest, study, world, folder) as writer:
            for role, name in roles.items():
                logger.info(f"embedding with {name}")
                reader = reader_of(config, manifest, name, world)
                _require_alike(reader, name, answers)
                if role == MODEL and config.substitutes:
                    notes += _with_substitutes(config, study, reader, name, world, folder, writer)
                streams = [
                    in_order(reader.vectors(study.corpus, some, world.work_split), f"{role}-{kind}", world, folder)
                    for kind, some in (("background", study.background_occurrences), ("asked", study.occurrences))
                ]
                if not writer:
                    continue
                answer = answer_of(config, manifest, study, reader, name, role, streams, writer, chosen)
                if role == MODEL:
                    write_word2vec(folder / STATIC_VECTORS, study.words, _static(study, reader))
                if config.base and role != BASE:
                    changes.append(drift_by_word(answers[BASE].side, answer.side))
                # Of later models no distances are asked any more.
                answers[role] = answer if role == BASE else replace(answer, distances=[])
    if not world.is_main:
        return None
    for role, file in ((MODEL, VECTORS), (BASE, BASE_VECTORS)):
        if role in answers:
            write_word2vec(folder / file, study.words, answers[role].centroids.values[: len(study.words)])
    summary = summarize(config, manifest, study, answers, changes)
    summary["notes"] = [*_notes(config, manifest, study, summary["words"]), *notes]
    write_json_atomic(folder / SUMMARY, summary)
    return summary


def _with_substitutes(
    config: EmbedConfig,
    study: Study,
    reader: Reader,
    name: str,
    world: World,
    folder: Path,
    writer: OccurrenceWriter | None,
) -> list[str]:
    """Gives the writer the substitutes of the asked words; returns a note where the model cannot tell any."""
    if not reader.has_trained_head:
        return [f"{name}: has no trained masked-LM head, so that substitutes are not told"]
    asked = len(study.words)
    found = substitutes_of(
        reader, study.corpus, study.occurrences, asked, config.substitutes, study.tokenizer, world, folder
    )
    if writer:
        writer.substitutes = found
    return []


def _writer(
    config: EmbedConfig, manifest: Manifest, study: Study, world: World, folder: Path
) -> AbstractContextManager[OccurrenceWriter | None]:
    """Rank 0 alone writes."""
    if not world.is_main:
        return nullcontext()
    names = [word.text for word in study.embedded]
    return OccurrenceWriter(
        folder / OCCURRENCES, study.corpus, names, len(study.words), config.include_text, manifest.groups
    )


def reader_of(config: EmbedConfig, manifest: Manifest, name: str, world: World) -> Reader:
    """A model on its device, to be run over tweets of the manifest's recipe."""
    loaded = load_model(ModelConfig(name=name), manifest, config.seed)
    model = loaded.model
    layers = resolve_layers(config.layers, int(model.config.num_hidden_layers), name)
    layout = Layout(row_length_of(config.data, manifest), config.tokens_per_device, manifest.pad_id)
    shape = Shape.of(model.config, world.device.type, PRODUCTS[config.precision], layout.row_length)
    module = PackedMaskedLM(model, backend_for("auto", shape)).to(world.device).eval()
    made = (config.layer_pooling, config.pooling, loaded.has_trained_head)
    return Reader(module, layers, layout, config.precision, world.device, *made)


def _require_alike(reader: Reader, name: str, answers: dict[str, Answer]) -> None:
    """Training seeds are of one model: the same layers and width."""
    first = answers.get(MODEL)
    if first and (first.layers, first.centroids.values.shape[1]) != (reader.labels, reader.width):
        raise UserError(
            f"model: {first.name} has vectors of {', '.join(first.layers)} and width "
            f"{first.centroids.values.shape[1]}, {name} of {', '.join(reader.labels)} and {reader.width}; several "
            "models are training seeds of one, and alike"
        )


def answer_of(
    config: EmbedConfig,
    manifest: Manifest,
    study: Study,
    reader: Reader,
    name: str,
    role: str,
    streams: list[Stream],
    writer: OccurrenceWriter,
    chosen: list[npt.NDArray[np.int64]],
) -> Answer:
    """Fits the correction to the background, then corrects, writes and sums up what is asked as it comes."""
    of_background, of_asked = streams
    others, correction = _background(config.correction, study, reader, of_background)
    space = VectorSpace(
        weights_identity(name),
        manifest.recipe.hash,
        reader.labels[-1],
        config.pooling,
        correction.kind,
        correction.of_label(-1).identity,
    )
    centroids = Centroids(len(study.embedded), reader.width)
    kept = Kept(chosen if config.base else [], reader.width)
    with Behind() as behind:
        for rows, raw in of_asked:
            vectors = correction.apply(raw)
            behind.do(writer.write, study.occurrences, rows, vectors, role, reader.labels, correction.kind)
            found = study.occurrences.status[rows] == FOUND
            if not np.isfinite(vectors[found]).all():
                raise UserError(f"{name}: {NO_NUMBERS}", found_by_one_rank=True)
            centroids.add(study.occurrences.places.word[rows][found], vectors[found, -1])
            kept.add(rows, vectors[:, -1])
    background_vectors = Vectors(space, others)
    origin = background_mean(background_vectors)
    means = Vectors(space, centroids.means())
    distances = [distance_ranks(Vectors(space, kept.of(word)), origin) for word in range(len(kept.parts))]
    neighbours = _neighbours(study, means, background_vectors, config.neighbours)
    return Answer(name, reader.labels, means, neighbours, distances)


def _background(kind: str, study: Study, reader: Reader, vectors: Stream) -> tuple[Floats, Correction]:
    """The corrected centroids of the background's words, at the highest layer, and the correction."""
    moments = Moments(kind, len(reader.labels), reader.width)
    centroids = Centroids(len(study.background.words), reader.width)
    for rows, chunk in vectors:
        found = study.background_occurrences.status[rows] == FOUND
        moments.add(chunk[found])
        centroids.add(study.background_occurrences.places.word[rows][found], chunk[found, -1])
    correction = moments.fit()
    # Corrections are affine: that of a mean is the mean of the corrected.
    return correction.of_label(-1).apply(centroids.means()[:, None])[:, 0], correction


def _neighbours(study: Study, words: Vectors, others: Vectors, count: int) -> list[Neighbours]:
    names = study.background.words
    parts = [word.parts for word in study.embedded]
    near = nearest(words, others, count + max(map(len, parts)))
    # A phrase lies near its own words, which says nothing.
    return [
        [(names[row], round(cosine, 4)) for row, cosine in ranked if names[row] not in own][:count]
        for own, ranked in zip(parts, near, strict=True)
    ]


def _static(study: Study, reader: Reader) -> Floats:
    matrix = reader.module.model.get_input_embeddings().weight.detach().float().cpu().numpy()
    return static_vectors(matrix, usual_tokens(study.corpus, study.occurrences, len(study.words)))


def _notes(config: EmbedConfig, manifest: Manifest, study: Study, words: dict[str, Any]) -> list[str]:
    notes = []
    hidden = [word.text for word in study.words if word.text[0] == "@" and word.key != USER]
    if hidden and manifest.recipe.clean.partition("+")[0] != "raw":
        notes.append(f"{', '.join(hidden)}: cannot be found, for the recipe of these shards writes mentions {USER}")
    absent = [word for word, record in words.items() if not record["matches"]]
    if len(absent) == len(words):
        notes.append("none of the words is in the tweets; check their spelling, and that these are the right shards")
    elif absent:
        notes.append(f"{', '.join(absent)}: not in the tweets")
    lost = [word for word, record in words.items() if record["unknown"] and not record["found"]]
    if lost:
        notes.append(
            f"{', '.join(lost)}: in the tweets, but the tokenizer has no such sign and writes [UNK]; "
            "prepare with emoji=tokens, or with the tokenizer of a model that knows it"
        )
    if config.occurrences and (gone := int((study.occurrences.status == UNKNOWN).sum())):
        notes.append(
            f"{gone:,} of the spans are [UNK] to the tokenizer, or lie within what the model's recipe rewrites "
            "(links, mentions)"
        )
    if len(study.background.words) < 2 * config.neighbours:
        notes.append(
            f"only {len(study.background.words)} background words: too few for {config.neighbours} neighbours to "
            "mean much; raise background_tweets or lower background_minimum"
        )
    return notes

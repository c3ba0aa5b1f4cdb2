"""Embedding: from asked words to their occurrences, vectors, centroids and neighbours, in model and base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import EmbedConfig, ModelConfig
from ..data.loader import Layout, row_length_of
from ..data.manifest import SPLITS, Manifest, mend
from ..data.shards import verify
from ..engine.fetching import check_local, fetch_and_check
from ..engine.world import World, group
from ..errors import UserError
from ..files import write_json_atomic
from ..model.loading import load_model, tokenizer_folder, weights_identity
from ..model.masked_lm import PackedMaskedLM
from ..text.cleaning import USER
from ..text.tokenizer import fingerprint, load_tokenizer
from .asked import asked_for
from .choosing import choose, of_all_ranks, usual_pieces
from .controls import Control
from .groups import group_column
from .in_order import in_order
from .matching import Asked
from .neighbours import Background, background, nearest, overlap
from .occurrences import FOUND, STATUSES, UNKNOWN, Corpus, Occurrences, Places, align, open_corpus, shared
from .parts_of_speech import part_of_speech
from .span_corpus import SpanCorpus, merged
from .tables import OccurrenceWriter, write_word2vec
from .vectors import Centroids, Floats, Reader, layer_label, resolve_layers

OCCURRENCES, VECTORS, BASE_VECTORS, SUMMARY = (
    "occurrences.parquet",
    "vectors.txt",
    "base_vectors.txt",
    "summary.json",
)

Neighbours = list[tuple[str, float]]


@dataclass(frozen=True)
class Study:
    """What both models are asked.

    Attributes:
        corpus: the tweets of both splits.
        words: the asked words.
        controls: ordinary words, numbered on from the asked ones.
        background: the words that neighbours are chosen from, numbered on from the controls.
        occurrences: of all of these.
        matches: int64 [words and controls], places of each in all tweets, before any sample.
    """

    corpus: Corpus
    words: list[Asked]
    controls: list[Control]
    background: Background
    occurrences: Occurrences
    matches: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Space:
    """One model's answer.

    Attributes:
        layer: what the vectors are, `mean(9,10,11,12)`.
        centroids: float32 [words, width], NaN where a word was not found.
        neighbours: of each word, (word, cosine), nearest first.
    """

    layer: str
    centroids: Floats
    neighbours: list[Neighbours]


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
    words: list[Asked] = [*spans.words] if spans else asked_for(config)
    if config.by:
        group_column(config.by, manifest.groups, config.occurrences or config.data.path)
    names = {role: name for role, name in (("model", config.model), ("base", config.base)) if name}
    models = [ModelConfig(name=name) for name in names.values()]
    check_local(models, manifest)
    row_length_of(config.data, manifest)  # a mistake shows before the occurrences are looked for
    if config.data.verify and not spans:
        verify(config.data.path, world.local_part([shard for split in SPLITS for shard in manifest.splits[split]]))
    with group(world):
        fetch_and_check(models, manifest, world)
        study = _study_of_spans(config, manifest, spans) if spans else _study(config, manifest, words, world)
        _tell(study, world)
        spaces: dict[str, Space] = {}
        with _writer(config, manifest, study, world, folder) as writer:
            for role, name in names.items():
                if world.is_main:
                    print(f"embedding with {name}", flush=True)
                reader = _reader(config, manifest, name, world)
                mine = reader.vectors(study.corpus, study.occurrences, world.share)
                vectors = in_order(mine, role, world, folder)
                if writer:
                    written = _written(vectors, study, reader, writer, role)
                    spaces[role] = _space(study, reader, written, config.neighbours)
    if not world.is_main:
        return None
    write_word2vec(folder / VECTORS, words, spaces["model"].centroids)
    if "base" in spaces:
        write_word2vec(folder / BASE_VECTORS, words, spaces["base"].centroids)
    summary = _summary(config, manifest, study, spaces)
    write_json_atomic(folder / SUMMARY, summary)
    return summary


def _study(config: EmbedConfig, manifest: Manifest, words: list[Asked], world: World) -> Study:
    tokenizer = load_tokenizer(str(tokenizer_folder(config.data.path)), local_only=True)
    if fingerprint(tokenizer) != manifest.recipe.tokenizer:
        raise UserError(
            f"{tokenizer_folder(config.data.path)}: is not the tokenizer of these shards; {mend(config.data.path)}"
        )
    corpus = open_corpus(config.data.path, manifest)
    choice = choose(config, corpus, words, tokenizer, manifest.unknown_id, world)
    others = background(corpus, words, config.background_tweets, config.background_minimum, config.seed)
    first = len(choice.matches)
    numbered_on = Places(others.places.word + first, others.places.tweet, others.places.start, others.places.end)
    mine = shared(Places.join([choice.places, numbered_on]), world.share)
    occurrences = of_all_ranks(align(corpus, mine, tokenizer, manifest.unknown_id), world)
    return Study(corpus, words, choice.controls, others, occurrences, choice.matches)


def _study_of_spans(config: EmbedConfig, manifest: Manifest, spans: SpanCorpus) -> Study:
    """Every rank makes all of it: a file of spans is no corpus of tweets."""
    words: list[Asked] = [*spans.words]
    others = background(spans.background, words, config.background_tweets, config.background_minimum, config.seed)
    places = others.places
    shifted = Places(places.word + len(words), places.tweet + len(spans.occurrences), places.start, places.end)
    tokenizer = load_tokenizer(config.model)
    aligned = align(spans.corpus, shifted, tokenizer, manifest.unknown_id)
    matches = np.bincount(spans.occurrences.places.word, minlength=len(words))
    return Study(spans.corpus, words, [], others, merged(spans.occurrences, aligned), matches)


def _tell(study: Study, world: World) -> None:
    counts = np.bincount(study.occurrences.places.word, minlength=len(study.matches))
    asked = int(counts[: len(study.words)].sum())
    controls = int(counts[len(study.words) : len(study.matches)].sum())
    world.say(
        f"{asked:,} occurrences of {len(study.words)} word(s), {controls:,} of {len(study.controls):,} control words, "
        f"{len(study.background.words):,} background words of {study.background.tweets:,} tweets"
    )


def _writer(
    config: EmbedConfig, manifest: Manifest, study: Study, world: World, folder: Path
) -> AbstractContextManager[OccurrenceWriter | None]:
    """Rank 0 alone writes."""
    if not world.is_main:
        return nullcontext()
    names = [*(word.text for word in study.words), *(word.text for word in study.controls)]
    return OccurrenceWriter(
        folder / OCCURRENCES, study.corpus, names, len(study.words), config.include_text, manifest.groups
    )


def _reader(config: EmbedConfig, manifest: Manifest, name: str, world: World) -> Reader:
    model = load_model(ModelConfig(name=name), manifest, config.seed).model
    layers = resolve_layers(config.layers, int(model.config.num_hidden_layers), name)
    layout = Layout(row_length_of(config.data, manifest), config.tokens_per_device, manifest.pad_id)
    module = PackedMaskedLM(model).to(world.device).eval()
    return Reader(module, layers, layout, config.precision, world.device)


def _written(
    vectors: Iterator[tuple[slice, Floats]], study: Study, reader: Reader, writer: OccurrenceWriter, role: str
) -> Iterator[tuple[slice, Floats]]:
    """The vectors as they come, each written on its way."""
    for rows, chunk in vectors:
        writer.write(study.occurrences, rows, chunk, role, layer_label(reader.layers))
        yield rows, chunk


def _space(study: Study, reader: Reader, vectors: Iterator[tuple[slice, Floats]], count: int) -> Space:
    asked, others = len(study.words), study.background.words
    first = asked + len(study.controls)
    centroids = Centroids(first + len(others), reader.width)
    for rows, chunk in vectors:
        found = study.occurrences.status[rows] == FOUND
        centroids.add(study.occurrences.places.word[rows][found], chunk[found])
    means = centroids.means()
    parts = [word.parts for word in study.words]
    near = nearest(means[:asked], means[first:], count + max(map(len, parts)))
    # A phrase lies near its own words, which says nothing.
    named = [
        [(others[row], round(cosine, 4)) for row, cosine in ranked if others[row] not in own][:count]
        for own, ranked in zip(parts, near, strict=True)
    ]
    return Space(layer_label(reader.layers), means[:asked], named)


def _summary(config: EmbedConfig, manifest: Manifest, study: Study, spaces: dict[str, Space]) -> dict[str, Any]:
    base = spaces.get("base")
    words = {word.text: _word_summary(study, number, spaces["model"], base) for number, word in enumerate(study.words)}
    return {
        "words": words,
        "asked": [word.text for word in study.words],
        "controls": _control_summary(study),
        "layers": spaces["model"].layer,
        "base_layers": base.layer if base else None,
        "model": config.model,
        "base": config.base or None,
        "weights": {role: weights_identity(getattr(config, role)) for role in spaces},
        "recipe": manifest.recipe.hash,
        "data": manifest.fingerprint,
        "background": {"tweets": study.background.tweets, "words": len(study.background.words)},
        "seed": config.seed,
        "notes": _notes(config, manifest, study, words),
    }


def _word_summary(study: Study, number: int, model: Space, base: Space | None) -> dict[str, Any]:
    occurrences = study.occurrences
    mine = occurrences.places.word == number
    found = mine & (occurrences.status == FOUND)
    counts = np.bincount(occurrences.status[mine], minlength=len(STATUSES)).tolist()
    before = base.neighbours[number] if base else []
    after = model.neighbours[number]
    return {
        **dict(zip(STATUSES, counts, strict=True)),
        "matches": int(study.matches[number]),
        "pieces": usual_pieces(occurrences, number),
        "part_of_speech": part_of_speech(study.words[number].key),
        "tweets": len(np.unique(occurrences.places.tweet[found])),
        "clusters": len(np.unique(occurrences.cluster[found])),
        "neighbours": [list(pair) for pair in after],
        "base_neighbours": [list(pair) for pair in before],
        "neighbour_overlap": overlap([word for word, _ in before], [word for word, _ in after]),
    }


def _control_summary(study: Study) -> dict[str, Any]:
    return {
        word.text: {
            "matches": word.matches,
            "pieces": usual_pieces(study.occurrences, number),
            "part_of_speech": word.part_of_speech,
        }
        for number, word in enumerate(study.controls, len(study.words))
    }


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
            "prepare with emoji=added, or with the tokenizer of a model that knows it"
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

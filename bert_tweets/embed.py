"""embed: vectors of the words you choose, from the adapted model and from the model that training started from."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bert_tweets.common.errors import run_entry
from bert_tweets.common.json_records import parse_record
from bert_tweets.common.output_folder import atomic_output_folder, is_up_to_date, unfinished_path
from bert_tweets.common.terminal import console

from . import analyze
from .config import EmbedConfig, parser

if TYPE_CHECKING:
    from bert_tweets.words.store.summary import Neighbour, Summary

logger = logging.getLogger(__name__)


def stage(argv: list[str]) -> None:
    """Read the settings, embed, and print what was found. Help and mistakes in settings never wait for torch."""
    config = parser.load(EmbedConfig, argv)
    # The parser does not expand a tilde within a list.
    config.model = [str(Path(name).expanduser()) if name.startswith("~/") else name for name in config.model]
    from torch.distributed.elastic.multiprocessing.errors import record

    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.distributed.world import world_from_environment
    from bert_tweets.model.loading import output_fingerprint
    from bert_tweets.words.embedding.pipeline import embed
    from bert_tweets.words.occurrences.queries import with_words_of_file
    from bert_tweets.words.occurrences.span_corpus import open_spans
    from bert_tweets.words.store.folder import EMBED_RECORD, EmbedRecord, write_embed_record

    config = with_words_of_file(config)
    world = world_from_environment(config.device)
    spans = None
    if config.occurrences:
        spans = open_spans(config.occurrences, [*config.model, *filter(None, [config.base])])
    manifest = spans.manifest if spans else Manifest.read(config.data.path)
    made_from = output_fingerprint(config, manifest)
    # Recorded, so that the root cause that torchrun names is the error of the rank that failed.
    recorded = record(embed)
    if is_up_to_date(config.output, EMBED_RECORD, made_from, "embed"):
        logger.info(f"{config.output}: is complete, made from the same settings, tweets and models; nothing to do")
    elif not world.is_main:
        recorded(config, manifest, world, unfinished_path(config.output), spans)
    else:
        with atomic_output_folder(config.output) as folder:
            summary = recorded(config, manifest, world, folder, spans)
            assert summary is not None
            write_embed_record(folder, parse_record(made_from, EmbedRecord, EMBED_RECORD))
        _show(summary)
        for note in summary.notes:
            print(f"warning: {note}", file=sys.stderr)
        print(f"vectors: {config.output}")
    if config.by and world.is_main:
        analyze.within(config.output, config.by, config.seed)


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _show(summary: Summary) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("word", box=None, header_style="bold")
    for name in ("found", "truncated", "lost to [UNK]"):
        table.add_column(Text(name), justify="right")
    table.add_column("nearest neighbours before → after" if summary.base else "nearest neighbours")
    for name, word in summary.words.items():
        after = _names(word.neighbours)
        near = f"{_names(word.base_neighbours)} → {after}" if summary.base else after
        found = f"{word.found:,}" + (f" of {word.matches:,}" if word.matches > word.sampled else "")
        table.add_row(Text(name), found, f"{word.truncated:,}", f"{word.unknown:,}", Text(near))
    console(width=140).print(table)


def _names(neighbours: Sequence[Neighbour]) -> str:
    return ", ".join(word for word, _ in neighbours[:4]) or "none"


if __name__ == "__main__":
    main()

"""embed: vectors of chosen words, from the adapted model and from the model that training began from."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from bert_tweets.common.errors import run_entry
from bert_tweets.common.output_folder import atomic_output_folder, is_up_to_date, unfinished_path, write_json_atomic
from bert_tweets.common.terminal import console

from . import analyze
from .config import EmbedConfig, parser

logger = logging.getLogger(__name__)

SETTINGS = "embed.json"


def stage(argv: list[str]) -> None:
    """Reads the settings, embeds, and prints what was found. Help and mistakes in settings never wait for torch."""
    config = parser.load(EmbedConfig, argv)
    # Of a list, settings leave the tilde as it stands.
    config.model = [str(Path(name).expanduser()) if name.startswith("~/") else name for name in config.model]
    from torch.distributed.elastic.multiprocessing.errors import record

    from bert_tweets.corpus.shards.manifest import Manifest
    from bert_tweets.distributed.world import world_from_environment
    from bert_tweets.model.loading import output_fingerprint
    from bert_tweets.words.embedding.pipeline import embed
    from bert_tweets.words.occurrences.queries import with_words_of_file
    from bert_tweets.words.occurrences.span_corpus import open_spans

    config = with_words_of_file(config)
    world = world_from_environment(config.device)
    spans = None
    if config.occurrences:
        spans = open_spans(config.occurrences, [*config.model, *filter(None, [config.base])])
    manifest = spans.manifest if spans else Manifest.read(config.data.path)
    settings = output_fingerprint(config, manifest)
    # Recorded, so that the root cause that torchrun names is the error of the rank that failed.
    recorded = record(embed)
    if is_up_to_date(config.output, SETTINGS, settings, "embed"):
        logger.info(f"{config.output}: is complete, made from the same settings, tweets and models; nothing to do")
    elif not world.is_main:
        recorded(config, manifest, world, unfinished_path(config.output), spans)
    else:
        with atomic_output_folder(config.output) as folder:
            summary = recorded(config, manifest, world, folder, spans)
            assert summary is not None
            write_json_atomic(folder / SETTINGS, settings)
        _show(summary)
        for note in summary["notes"]:
            print(f"warning: {note}", file=sys.stderr)
        print(f"vectors: {config.output}")
    if config.by and world.is_main:
        analyze.within(config.output, config.by, config.seed)


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("word", box=None, header_style="bold")
    for name in ("found", "truncated", "lost to [UNK]"):
        table.add_column(Text(name), justify="right")
    table.add_column("nearest neighbours before → after" if summary["base"] else "nearest neighbours")
    for word in summary["asked"]:
        record = summary["words"][word]
        after = _listed(record["neighbours"])
        near = f"{_listed(record['base_neighbours'])} → {after}" if summary["base"] else after
        counts = [f"{record[name]:,}" for name in ("found", "truncated", "unknown")]
        if record["matches"] > record["found"] + record["truncated"] + record["unknown"]:
            counts[0] += f" of {record['matches']:,}"
        table.add_row(Text(word), *counts, Text(near))
    console(width=140).print(table)


def _listed(neighbours: list[list[Any]]) -> str:
    return ", ".join(word for word, _ in neighbours[:4]) or "none"


if __name__ == "__main__":
    main()

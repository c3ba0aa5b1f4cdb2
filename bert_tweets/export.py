"""export: vectors as other programs read them."""

from __future__ import annotations

from pathlib import Path

from bert_tweets.common.errors import UserError, run_entry

from .config import ExportConfig, parser


def stage(argv: list[str]) -> None:
    """Reads the settings and writes the file. Uses no model."""
    config = parser.load(ExportConfig, argv)
    if Path(config.output).is_file():
        raise UserError(f"{config.output}: is there already; name a new file, or remove it first")
    from bert_tweets.words.vectors.word_vectors import WordVectors

    vectors = WordVectors.load(config.words, config.model, config.layer or None)
    vectors.export(config.output, config.senses)
    print(
        f"{config.output}: {len(vectors):,} words of {config.words}, model {config.model}, layer {vectors.space.layer}"
    )


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


if __name__ == "__main__":
    main()

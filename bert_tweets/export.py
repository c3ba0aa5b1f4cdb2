"""export: word vectors in the file formats of other programs."""

from __future__ import annotations

from pathlib import Path

from bert_tweets.common.errors import UserError, run_entry

from .config import ExportConfig, parser


def stage(argv: list[str]) -> None:
    """Parse the settings and write the file. Loads no model."""
    config = parser.load(ExportConfig, argv)
    if Path(config.output).is_file():
        raise UserError(f"{config.output}: exists already; name a new file, or remove it first")
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

"""report: one self-contained HTML page with the results of a study, and the files for a paper."""

from __future__ import annotations

from pathlib import Path

from bert_tweets.common.errors import run_entry
from bert_tweets.page.libraries import require_libraries

from .config import ReportConfig, parser


def stage(argv: list[str]) -> None:
    """Read the records of the stages and write the page. Imports neither torch nor transformers."""
    config = parser.load(ReportConfig, argv)
    require_libraries(maps=bool(config.words), clustering=bool(config.words) and config.projection == "tsne")
    from bert_tweets.page.companion_files import map_pictures, require_ours, texts, write_files
    from bert_tweets.page.html import render
    from bert_tweets.page.inputs import read_study

    output = Path(config.output)
    require_ours(output)
    study = read_study(config)
    page, pictures = render(study, with_files=config.pictures)
    if config.pictures:
        pictures += map_pictures(study.maps)
    write_files(output, page, texts(study), pictures if config.pictures else [])
    print(f"report: {output}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


if __name__ == "__main__":
    main()

"""The optional libraries that a report needs; all are in the extra `words`."""

from __future__ import annotations

from importlib.util import find_spec

from bert_tweets.common.errors import UserError


def require_libraries(maps: bool = True, clustering: bool = True) -> None:
    """Check that the libraries of a report are installed, without importing them.

    Args:
        maps: whether the report has maps of words.
        clustering: whether senses or maps by t-SNE are computed.

    Raises:
        UserError: names every missing library.
    """
    needed = {"jinja2": True, "matplotlib": True, "plotly": maps, "sklearn": clustering}
    missing = [name for name, is_needed in needed.items() if is_needed and find_spec(name) is None]
    if missing:
        raise missing_extra(*(name.replace("sklearn", "scikit-learn") for name in missing))


def missing_extra(*libraries: str) -> UserError:
    """The error of a report without these libraries."""
    return UserError(f"the report needs {', '.join(libraries)}; install with: pip install 'bert_tweets[words]'")

"""The libraries of the extra `words`, which the page and its pictures are made with."""

from __future__ import annotations

from importlib.util import find_spec

from bert_tweets.common.errors import UserError

_MODULES = {"jinja2": "jinja2", "plotly": "plotly", "scikit-learn": "sklearn", "matplotlib": "matplotlib"}


def require_libraries(maps: bool = True, pictures: bool = True) -> None:
    """Checks that the libraries of a report are installed, without importing them.

    Args:
        maps: whether the page has maps of words.
        pictures: whether pictures are drawn beside the page.

    Raises:
        UserError: names every library that is missing.
    """
    spared = {"scikit-learn": not maps, "matplotlib": not pictures}
    missing = [name for name, module in _MODULES.items() if not spared.get(name) and find_spec(module) is None]
    if missing:
        raise missing_extra(*missing)


def missing_extra(*libraries: str) -> UserError:
    """The error of a report without these libraries."""
    return UserError(f"the report needs {', '.join(libraries)}; install with: pip install 'bert_tweets[words]'")

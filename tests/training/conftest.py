"""Runs shared by tests of resuming and of checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.runs import short_tweets, train_run


@pytest.fixture(scope="session")
def short_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_tweets(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def whole(short_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_run(short_shards, folder)
    return folder


@pytest.fixture(scope="session")
def half(short_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped after step 7; its checkpoints are of steps 6 and 7."""
    folder = tmp_path_factory.mktemp("half") / "run"
    train_run(short_shards, folder, "stop_after_steps=7")
    return folder


@pytest.fixture
def run(half: Path, tmp_path: Path) -> Path:
    """A copy of `half`, to be resumed."""
    return Path(shutil.copytree(half, tmp_path / "run"))

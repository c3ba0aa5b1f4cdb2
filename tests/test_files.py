"""Output is whole or absent, and nothing that is not ours is touched."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from bert_tweets import files
from bert_tweets.errors import UserError

RECORD = {"settings": {"seed": 1, "names": ["a", "b"]}, "input": {"x.csv": {"bytes": 3}}}


def make(output, name="data.txt"):
    with files.side_folder(output) as folder:
        (folder / name).write_text("whole")
        files.write_bytes(folder / "record.json", files.to_json(RECORD))


def made(output, record=RECORD):
    return files.already_made(output, "record.json", record, "prepare")


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_whole(tmp_path, there):
    output = tmp_path / "deep" / "out"
    if there:
        output.mkdir(parents=True)
    assert not made(output)
    with files.side_folder(output) as folder:
        (folder / "data.txt").write_text("part")
        assert not output.is_dir() or not any(output.iterdir())
        files.write_bytes(folder / "record.json", files.to_json(RECORD))
    assert sorted(path.name for path in output.iterdir()) == ["data.txt", "record.json"]
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert made(output)


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path, failure):
    with pytest.raises(failure), files.side_folder(tmp_path / "out") as folder:
        (folder / "data.txt").write_text("part")
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_named(tmp_path):
    make(tmp_path / "out")
    other = {"settings": {"seed": 2, "names": ["a", "b"]}, "input": {"y.csv": {"bytes": 3}}}
    with pytest.raises(
        UserError, match=r"input\.x\.csv\.bytes.*input\.y\.csv\.bytes.*settings\.seed \(1 there, 2 now\)"
    ):
        made(tmp_path / "out", other)


def test_what_is_not_ours_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="files that prepare did not make"):
        made(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        made(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="a part of this path is a file"):
        make(tmp_path / "notes.txt" / "out")
    (tmp_path / ".out.unfinished").mkdir()
    (tmp_path / ".out.unfinished" / "theirs").write_text("mine too")
    with pytest.raises(UserError, match="was not made by this program"):
        make(tmp_path / "out")
    assert (tmp_path / ".out.unfinished" / "theirs").read_text() == "mine too"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_damaged_record_is_told(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / "record.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        made(tmp_path / "out")


def test_what_a_killed_run_left_is_made_anew(tmp_path, capsys):
    killed = (
        "import os, signal, sys; from pathlib import Path; from bert_tweets import files\n"
        "with files.side_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'data.txt').write_text('part')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "out")], check=False, timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == [".out.unfinished"]
    make(tmp_path / "out")
    assert "which a run that was stopped left behind" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "data.txt").read_text() == "whole"


def test_a_run_that_still_goes_on_is_left_alone(tmp_path):
    with files.side_folder(tmp_path / "out") as folder:
        (folder / "data.txt").write_text("part")
        with pytest.raises(UserError, match="another run is writing there now"):
            make(tmp_path / "out")
        assert (folder / "data.txt").read_text() == "part"


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "cannot be written")])
def test_trouble_with_the_disk_is_one_line(tmp_path, monkeypatch, number, words):
    def fail(_handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=words):
        make(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_json_is_replaced_at_once(tmp_path):
    path = tmp_path / "state.json"
    for number in (1, 2):
        files.write_json_atomic(path, {"step": number, "text": "é"})
        assert json.loads(path.read_text(encoding="utf-8")) == {"step": number, "text": "é"}
    assert list(tmp_path.iterdir()) == [path]

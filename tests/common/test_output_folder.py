"""Output is whole or absent, and nothing that is not ours is touched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from bert_tweets.common import output_folder
from bert_tweets.common.errors import Interrupted, UserError, without_secrets

RECORD = {"settings": {"seed": 1, "names": ["a", "b"]}, "input": {"x.csv": {"bytes": 3}}}


def make(output, name="data.txt"):
    with output_folder.atomic_output_folder(output) as folder:
        (folder / name).write_text("whole")
        output_folder.write_bytes(folder / "record.json", output_folder.to_json(RECORD))


def made(output, record=RECORD):
    return output_folder.is_up_to_date(output, "record.json", record, "prepare")


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_whole(tmp_path, there):
    output = tmp_path / "deep" / "out"
    if there:
        output.mkdir(parents=True)
    assert not made(output)
    with output_folder.atomic_output_folder(output) as folder:
        (folder / "data.txt").write_text("part")
        assert not output.is_dir() or not any(output.iterdir())
        output_folder.write_bytes(folder / "record.json", output_folder.to_json(RECORD))
    assert sorted(path.name for path in output.iterdir()) == ["data.txt", "record.json"]
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert made(output)


@pytest.mark.parametrize(
    ("failure", "stays"),
    [(UserError, False), (Interrupted, True), (ValueError, True), (MemoryError, True), (KeyboardInterrupt, True)],
)
def test_what_goes_on_is_removed_for_a_mistake_alone(tmp_path, failure, stays):
    with pytest.raises(failure), output_folder.atomic_output_folder(tmp_path / "out", RECORD) as folder:
        (folder / "data.txt").write_text("part")
        raise failure("why")
    assert (tmp_path / ".out.unfinished" / "data.txt").is_file() == stays
    if stays:
        assert (folder / output_folder.FINGERPRINT).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path, failure):
    with pytest.raises(failure), output_folder.atomic_output_folder(tmp_path / "out") as folder:
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
    with pytest.raises(UserError, match="was not created by bert_tweets"):
        make(tmp_path / "out")
    assert (tmp_path / ".out.unfinished" / "theirs").read_text() == "mine too"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_damaged_record_is_reported(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / "record.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        made(tmp_path / "out")


def test_what_a_killed_run_left_is_made_anew(tmp_path, capsys):
    killed = (
        "import os, signal, sys; from pathlib import Path; from bert_tweets.common import output_folder\n"
        "with output_folder.atomic_output_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'data.txt').write_text('part')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "out")], check=False, timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == [".out.unfinished"]
    make(tmp_path / "out")
    assert "left by an earlier run that was stopped" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "data.txt").read_text() == "whole"


def test_a_run_that_still_goes_on_is_left_alone(tmp_path):
    with output_folder.atomic_output_folder(tmp_path / "out") as folder:
        (folder / "data.txt").write_text("part")
        with pytest.raises(UserError, match="another run is writing there now"):
            make(tmp_path / "out")
        assert (folder / "data.txt").read_text() == "part"


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only disk")])
def test_trouble_with_the_disk_is_one_line(tmp_path, monkeypatch, number, words):
    def fail(_handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=words):
        make(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 250, "its name is too long"),
        ("loop", "leads to itself"),
        ("loop/out", "leads to itself"),
        ("/proc/nothing/out", "cannot be created"),
        ("/proc", "files that prepare did not make"),
    ],
)
def test_outputs_that_cannot_be_end_in_one_line_at_once(tmp_path, name, words):
    if name.startswith("/") and not os.path.ismount("/" + name.split("/")[1]) and not os.path.ismount(name):
        pytest.skip("is no mount point here")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=words):
        made(tmp_path / name)
        with output_folder.atomic_output_folder(tmp_path / name):
            pytest.fail("was begun")


def test_a_mount_point_is_reported_at_once(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(output_folder.Path, "is_mount", lambda path: path.name == "disk")
    with pytest.raises(UserError, match="is a mount point"), output_folder.atomic_output_folder(tmp_path / "disk"):
        pytest.fail("was begun")


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY])
def test_what_cannot_be_put_in_its_place_is_one_line_and_stays(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    interruption = pytest.raises(Interrupted, match=r"the same command resumes the work in .*\.out\.unfinished")
    with interruption, output_folder.atomic_output_folder(tmp_path / "out", RECORD):
        monkeypatch.setattr(output_folder.Path, "replace", fail)
    monkeypatch.undo()
    assert (tmp_path / ".out.unfinished" / output_folder.MARKER).is_file()


def test_a_parent_that_vanishes_is_one_line_and_a_bug_is_not(tmp_path):
    with pytest.raises(UserError, match="or has vanished"), output_folder.atomic_output_folder(tmp_path / "in" / "out"):
        shutil.rmtree(tmp_path / "in")
        (tmp_path / "in" / "file").write_text("x")
    with pytest.raises(FileNotFoundError), output_folder.atomic_output_folder(tmp_path / "out"):
        (tmp_path / "none").read_text()


def test_a_removal_that_is_cut_short_leaves_a_folder_that_is_known_as_ours(tmp_path, monkeypatch):
    with pytest.raises(UserError), output_folder.atomic_output_folder(tmp_path / "out") as folder:
        (folder / "units").mkdir()
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "slow")))
        raise UserError("a mistake")
    monkeypatch.undo()
    make(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_urls_lose_what_may_be_secret_in_them_and_nothing_else():
    for text, plain in (
        ("https://me:pw@host/a.csv?X-Amz-Signature=a/b&x=1: no such file", "https://host/a.csv: no such file"),
        ("ftp://me:p@ss@host/x", "ftp://host/x"),
        ("simplecache::https://me:pw@h/x?t=1 and on", "simplecache::https://h/x and on"),
        ("['https://h/q?sig=x', 'az://c/r?sig=x']", "['https://h/q', 'az://c/r']"),
        ("s3://b/tweets-?.csv, http://h/a@b/c.csv, is it?", "s3://b/tweets-?.csv, http://h/a@b/c.csv, is it?"),
    ):
        assert without_secrets(text) == plain


def test_json_is_replaced_at_once(tmp_path):
    path = tmp_path / "state.json"
    for number in (1, 2):
        output_folder.write_json_atomic(path, {"step": number, "text": "é"})
        assert json.loads(path.read_text(encoding="utf-8")) == {"step": number, "text": "é"}
    assert list(tmp_path.iterdir()) == [path]

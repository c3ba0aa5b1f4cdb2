"""Interruptions of prepare that are not mistakes in the input: one line, and finished work is kept."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bert_tweets.common import executors
from bert_tweets.common.errors import Interrupted, UserError
from bert_tweets.corpus.pipeline import pipeline, worker
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.prepare import main, prepare
from tests.helpers import generated_tweets, write_csv
from tests.processes import web_server
from tests.test_prepare_resume import contents, settings


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A CSV of some units of 4 KB."""
    texts = enumerate(generated_tweets(400))
    rows = [(str(number), f"author {number % 40}", text) for number, text in texts]
    return write_csv(tmp_path_factory.mktemp("source") / "tweets.csv", ["id", "author", "text"], rows)


def test_another_salt_does_not_resume_unfinished_work(source, tokenizer_folder, tmp_path, capsys):
    config = settings(source, tokenizer_folder, tmp_path / "out", num_workers=1)
    side = tmp_path / ".out.unfinished"
    with pytest.raises(Interrupted):
        _stopped_at_unit_3(config, Interrupted("for now"))
    before = next(side.glob("work/run-*"))
    assert b"salt of another" not in (side / ".fingerprint.json").read_bytes()
    config.author_salt = "salt of another"
    with pytest.raises(Interrupted):
        _stopped_at_unit_3(config, Interrupted("for now"))
    assert "run that was stopped, made with other settings: author_salt (not the same)\n" in capsys.readouterr().out
    # What a task of the run before would still write has nowhere to go.
    assert not before.exists() and list(side.glob("work/run-*"))


def test_unfinished_work_is_kept_if_a_file_was_only_touched(source, tokenizer_folder, tmp_path, capsys):
    touched = tmp_path / "tweets.csv"
    touched.write_bytes(source.read_bytes())
    config = settings(touched, tokenizer_folder, tmp_path / "out", num_workers=1)
    with pytest.raises(Interrupted):
        _stopped_at_unit_3(config, Interrupted("for now"))
    os.utime(touched, ns=(0, 1_234_567_890_012_345_678))
    with pytest.raises(UserError, match=r"is unfinished work, made with other settings: .*: touch -d @") as caught:
        prepare(config)
    subprocess.run(str(caught.value).partition("same: ")[2].partition(")")[0], shell=True, check=True)
    prepare(config)
    assert "resuming the unfinished work in" in capsys.readouterr().out


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_one_line_and_the_same_command_resumes(source, tokenizer_folder, tmp_path, capsys, how):
    words = [f"input={source}", f"output={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}", "num_workers=1"]
    # A job that a shell puts in the background begins deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "do_unit", lambda *_: signal.raise_signal(how))
        with pytest.raises(SystemExit) as end:
            main(words)
    assert end.value.code == 130
    assert capsys.readouterr().err == "stopped; run the same command again to resume\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    main(words)
    assert "resuming the unfinished work in" in capsys.readouterr().out


def test_a_unit_whose_place_is_taken_by_something_else_is_reported(source, tokenizer_folder, tmp_path, monkeypatch):
    real = pipeline.do_unit

    def taken(job, unit):
        place = worker.unit_folder(job.folder, unit.number)
        place.mkdir()
        (place / "stranger").touch()
        return real(job, unit)

    monkeypatch.setattr(pipeline, "do_unit", taken)
    with pytest.raises(UserError, match="another program wrote files there"):
        prepare(settings(source, tokenizer_folder, tmp_path / "out", num_workers=1))


def test_a_leftover_task_of_an_ended_run_ends_in_one_line(source, tokenizer_folder, tmp_path, monkeypatch):
    tasks = []

    def kept(job, unit):
        tasks.append((job, unit))
        raise UserError("a mistake")

    monkeypatch.setattr(pipeline, "do_unit", kept)
    with pytest.raises(UserError):
        prepare(settings(source, tokenizer_folder, tmp_path / "out", num_workers=1))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Interrupted, match="must be on a disk that all workers can reach"):
        worker.do_unit(*tasks[0])


def test_a_dropped_connection_is_resumed_and_no_key_is_written(source, tokenizer_folder, tmp_path, capsys):
    pytest.importorskip("aiohttp", reason="http:// needs aiohttp")
    header, rows = source.read_bytes().split(b"\n", 1)
    data = header + b"\n" + rows * 100
    sent = [len(data) - 2000]
    with _served(data, sent) as address:
        words = [
            f"input=http://me:hidden@{address}/tweets.csv?X-Amz-Signature=hidden",
            f"output={tmp_path / 'out'}",
            f"tokenizer={tokenizer_folder}",
            "unit_bytes=200000",
            "num_workers=1",
        ]
        with pytest.raises(SystemExit):
            main(words)
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and f"http://{address}/tweets.csv: cannot be read to its end" in said.err
        done = [*(tmp_path / ".out.unfinished").glob("work/run-*/units/[0-9]*/report.json")]
        assert len(done) > 3
        sent[0] = len(data)
        main(words)
    later = capsys.readouterr()
    assert "resuming the unfinished work in" in later.out
    assert Manifest.read(tmp_path / "out").rows("train")
    assert f'"http://{address}/tweets.csv"' in (tmp_path / "out" / "prepare.json").read_text()
    assert "hidden" not in said.out + said.err + later.out + later.err
    assert not any(b"hidden" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


@contextmanager
def _served(data, sent):
    """A web server of one file, of which it sends as many bytes as `sent` says; its address."""

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", "the same")
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(b"" if self.command == "HEAD" else data[: sent[0]])

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with web_server(Server) as place:
        yield place


def test_what_is_no_mistake_of_the_input_leaves_what_is_done(source, tokenizer_folder, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.2)
    config = settings(source, tokenizer_folder, tmp_path / "out", num_workers=1)
    prepare(dataclasses.replace(config, output=str(tmp_path / "whole")))

    def done():
        return len([*(tmp_path / ".out.unfinished").glob("work/run-*/units/[0-9]*/report.json")])

    with pytest.raises(Interrupted, match="out of memory"):
        _stopped_at_unit_3(config, MemoryError())
    before = done()
    with pytest.raises(Interrupted, match="no Dask scheduler answers"):
        prepare(dataclasses.replace(config, executor="tcp://127.0.0.1:9"))
    assert done() == before >= 3
    prepare(config)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("change", ["appended to", "replaced", "removed"])
def test_a_file_that_changes_while_it_is_read_is_reported(source, tokenizer_folder, tmp_path, change):
    path = tmp_path / "tweets.csv"
    path.write_bytes(source.read_bytes())
    config = settings(path, tokenizer_folder, tmp_path / "out", num_workers=1)

    def changed():
        if change == "removed":
            path.unlink()
        elif change == "replaced":
            path.write_bytes(source.read_bytes().replace(b"the", b"THE"))
        else:
            path.write_bytes(source.read_bytes() + b"1000,ann,one more\r\n")

    with pytest.raises(Interrupted, match=f"{path}: changed while it was read; rerun the same command"):
        _at_unit_3(config, changed)
    assert not (tmp_path / "out").exists()
    path.write_bytes(source.read_bytes() + b"1000,ann,one more\r\n")
    prepare(config)
    assert json.loads((tmp_path / "out" / "funnel.json").read_text())["read"] == 401


def _stopped_at_unit_3(config, error):
    def stop():
        raise error

    _at_unit_3(config, stop)


def _at_unit_3(config, happens):
    real = pipeline.do_unit

    def stopped(job, unit):
        if unit.number == 3:
            happens()
        return real(job, unit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "do_unit", stopped)
        prepare(config)

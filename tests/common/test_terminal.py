"""Progress: a bar in a terminal, log lines elsewhere; output that nobody reads stops no work."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from bert_tweets.common.terminal import ProgressBar, ignore_output_errors


def test_without_a_terminal_a_line_is_logged_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("preparing", 4, every_seconds=0) as advance:
        advance(1)
        advance(3, "10 tweets/s")
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("preparing: 1 of 4, about 0:00:0") and first.endswith(" left")
    assert last == "preparing: 4 of 4, 10 tweets/s"
    with ProgressBar("preparing", 4) as advance:
        advance(4)
    assert capsys.readouterr().out == ""


def test_tenths_are_logged_from_where_the_work_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("training", 100, done=50, tenths=True) as advance:
        for _ in range(50):
            advance()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"training: {done} of 100" for done in range(60, 101, 10)]


def test_an_unknown_total_has_no_remaining_time(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("reading", every_seconds=0) as advance:
        advance(1200)
    assert capsys.readouterr().out == "reading: 1,200\n"


def test_a_rank_that_shows_nothing_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("training", 2, tenths=True, shown=False) as advance:
        advance(2)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar_with_log_lines_above_it() -> None:
    program = (
        "import logging; from bert_tweets.common.logs import log_to_console;"
        "from bert_tweets.common.terminal import ProgressBar; log_to_console()\n"
        "with ProgressBar('training', 3) as advance:\n"
        "    advance(1, 'loss 2.5'); logging.getLogger('bert_tweets.x').info('step 1 done'); advance(2)\n"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0
    text = shown.decode()
    assert "training" in text and "3/3" in text and "loss 2.5" in text and "step 1 done" in text


def test_output_that_nobody_reads_is_ignored() -> None:
    class Closed(io.StringIO):
        def fileno(self) -> int:
            return sink

        def write(self, text: str) -> int:
            raise BrokenPipeError

    reader, sink = os.pipe()
    os.close(reader)
    with ignore_output_errors(Closed()):
        print("lost", file=Closed())
    os.write(sink, b"now discarded")
    os.close(sink)

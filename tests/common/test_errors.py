"""The end of a stage: one line and a code, whatever ended it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bert_tweets.common.errors import did_you_mean, run_entry
from tests.processes import ROOT


def test_output_that_nobody_reads_any_more_ends_without_a_word():
    code = "from bert_tweets.common.errors import run_entry; run_entry(lambda _: print('x' * {}), [])"
    for length in (1, 1_000_000):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-c", code.format(length)]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False, cwd=ROOT)
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(("reason", "line"), [("", "stopped\n"), ("go on so", "stopped; go on so\n")])
def test_an_interrupt_is_one_line(capsys, reason, line):
    def stage(_):
        raise KeyboardInterrupt(*filter(None, [reason]))

    with pytest.raises(SystemExit) as end:
        run_entry(stage, [])
    assert (end.value.code, capsys.readouterr().err) == (130, line)


def test_a_name_is_found_whatever_its_case():
    assert did_you_mean("TEXTS", ["Id", "Text"]) == " (did you mean 'Text'?)"
    assert did_you_mean("zebra", ["Id", "Text"]) == ""

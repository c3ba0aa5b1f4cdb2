"""prepare with an existing output: a complete one is recognised, a different or damaged one is rejected."""

from __future__ import annotations

import hashlib
import os
import subprocess

import pytest

from bert_tweets import inspect
from bert_tweets import verify as verify_stage
from bert_tweets.common.errors import UserError
from bert_tweets.prepare import main
from tests.test_prepare import contents, fails


def test_a_second_run_finds_the_work_done(tweets_csv, tokenizer_folder, tmp_path, capsys):
    words = [f"input={tweets_csv(['a', 'b'])}", f"output={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}"]
    main(words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    capsys.readouterr()
    main(words)
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert "settings.seed (0 there, 1 now)" in fails(capsys, *words, "seed=1")
    tweets_csv(["a", "b", "c"])
    assert "bytes" in fails(capsys, *words)


def test_another_salt_is_another_setting_and_is_not_shown(tweets_csv, tokenizer_folder, tmp_path, capsys):
    words = [f"input={tweets_csv(['a', 'b'])}", f"output={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}"]
    main([*words, "author_salt=one"])
    main([*words, "author_salt=one"])
    assert "settings: author_salt (not the same); choose" in fails(capsys, *words, "author_salt=two")
    assert "settings.author_salt (given there, random now)" in fails(capsys, *words)


def test_a_touched_file_is_reported_with_the_command_to_restore_its_time(
    tweets_csv, tokenizer_folder, tmp_path, capsys
):
    source = tweets_csv(["a", "b"])
    words = [f"input={source}", f"output={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}"]
    main(words)
    os.utime(source, ns=(0, 1_234_567_890_012_345_678))
    line = fails(capsys, *words)
    assert f"{source} (written or touched since; if its content is the same: touch -d @" in line
    subprocess.run(line.partition("same: ")[2].partition(")")[0], shell=True, check=True)
    main(words)
    assert "nothing to do" in capsys.readouterr().out


def test_a_file_of_another_size_is_not_reported_as_touched(tweets_csv, tokenizer_folder, tmp_path, capsys):
    source = tweets_csv(["a", "b"])
    words = [f"input={source}", f"output={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}"]
    main(words)
    tweets_csv(["a", "b", "longer"])
    line = fails(capsys, *words)
    assert f"{source} (12 bytes there, 20 now); choose" in line and "touch" not in line
    assert "a.csv (an input now, not then)" in fails(capsys, f"input=[{tweets_csv(['a'], name='a.csv')}]", *words[1:])


def test_the_spelling_of_the_input_does_not_matter(tweets_csv, tokenizer_folder, tmp_path, capsys, monkeypatch):
    tweets_csv(["a", "b"])
    monkeypatch.chdir(tmp_path.parent)
    words = [f"output={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}"]
    main([f"input={tmp_path}", *words])
    for other in (f"input={tmp_path}/", f"input={tmp_path.name}", f"input=./{tmp_path.name}"):
        main([other, *words, "text_column=text", "id_column=none"])
        assert "nothing to do" in capsys.readouterr().out
    assert f"settings.input (['{tmp_path}'] there, ['{tmp_path}/*.csv'] now)" in fails(
        capsys, f"input={tmp_path}/*.csv", *words
    )


@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "settings removed"])
def test_a_damaged_tokenizer_is_reported_by_prepare_inspect_and_verify(
    damage, tweets_csv, tokenizer_folder, tmp_path, capsys
):
    output = tmp_path / "out"
    words = [f"input={tweets_csv(['a', 'b'])}", f"output={output}", f"tokenizer={tokenizer_folder}"]
    main(words)
    file = output / "tokenizer" / ("tokenizer_config.json" if damage == "settings removed" else "tokenizer.json")
    if damage == "cut":
        os.truncate(file, 1000)
    elif damage == "emptied":
        file.write_text("{}")
    else:
        file.unlink()
    assert f"{file}: is missing or has changed; remove {output}, then prepare again" in fails(capsys, *words)
    for stage in (inspect.stage, verify_stage.stage):
        with pytest.raises(UserError, match="tokenizer") as caught:
            stage([str(output)])
        assert f"remove {output}, then prepare again" in str(caught.value)


@pytest.mark.parametrize("part", ["manifest.json", "funnel.json", "tokenizer", "train/00000.arrow", "cut"])
def test_a_damaged_output_is_not_called_complete(part, tweets_csv, tokenizer_folder, tmp_path, capsys):
    output = tmp_path / "out"
    words = [f"input={tweets_csv(['a', 'b'])}", f"output={output}", f"tokenizer={tokenizer_folder}"]
    main(words)
    if part == "cut":
        os.truncate(output / "train/00000.arrow", 100)
    else:
        (output / part).rename(tmp_path / "taken")
    assert f"remove {output}, then prepare again" in fails(capsys, *words)


def test_a_folder_of_something_else_is_not_touched(tweets_csv, tokenizer_folder, tmp_path, capsys):
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "chapter1.txt").write_text("years of work")
    words = [f"input={tweets_csv(['a'])}", f"output={output}", f"tokenizer={tokenizer_folder}"]
    assert "files that prepare did not make" in fails(capsys, *words)
    assert contents(output) == {"chapter1.txt": hashlib.sha256(b"years of work").hexdigest()}

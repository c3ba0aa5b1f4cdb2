"""Verification finds any damage, and names its file and rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bert_tweets import inspect, verify
from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.verification import Damage, damages
from tests.helpers import make_shards
from tests.processes import failure, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 2,000 tweets, so that a file has many blocks."""
    from tests.helpers import generated_tweets

    return make_shards(tmp_path_factory.mktemp("whole"), generated_tweets(3000), shard_tweets=2000)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def found_in(folder: Path) -> list[Damage]:
    return list(damages(folder, Manifest.read(folder)))


def test_undamaged_shards_have_no_damage(whole: Path) -> None:
    seen: list[int] = []
    manifest = Manifest.read(whole)
    assert list(damages(whole, manifest, seen.append)) == []
    assert sum(seen) == sum(entry.bytes for split in manifest.splits.values() for entry in split)


def columns_of(path: Path) -> pa.RecordBatch | None:
    try:
        batch = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).get_batch(0)
        batch.validate(full=True)
        return batch
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError):
        return None


def test_every_flipped_bit_is_found_and_its_row_is_among_the_reported_ones(copy: Path) -> None:
    entry = Manifest.read(copy).splits["train"][0]
    path = copy / entry.file
    content = path.read_bytes()
    before = columns_of(path)
    assert before is not None
    draw, named = np.random.default_rng(0), 0
    for place in draw.integers(0, len(content), 60).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        found = found_in(copy)
        assert found and all(damage.file == entry.file for damage in found), place
        after = columns_of(path)
        if after is None or after.schema != before.schema or after.num_rows != before.num_rows:
            continue
        changed = [row for row in range(before.num_rows) if after.slice(row, 1) != before.slice(row, 1)]
        spans = [damage.rows for damage in found if damage.rows]
        if changed:
            named += 1
            assert all(any(first <= row <= last for first, last in spans) for row in changed), (place, changed, spans)
    path.write_bytes(content)
    assert named > 30 and found_in(copy) == []


def test_a_changed_text_is_among_the_rows_of_its_block(copy: Path) -> None:
    entry = Manifest.read(copy).splits["train"][0]
    path = copy / entry.file
    batch = columns_of(path)
    content = bytearray(path.read_bytes())
    text = batch["text"][1234].as_py().encode()
    place = content.index(text)
    content[place + text.index(b" ") + 1] ^= 1
    path.write_bytes(content)
    ((first, last),) = [damage.rows for damage in found_in(copy)]
    assert first <= 1234 <= last < first + 1500


def test_foreign_and_missing_files_are_reported(copy: Path) -> None:
    manifest = Manifest.read(copy)
    first, second = (entry.file for entry in manifest.splits["train"][:2])
    shutil.copy(copy / first, copy / "train" / "00009.arrow")
    (copy / second).unlink()
    (copy / manifest.splits["validation"][0].file).write_bytes(b"short")
    assert {(damage.file, damage.what.split()[0]) for damage in found_in(copy)} == {
        ("train/00009.arrow", "does"),
        (second, "is"),
        (manifest.splits["validation"][0].file, "has"),
    }


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("funnel.json", None),
        ("funnel.json", b"{"),
        ("funnel.json", b"[]"),
        ("funnel.json", (b'"read": 3000', b'"read": 3001')),
        ("prepare.json", None),
        ("prepare.json", b"{"),
        ("prepare.json", b"[]"),
        ("prepare.json", (b'"max_length": 128', b'"max_length": 129')),
        ("train/00000.crc32", None),
        ("train/00000.crc32", b""),
    ],
)
def test_a_damaged_file_next_to_the_shards_is_reported(
    copy: Path, file: str, content: bytes | tuple[bytes, bytes] | None
) -> None:
    path = copy / file
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        assert path.read_bytes().count(content[0]) == 1
        path.write_bytes(path.read_bytes().replace(*content))
    assert [(damage.file, damage.foreign) for damage in found_in(copy)] == [(file, False)]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "lengths",
            lambda lengths: [*lengths[:20], lengths[20] + 1, lengths[21] - 2, lengths[22] + 1],
            "lengths of train",
        ),
        ("unknown_tokens", lambda count: count + 1, "UNK"),
        ("special_ids", lambda ids: [*ids, 99], "ids are not those of the tokenizer"),
        ("vocabulary_size", lambda size: size + 1, "ids are not those of the tokenizer"),
        ("mask_id", lambda mask: mask + 1, "ids are not those of the tokenizer"),
    ],
)
def test_the_counts_and_ids_of_the_manifest_are_verified(
    whole: Path, name: str, change: Callable[[Any], Any], said: str
) -> None:
    manifest = Manifest.read(whole)
    value = getattr(manifest, name)
    if name == "lengths":
        train = change(value["train"])
        changed = {**value, "train": train + value["train"][len(train) :]}
    else:
        changed = change(value)
    found = list(damages(whole, replace(manifest, **{name: changed})))
    assert any(damage.file == "manifest.json" and said in damage.what for damage in found)


def test_a_flipped_bit_of_the_block_checksums_is_found(copy: Path) -> None:
    path = copy / "train" / "00000.crc32"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    assert [damage.file for damage in found_in(copy)] == ["train/00000.crc32"]


def test_foreign_files_are_reported_but_not_as_damage(copy: Path) -> None:
    (copy / "notes.txt").touch()
    (copy / "train" / "00000.arrow.bak").touch()
    (copy / "work").mkdir()
    (copy / "tokenizer" / "more.txt").touch()
    found = found_in(copy)
    assert [damage.file for damage in found] == ["notes.txt", "tokenizer/more.txt", "train/00000.arrow.bak", "work"]
    assert all(damage.foreign for damage in found)
    with pytest.raises(
        UserError, match=r"is complete, but contains files of other origin\n +notes.txt: .*; move it away"
    ):
        verify.stage([str(copy)])


def test_the_advice_is_to_remove_the_folder_first(copy: Path) -> None:
    (copy / "funnel.json").unlink()
    (copy / "notes.txt").touch()
    with pytest.raises(UserError, match=f"is damaged; remove {copy}, then prepare again"):
        verify.stage([str(copy)])
    with pytest.raises(UserError, match=f"funnel.json: is missing.*; remove {copy}, then prepare again"):
        inspect.stage([str(copy)])


def test_another_tokenizer_is_found(copy: Path, tmp_path: Path) -> None:
    other = make_shards(tmp_path / "other", vocabulary_size=300)
    shutil.rmtree(copy / "tokenizer")
    shutil.copytree(other / "tokenizer", copy / "tokenizer")
    assert [damage.file for damage in found_in(copy)] == ["tokenizer"]


@pytest.mark.dist
def test_the_commands(copy: Path) -> None:
    done = run(["-m", "bert_tweets.cli", "verify", str(copy)])
    assert done.returncode == 0 and "complete and unchanged" in done.stdout
    shown = run(["-m", "bert_tweets.cli", "inspect", str(copy), "samples=1"])
    assert shown.returncode == 0, shown.stderr
    for part in ("packed", "[UNK]", "[CLS]", "recipe"):
        assert part in shown.stdout
    entry = Manifest.read(copy).splits["train"][0]
    content = bytearray((copy / entry.file).read_bytes())
    content[len(content) // 2] ^= 4
    (copy / entry.file).write_bytes(content)
    assert "is damaged" in failure("verify", f"path={copy}")
    assert "no such folder" in failure("verify", "path=/no/such/folder")

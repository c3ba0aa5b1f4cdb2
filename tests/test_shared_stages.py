"""embed and evaluate under torchrun: the files of one process, byte for byte, whatever the number of ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bert_tweets.corpus.shards.manifest import Manifest
from tests.helpers import make_shards, write_csv
from tests.processes import failure, run
from tests.stages_worker import SMALL_UNITS, STAGES
from tests.test_evaluate import export_scratch

pytestmark = pytest.mark.xdist_group("ranks")

WORKER = str(Path(__file__).parent / "stages_worker.py")
# The last two have less work than ranks: one micro-batch, and nothing at all.
JOBS = {
    "words": (
        "embed",
        ["words=[mask,the internet,#metoo,no,😷]", "include_text=true", "base", "correction=all-but-the-top"],
    ),
    "sampled": (
        "embed",
        ["words=[mask]", "lemmas={virus: [virus, government]}", "max_occurrences=3", "by=month", "precision=bf16"],
    ),
    "layers": (
        "embed",
        ["words=[mask,virus]", "max_occurrences=30", "layer_pooling=none", "layers=[0,1]", "pooling=max", "controls=0"],
    ),
    "spans": ("embed", ["spans"]),
    "evaluated": ("evaluate", ["base"]),
    "few": ("evaluate", ["max_tweets=3"]),
    "rare": ("embed", ["words=[mask]", "max_occurrences=1", "background_tweets=0", "controls=0"]),
    "nowhere": ("embed", ["words=[pikachu]", "background_tweets=0"]),
}


def jobs(shards: Path, models: list[Path], output: Path) -> list[tuple[str, list[str]]]:
    """Each stage with its arguments, into folders with its name."""
    found = []
    for name, (stage, more) in JOBS.items():
        words = [word if word != "base" else f"base={models[1]}" for word in more if word != "spans"]
        given = f"occurrences={models[0].parent / 'spans.csv'}" if "spans" in more else f"data.path={shards}"
        where = [f"model={models[0]}", given, f"output={output / name}", "device=cpu"]
        found.append((stage, [*where, "tokens_per_device=128", *words]))
    return found


@pytest.fixture(scope="module")
def models(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    texts = [f"the {'internet ' * (number % 90)}mask {number}" for number in range(300)]
    rows = [[text, str(text.index("mask")), str(text.index("mask") + 4)] for text in texts]
    write_csv(folder / "spans.csv", ["text", "start", "end"], rows)
    return [export_scratch(folder / str(seed), shards, seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def alone(shards: Path, models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process, with the one thread that torchrun gives each rank."""
    output = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        for unit in SMALL_UNITS:
            patch.setattr(*unit)
        for stage, words in jobs(shards, models, output):
            STAGES[stage](words)
    return output


@pytest.mark.dist
@pytest.mark.parametrize("processes", [2, *(pytest.param(ranks, marks=pytest.mark.soak) for ranks in (1, 3))])
def test_the_files_of_any_number_of_ranks_are_those_of_one_process(
    alone: Path, shards: Path, models: list[Path], tmp_path: Path, processes: int
) -> None:
    plan = tmp_path / "jobs.json"
    plan.write_text(json.dumps(jobs(shards, models, tmp_path)), encoding="utf-8")
    done = run([WORKER, str(plan)], processes=processes)
    assert done.returncode == 0, done.stderr
    plan.unlink()
    files, expected = ({p.relative_to(at): p.read_bytes() for p in at.rglob("*.*")} for at in (tmp_path, alone))
    assert files.keys() == expected.keys() and len(files) == 41
    for name, content in expected.items():
        assert files[name] == content, name
    # Only rank 0 prints.
    assert done.stdout.count("embedding with ") == 7 and done.stdout.count("figures: ") == 3


def test_there_was_enough_work_to_share(alone: Path, shards: Path) -> None:
    rows = pq.read_table(alone / "words" / "occurrences.parquet")
    assert rows.num_rows > 300 and rows["vector"].null_count < rows.num_rows / 2
    manifest = Manifest.read(shards)
    assert manifest.rows("validation") > 2 * 16 and manifest.tokens("validation") > 4 * 128
    assert json.loads((alone / "evaluated/metrics.json").read_text())["difference"]["loss"] != 0


@pytest.mark.dist
def test_a_mistake_that_all_ranks_see_is_reported_once(shards: Path, models: list[Path], tmp_path: Path) -> None:
    _, words = jobs(shards, models, tmp_path)[0]
    assert "has 1 layers" in failure("embed", *words, "layers=7", processes=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.dist
def test_a_mistake_that_rank_0_alone_sees_ends_all(shards: Path, models: list[Path], tmp_path: Path) -> None:
    _, words = jobs(shards, models, tmp_path)[0]
    (tmp_path / ".words.unfinished").mkdir()
    (tmp_path / ".words.unfinished" / "thesis.txt").write_text("not yours")
    assert "was not created by bert_tweets" in failure("embed", *words, processes=2)


@pytest.mark.dist
def test_damage_that_another_rank_alone_finds_ends_all(models: list[Path], tmp_path: Path) -> None:
    """Ranks that wait for it in a collective print nothing of their own."""
    shards = make_shards(tmp_path / "data")
    damaged = shards / "train" / "00003.arrow"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    _, words = jobs(shards, models, tmp_path)[0]
    assert f"{damaged}: damaged shard" in failure("embed", *words, "data.verify=false", processes=2)

"""verify: check every byte of a folder of shards or of checkpoints, and report damage by file and rows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bert_tweets.common.errors import UserError, run_entry
from bert_tweets.common.terminal import ProgressBar
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest, how_to_recreate, read_errors

from .config import VerifyConfig, parser
from .training import checkpoint


def stage(argv: list[str]) -> None:
    """Check a folder of shards, or of checkpoints.

    Raises:
        UserError: lists all damage, one line each.
    """
    config = parser.load(VerifyConfig, parser.path_first(argv))
    from bert_tweets.corpus.shards.verification import damages

    folders: list[Path] = []
    with suppress(OSError):  # reported when the manifest is read
        folders = checkpoint.named_by(Path(config.path))
    if not Path(config.path).exists():
        raise UserError(f"{config.path}: no such folder; give a folder of shards, a run or a checkpoint")
    if folders:
        _verify_checkpoints(config.path, folders)
        return
    manifest = Manifest.read(config.path)
    total = sum(entry.bytes for split in SPLITS for entry in manifest.splits[split])
    with ProgressBar("verifying", total) as advance, read_errors(config.path):
        found = list(damages(Path(config.path), manifest, advance))
    if found:
        lines = "\n       ".join(map(str, found))
        if all(damage.foreign for damage in found):
            raise UserError(f"{config.path}: is complete, but contains files of other origin\n       {lines}")
        raise UserError(f"{config.path}: is damaged; {how_to_recreate(config.path)}\n       {lines}")
    shards = sum(len(manifest.splits[split]) for split in SPLITS)
    print(f"{config.path}: complete and unchanged: {shards} shards, {total:,} bytes")


def _verify_checkpoints(path: str, folders: list[Path]) -> None:
    wrong, total = [], 0
    sizes = {folder: sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in folders}
    with ProgressBar("verifying", sum(sizes.values())) as advance:
        for folder, size in sizes.items():
            try:
                record = checkpoint.check(folder)
                total += size
                wrong += [f"{file}: does not belong to it" for file in checkpoint.unexpected_files(folder, record)]
            except checkpoint.Damaged as error:
                wrong.append(str(error))
            advance(size)
    if wrong:
        lines = "\n       ".join(wrong)
        raise UserError(f"{path}: is damaged; remove the damaged checkpoints\n       {lines}")
    print(f"{path}: complete and unchanged: {len(folders)} checkpoint(s), {total:,} bytes")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


if __name__ == "__main__":
    main()

"""One rank of test_equality.py: twenty steps of a tiny BERT in fp32, and what came of them.

Usage: worker.py SHARDS OUTPUT BATCH_SIZE TOKENS_PER_DEVICE
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from bert_tweets.config import ModelConfig, OptimizerConfig, ScratchConfig
from bert_tweets.data.loader import Layout, StepLoader
from bert_tweets.data.manifest import Manifest
from bert_tweets.data.masking import masking_for
from bert_tweets.data.order import Stream
from bert_tweets.data.shards import open_split
from bert_tweets.engine import world as ranks
from bert_tweets.engine.ddp import DDPEngine
from bert_tweets.model.loading import load_model
from bert_tweets.model.masked_lm import PackedMaskedLM
from bert_tweets.training.optimizer import make_optimizer

STEPS = 20


def main(shards: str, output: str, batch_size: int, tokens_per_device: int) -> None:
    torch.use_deterministic_algorithms(True)
    world = ranks.this_world("cpu")
    ranks.start(world, timeout_seconds=60)
    manifest = Manifest.read(shards)
    split = open_split(shards, manifest, "train")
    masking = masking_for(manifest, 1, 0.15, False)
    layout = Layout(manifest.max_length, tokens_per_device, manifest.pad_id)
    stream = Stream(len(split), 1, batch_size, STEPS * batch_size)
    loader = StepLoader(split, stream, masking, layout, world.rank, world.world_size, world.gather)
    scratch = ScratchConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    module = PackedMaskedLM(load_model(ModelConfig(name="scratch", scratch=scratch), manifest, seed=1).model)
    optimizer = make_optimizer(module.parameters(), OptimizerConfig())
    engine = DDPEngine(module, optimizer, world, "fp32", max_grad_norm=0.0)
    gradients: dict[str, np.ndarray] = {}

    def keep_first(*_: Any) -> None:
        if not gradients:
            named = module.model.named_parameters()
            gradients.update({f"gradient {name}": p.grad.numpy().copy() for name, p in named if p.grad is not None})

    optimizer.register_step_pre_hook(keep_first)
    losses, norms, micro_batches, mine = [], [], 0, []
    for step in loader.steps():
        share, norm = engine.train_step(step, masking, learning_rate=5e-5)
        losses.append(float(world.sum(share)))
        norms.append(float(norm))
        micro_batches = max(micro_batches, len(step.micro_batches))
        mine.append(sum(int(masking.select(batch).sum()) for batch in step.micro_batches))
    by_rank = world.gather(mine)()
    if world.is_main:
        weights = {f"weight {name}": tensor.numpy() for name, tensor in engine.state_dict().items()}
        np.savez(
            output, losses=losses, norms=norms, micro_batches=micro_batches, masked=by_rank, **gradients, **weights
        )
    ranks.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

"""The runs that test_equality.py compares; worker.py makes many of them in one start of ranks."""

from __future__ import annotations

from dataclasses import dataclass

# Few and short tweets per step, so that some rank has no masked token.
BATCH_SIZE, RATE, STEPS, FEW, RESTART_AT = 12, 5e-5, 20, 8, 4
WHOLE, IN_PARTS = 4096, 8
# DeepSpeed's JSON for all cases: by default ZeRO 3 would not shard parameters as small as these.
SETTINGS_FILE = "deepspeed.json"
SETTINGS = {"zero_optimization": {"stage3_param_persistence_threshold": 0}, "gradient_clipping": "auto"}


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        stage: ZeRO stage; None: DDP.
        tokens_per_device: `IN_PARTS` gives several micro-batches per step.
        offload: keep the optimizer, and at stage 3 parameters, on the CPU.
    """

    stage: int | None = None
    tokens_per_device: int = WHOLE
    precision: str = "fp32"
    max_grad_norm: float = 0.0
    compress: bool = False
    offload: bool = False
    checkpoint: bool = False
    trainable: str = "all"
    steps: int = STEPS


ENGINES = {"ddp": None, "zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3}
CASES = {name: Case(stage) for name, stage in ENGINES.items()}
CASES |= {f"{name}-parts": Case(stage, IN_PARTS) for name, stage in ENGINES.items()}
CASES |= {f"{name}-bf16": Case(stage, precision="bf16") for name, stage in ENGINES.items()}
for name, stage in ENGINES.items():
    CASES |= {
        f"{name}-weights": Case(stage, precision="bf16_weights", steps=FEW),
        f"{name}-fp16": Case(stage, precision="fp16", steps=FEW),
        f"{name}-clipped": Case(stage, max_grad_norm=0.5, steps=FEW),
        f"{name}-compressed": Case(stage, compress=True, steps=FEW),
        f"{name}-offload": Case(stage, IN_PARTS, offload=True, steps=FEW),
        f"{name}-recomputed": Case(stage, IN_PARTS, checkpoint=True, steps=FEW),
        f"{name}-frozen": Case(stage, IN_PARTS, trainable="embeddings", steps=FEW),
        f"{name}-frozen-weights": Case(stage, precision="bf16_weights", trainable="embeddings", steps=FEW),
    }
CASES |= {"restart": Case(steps=FEW), "restart-parts": Case(None, IN_PARTS, steps=FEW)}

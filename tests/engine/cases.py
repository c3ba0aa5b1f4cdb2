"""The runs that test_equality.py compares; worker.py makes many of them in one start of ranks."""

from __future__ import annotations

from dataclasses import dataclass

# Few and short tweets a step, so that some rank has no masked token at all.
BATCH_SIZE, STEPS, RATE, RESTART_AT = 12, 20, 5e-5, 7
WHOLE, IN_PARTS = 4096, 8
# DeepSpeed's JSON of all cases: ZeRO 3 would leave parameters as small as these whole.
SETTINGS_FILE = "deepspeed.json"
SETTINGS = {"zero_optimization": {"stage3_param_persistence_threshold": 0}, "gradient_clipping": "auto"}


@dataclass(frozen=True)
class Case:
    """A run of `STEPS` steps.

    Attributes:
        stage: of ZeRO; None: DDP.
        tokens_per_device: `IN_PARTS` makes several micro-batches of a step.
        offload: optimizer, and at stage 3 parameters, on the CPU.
    """

    stage: int | None = None
    tokens_per_device: int = WHOLE
    precision: str = "fp32"
    max_grad_norm: float = 0.0
    compress: bool = False
    offload: bool = False
    checkpoint: bool = False
    trainable: str = "all"


ENGINES = {"ddp": None, "zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3}
CASES = {name: Case(stage) for name, stage in ENGINES.items()}
CASES |= {f"{name}-parts": Case(stage, IN_PARTS) for name, stage in ENGINES.items()}
CASES |= {f"{name}-bf16": Case(stage, precision="bf16") for name, stage in ENGINES.items()}
CASES |= {
    f"{name}-weights": Case(stage, precision="bf16_weights") for name, stage in ENGINES.items() if name != "zero0"
}
CASES |= {f"{name}-clipped": Case(stage, max_grad_norm=0.5) for name, stage in ENGINES.items()}
CASES |= {f"{name}-compressed": Case(stage, compress=True) for name, stage in ENGINES.items()}
CASES |= {f"zero{stage}-offload": Case(stage, IN_PARTS, offload=True) for stage in (1, 2, 3)}
CASES |= {f"{name}-recomputed": Case(stage, IN_PARTS, checkpoint=True) for name, stage in (("ddp", None), ("zero3", 3))}
CASES |= {f"{name}-fp16": Case(stage, precision="fp16") for name, stage in ENGINES.items()}
CASES |= {"ddp-frozen": Case(None, IN_PARTS, trainable="embeddings"), "zero3-frozen": Case(3, trainable="embeddings")}
CASES |= {"zero2-frozen": Case(2, precision="bf16_weights", trainable="embeddings")}

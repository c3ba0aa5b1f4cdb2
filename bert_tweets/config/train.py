"""Settings of train."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import DEVICE, setting, settings_group

ATTENTION = ("auto", "sdpa", "bucketed", "triton", "varlen", "flex")
PRECISION = ("fp32", "tf32", "bf16", "bf16_weights", "fp16")


@dataclass
class DataConfig:
    """Shards and how they are read."""

    path: str = setting("", "folder of shards that prepare made", required=True)
    row_length: int = setting(0, "length of a packed row; 0: the shards' max_length", unit="tokens", at_least=0)
    shuffle: str = setting(
        "full",
        "full: any tweet may follow any other; block: for disks with slow random reads, see block_size",
        choices=("full", "block"),
    )
    block_size: int = setting(
        8192, "shuffle=block: tweets that are read together; blocks are shuffled", unit="tweets", at_least=1
    )
    shuffle_blocks: int = setting(
        64, "shuffle=block: blocks whose tweets are shuffled among each other", unit="blocks", at_least=1
    )
    num_workers: int = setting(
        1, "threads that make steps ahead; 0: make each when it is due", unit="threads", at_least=0
    )
    verify: bool = setting(True, "compare every shard with its checksum before training")


@dataclass
class ScratchConfig:
    """Sizes of a BERT made from scratch (`model.name=scratch`)."""

    hidden_size: int = setting(128, "width", at_least=8)
    num_hidden_layers: int = setting(2, "layers", at_least=1)
    num_attention_heads: int = setting(2, "attention heads", at_least=1)
    intermediate_size: int = setting(512, "width of the feed-forward layer", at_least=8)


@dataclass
class ModelConfig:
    """The encoder that is adapted."""

    name: str = setting("", "folder or hub name of a BERT or RoBERTa; 'scratch': random weights", required=True)
    revision: str = setting("main", "revision of a hub model; a commit pins it, as NAME@COMMIT does in model.name")
    dropout: float = setting(
        0.0,
        "hidden dropout; above 0, runs of different layout agree in data and masks only",
        at_least=0.0,
        at_most=0.9,
    )
    trainable: str = setting("all", "what is trained", choices=("all", "embeddings"))
    attention: str = setting(
        "auto", "backend of attention; auto: the fastest that works here, said in the log", choices=ATTENTION
    )
    compile: str = setting(
        "auto", "have torch.compile make the kernels; auto: on a GPU", choices=("auto", "true", "false")
    )
    checkpoint_activations: bool = setting(
        False, "forget each layer's activations and compute them again on the way back: less memory, a third slower"
    )
    scratch: ScratchConfig = settings_group(ScratchConfig)


@dataclass
class MaskingConfig:
    """Which tokens the model has to guess (80 % [MASK], 10 % random, 10 % kept; Devlin et al. 2019)."""

    probability: float = setting(0.15, "share of ordinary tokens that is masked", above=0.0, at_most=0.9)
    whole_word: bool = setting(False, "mask all pieces of a word together")


@dataclass
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019); biases and LayerNorms do not decay."""

    learning_rate: float = setting(5e-5, "peak learning rate", above=0.0)
    weight_decay: float = setting(0.01, "decoupled weight decay", at_least=0.0)
    beta1: float = setting(0.9, "decay of the first moment", at_least=0.0, at_most=0.9999)
    beta2: float = setting(0.999, "decay of the second moment", at_least=0.0, at_most=0.999999)
    epsilon: float = setting(1e-8, "AdamW's epsilon", above=0.0)
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm; 0: never", at_least=0.0)
    allow_high_learning_rate: bool = setting(False, "insist on a rate above 1e-3")


@dataclass
class ScheduleConfig:
    """Learning rate over the run."""

    name: str = setting(
        "linear",
        "shape after warm-up; wsd: the peak is held, the rate falls at the end alone",
        choices=("linear", "cosine", "constant", "wsd"),
    )
    warmup_steps: int | None = setting(None, "steps of linear warm-up; null: 6 % of the run", unit="steps", at_least=0)
    decay_steps: int | None = setting(
        None, "name=wsd: steps at the end in which the rate falls; null: 10 % of the run", unit="steps", at_least=1
    )


@dataclass
class ValidationConfig:
    """Periodic validation; the exported model is the best one by it."""

    every_steps: int = setting(
        0,
        "steps between validations; 0: twenty over the run, a tenth of its time at most, one an epoch at least",
        unit="steps",
        at_least=0,
    )
    max_tweets: int = setting(2000, "tweets of the validation split that are used", unit="tweets", at_least=1)
    patience: int = setting(4, "validations without a new best before an early stop; 0: never stop", at_least=0)


@dataclass
class EngineConfig:
    """What turns micro-batches into optimizer steps."""

    name: str = setting("ddp", "engine", choices=("ddp", "deepspeed"))
    zero_stage: int | None = setting(
        None,
        "deepspeed: what is parted among the ranks: 0 nothing, 1 the optimizer's state, 2 gradients also, 3 weights; "
        "null: as engine.deepspeed_config says, else 1",
        at_least=0,
        at_most=3,
    )
    offload_optimizer: bool = setting(False, "deepspeed: keep the optimizer's state, and take its step, on the CPU")
    offload_parameters: bool = setting(False, "deepspeed, zero_stage=3: keep the weights' parts on the CPU")
    deepspeed_config: str = setting("", "a JSON file of DeepSpeed's own settings, merged into what ours make")
    compress_gradients: bool = setting(False, "ranks exchange gradients in bf16: half the traffic")
    timeout_seconds: int = setting(
        600, "a step that takes longer ends the run, and each rank's stack is written", unit="s", at_least=1
    )

    def problems(self) -> list[str]:
        """Settings of DeepSpeed that another engine would pass over."""
        if self.name == "deepspeed":
            return []
        given = {
            "zero_stage": self.zero_stage is not None,
            "offload_optimizer": self.offload_optimizer,
            "offload_parameters": self.offload_parameters,
            "deepspeed_config": bool(self.deepspeed_config),
        }
        wrong = [key for key, is_given in given.items() if is_given]
        return [f"engine.{key}: is of DeepSpeed; set engine.name=deepspeed too" for key in wrong]


@dataclass
class CheckpointConfig:
    """What a run can go on from (`output/checkpoints`)."""

    every_steps: int = setting(500, "steps between checkpoints; 0: only when asked to stop", unit="steps", at_least=0)
    keep: int = setting(2, "so many of the newest stay", unit="checkpoints", at_least=1)


@dataclass
class LogConfig:
    """What is written while training."""

    every_steps: int = setting(10, "steps between lines of metrics.jsonl", unit="steps", at_least=1)


@dataclass
class DryRunConfig:
    """Hardware that `dry_run=true` assumes in place of this machine's; a real run ignores it."""

    devices: int = setting(0, "ranks, a device each; 0: as many as this command was started with", at_least=0)
    device_memory: float = setting(
        0.0,
        "memory of a device; 0: of the one here. With device=cuda, no GPU need be here",
        unit="GiB",
        at_least=0.0,
    )
    tokens_per_second: float = setting(
        0.0,
        "real tokens that one device trains on, as metrics.jsonl of a run has them for all ranks; 0: not known, and "
        "no time is told",
        unit="tokens/s",
        at_least=0.0,
    )


@dataclass
class TrainConfig:
    """train: adapt a masked language model to the shards."""

    output: str = setting("", "folder of the run; new, empty, or one that train made", required=True)
    seed: int = setting(0, "seed of order, masks and new weights", at_least=0)
    max_steps: int | None = setting(None, "optimizer steps; null: by epochs", unit="steps", at_least=1)
    epochs: float | None = setting(None, "passes over the training tweets; null and no max_steps: 3", above=0.0)
    batch_size: int = setting(256, "tweets of one optimizer step, over all ranks", unit="tweets", at_least=1)
    tokens_per_device: int = setting(16_384, "token capacity of one micro-batch", unit="tokens", at_least=8)
    precision: str = setting(
        "bf16",
        "arithmetic; the weights stay fp32, with bf16_weights as masters that are rounded for each step; "
        "tf32: products of fp32 with 10 bits; fp16: with a dynamic scale of the loss",
        choices=PRECISION,
    )
    deterministic: bool = setting(False, "on a GPU, kernels that give the same bits every time; slower")
    profile: bool = setting(False, "leave a torch.profiler trace of a few steps, and a table of where the time goes")
    device: str = setting("auto", "where to train; auto: the GPU if there is one", choices=DEVICE)
    resume: str = setting(
        "auto",
        "auto: go on from the newest whole checkpoint in output, if there is one; never: begin anew; "
        "else the folder of a checkpoint, or of a run, to go on from",
    )
    stop_after_steps: int | None = setting(
        None, "save and leave after so many steps of this launch; the schedule stays", unit="steps", at_least=1
    )
    max_nonfinite_steps: int = setting(
        10,
        "steps whose loss or gradient is not finite are skipped; more of them among the last thousand end the run",
        unit="steps",
        at_least=0,
    )
    dry_run: bool = setting(
        False, "print settings, parameters, memory, steps and disk, and stop; starts and writes nothing"
    )
    dry_run_for: DryRunConfig = settings_group(DryRunConfig)
    data: DataConfig = settings_group(DataConfig)
    model: ModelConfig = settings_group(ModelConfig)
    masking: MaskingConfig = settings_group(MaskingConfig)
    optimizer: OptimizerConfig = settings_group(OptimizerConfig)
    schedule: ScheduleConfig = settings_group(ScheduleConfig)
    validation: ValidationConfig = settings_group(ValidationConfig)
    engine: EngineConfig = settings_group(EngineConfig)
    checkpoint: CheckpointConfig = settings_group(CheckpointConfig)
    log: LogConfig = settings_group(LogConfig)

    def problems(self) -> list[str]:
        """What fields get wrong together, one line each."""
        found = self.engine.problems()
        rate = self.optimizer.learning_rate
        if rate > 1e-3 and not self.optimizer.allow_high_learning_rate:
            found.append(
                f"optimizer.learning_rate={rate:g}: above 1e-3 a pre-trained BERT forgets what it knows; "
                "use 5e-5, or insist with optimizer.allow_high_learning_rate=true"
            )
        if self.max_steps is not None and self.epochs is not None:
            found.append("max_steps and epochs: give one of them, not both")
        if self.schedule.decay_steps is not None and self.schedule.name != "wsd":
            found.append(
                f"schedule.decay_steps={self.schedule.decay_steps}: schedule.name={self.schedule.name} falls over the "
                "whole run, or never; only wsd has a decay of its own"
            )
        if self.model.scratch.hidden_size % self.model.scratch.num_attention_heads:
            found.append("model.scratch.hidden_size: must be a multiple of model.scratch.num_attention_heads")
        return found

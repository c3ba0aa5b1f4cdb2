"""Settings of train."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import device, required, setting, settings_group, tokens_per_device

ATTENTION = ("auto", "sdpa", "bucketed", "triton", "varlen", "flex")
PRECISION = ("fp32", "tf32", "bf16", "bf16_weights", "fp16")


@dataclass
class DataConfig:
    """Shards and how they are read."""

    path: str = required("", "folder of shards written by prepare")
    row_length: int = setting(0, "length of a packed row; 0: the max_length of the shards", unit="tokens", at_least=0)
    shuffle: str = setting(
        "full",
        "full: shuffle all tweets; block: shuffle blocks of consecutive tweets, and tweets within a window of blocks, "
        "for data that does not fit in memory",
        choices=("full", "block"),
    )
    block_size: int = setting(
        8192,
        "data.shuffle=block: number of consecutive tweets in a block; the order of blocks is random",
        unit="tweets",
        at_least=1,
    )
    shuffle_blocks: int = setting(
        64, "data.shuffle=block: number of blocks whose tweets are shuffled together", unit="blocks", at_least=1
    )
    num_workers: int = setting(
        1,
        "number of threads that load batches in advance; 0: load each batch when it is needed",
        unit="threads",
        at_least=0,
    )
    verify: bool = setting(True, "verify the checksum of every shard before reading it")


@dataclass
class ScratchConfig:
    """Size of a BERT trained from scratch (`model.name=scratch`)."""

    hidden_size: int = setting(128, "model.name=scratch: hidden size of the encoder layers", at_least=8)
    num_hidden_layers: int = setting(2, "model.name=scratch: number of encoder layers", at_least=1)
    num_attention_heads: int = setting(2, "model.name=scratch: number of attention heads per layer", at_least=1)
    intermediate_size: int = setting(512, "model.name=scratch: width of the feed-forward layers", at_least=8)


@dataclass
class ModelConfig:
    """The encoder to adapt."""

    name: str = required(
        "",
        "folder or Hugging Face Hub name of a BERT, RoBERTa, CamemBERT, XLM-RoBERTa or ModernBERT model; scratch: a "
        "new BERT with random weights",
    )
    revision: str = setting(
        "main", "branch, tag or commit of a Hub model; a commit pins it, as does model.name=NAME@COMMIT"
    )
    dropout: float = setting(
        0.0,
        "dropout probability of the hidden layers; above 0, losses depend on the number of ranks and micro-batches "
        "(data order and masks do not)",
        at_least=0.0,
        at_most=0.9,
    )
    trainable: str = setting(
        "all", "parameters to train: all of them, or only the embeddings", choices=("all", "embeddings")
    )
    attention: str = setting(
        "auto", "attention backend; auto: the fastest one that works on the device, named in the log", choices=ATTENTION
    )
    compile: str = setting(
        "auto", "compile the model with torch.compile; auto: only on a GPU", choices=("auto", "true", "false")
    )
    checkpoint_activations: bool = setting(
        False,
        "activation checkpointing: recompute the activations of each layer in the backward pass; needs less "
        "memory but takes about a third longer",
    )
    scratch: ScratchConfig = settings_group(ScratchConfig)


@dataclass
class MaskingConfig:
    """Tokens the model has to predict (80 % become [MASK], 10 % a random token, 10 % stay; Devlin et al. 2019)."""

    probability: float = setting(0.15, "fraction of non-special tokens selected for masking", above=0.0, at_most=0.9)
    whole_word: bool = setting(False, "mask all subwords of a word together")


@dataclass
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019); no weight decay for biases and LayerNorm parameters."""

    learning_rate: float = setting(5e-5, "peak learning rate", above=0.0)
    weight_decay: float = setting(0.01, "AdamW's decoupled weight decay", at_least=0.0)
    beta1: float = setting(0.9, "decay rate of AdamW's first moment estimate", at_least=0.0, at_most=0.9999)
    beta2: float = setting(0.999, "decay rate of AdamW's second moment estimate", at_least=0.0, at_most=0.999999)
    epsilon: float = setting(1e-8, "AdamW's epsilon", above=0.0)
    max_grad_norm: float = setting(
        1.0, "maximum gradient norm; larger gradients are clipped to it; 0: no clipping", at_least=0.0
    )
    allow_high_learning_rate: bool = setting(False, "allow a learning rate above 1e-3")


@dataclass
class ScheduleConfig:
    """Learning rate over the run."""

    name: str = setting(
        "linear",
        "shape of the learning rate schedule after warm-up; wsd: hold the peak, then decay at the end of the run",
        choices=("linear", "cosine", "constant", "wsd"),
    )
    warmup_steps: int | None = setting(
        None, "length of the linear warm-up; null: 6 % of the run", unit="steps", at_least=0
    )
    decay_steps: int | None = setting(
        None, "schedule.name=wsd: length of the final decay; null: 10 % of the run", unit="steps", at_least=1
    )


@dataclass
class ValidationConfig:
    """Periodic validation; the model with the best validation loss is exported."""

    every_steps: int = setting(
        0,
        "number of steps between validations; 0: about 20 validations per run, fewer if they would take more than a "
        "tenth of the time, but at least one per epoch",
        unit="steps",
        at_least=0,
    )
    max_tweets: int = setting(2000, "maximum number of validation tweets to use", unit="tweets", at_least=1)
    patience: int = setting(
        4, "number of validations without improvement before early stopping; 0: no early stopping", at_least=0
    )


@dataclass
class EngineConfig:
    """What turns micro-batches into optimizer steps."""

    name: str = setting("ddp", "training engine", choices=("ddp", "deepspeed"))
    zero_stage: int | None = setting(
        None,
        "engine.name=deepspeed: ZeRO stage, that is, what is sharded across ranks; 0: nothing; 1: optimizer "
        "state; 2: also gradients; 3: also weights; null: the stage in engine.deepspeed_config, else 1",
        at_least=0,
        at_most=3,
    )
    offload_optimizer: bool = setting(
        False, "engine.name=deepspeed: keep the optimizer state in CPU memory and run the optimizer step on the CPU"
    )
    offload_parameters: bool = setting(
        False, "engine.name=deepspeed with engine.zero_stage=3: keep the sharded weights in CPU memory"
    )
    deepspeed_config: str = setting(
        "", "engine.name=deepspeed: JSON file of DeepSpeed settings, merged into the generated ones; empty: none"
    )
    compress_gradients: bool = setting(False, "exchange gradients between ranks in bf16, which halves the traffic")
    timeout_seconds: int = setting(
        600,
        "time limit of a step; a step that takes longer ends the run, and the stack of every rank is written to a file",
        unit="s",
        at_least=1,
    )

    def problems(self) -> list[str]:
        """DeepSpeed settings that another engine would ignore."""
        if self.name == "deepspeed":
            return []
        names = ("zero_stage", "offload_optimizer", "offload_parameters", "deepspeed_config")
        given = [name for name in names if getattr(self, name) != getattr(EngineConfig(), name)]
        return [f"engine.{name}: applies to DeepSpeed only; set engine.name=deepspeed too" for name in given]


@dataclass
class CheckpointConfig:
    """Checkpoints to resume a run from (`output/checkpoints`)."""

    every_steps: int = setting(
        500,
        "number of steps between checkpoints; 0: save one only when the run is stopped (by a signal or "
        "stop_after_steps)",
        unit="steps",
        at_least=0,
    )
    keep: int = setting(2, "number of most recent checkpoints to keep", unit="checkpoints", at_least=1)


@dataclass
class LogConfig:
    """Metrics written during training."""

    every_steps: int = setting(10, "number of steps between lines of metrics.jsonl", unit="steps", at_least=1)


@dataclass
class DryRunConfig:
    """Hardware that `dry_run=true` assumes instead of this machine's; ignored by a real run."""

    devices: int = setting(
        0,
        "dry_run=true: number of ranks to plan for, one per device; 0: the number of ranks of this command",
        at_least=0,
    )
    device_memory: float = setting(
        0.0,
        "dry_run=true: memory of one device to plan for; 0: that of this machine's device. With this and device=cuda, "
        "a run on GPUs can be planned on a machine without one",
        unit="GiB",
        at_least=0.0,
    )
    tokens_per_second: float = setting(
        0.0,
        "dry_run=true: training throughput of one device, not counting padding: tokens_per_second in "
        "metrics.jsonl of an earlier run, divided by its number of ranks; 0: unknown, so no time is estimated",
        unit="tokens/s",
        at_least=0.0,
    )


@dataclass
class TrainConfig:
    """train: adapt a masked language model to the shards."""

    output: str = required("", "folder for the run; must be new, empty, or created by an earlier train")
    seed: int = setting(0, "random seed of data order, masks and new weights", at_least=0)
    max_steps: int | None = setting(
        None, "number of optimizer steps; null: determined by epochs", unit="steps", at_least=1
    )
    epochs: float | None = setting(
        None, "number of passes over the training tweets; null: determined by max_steps if set, else 3", above=0.0
    )
    batch_size: int = setting(256, "number of tweets per optimizer step, over all ranks", unit="tweets", at_least=1)
    tokens_per_device: int = tokens_per_device()
    precision: str = setting(
        "bf16",
        "compute precision; weights are stored in fp32 (bf16_weights: as fp32 master weights, rounded to bf16 for "
        "each step); tf32: fp32 with 10-bit mantissas in matrix products; fp16: with dynamic loss scaling",
        choices=PRECISION,
    )
    deterministic: bool = setting(False, "use GPU kernels with bitwise reproducible results; slower")
    profile: bool = setting(
        False, "write a torch.profiler trace of a few steps and a table of the most expensive operations"
    )
    device: str = device("device to train on")
    resume: str = setting(
        "auto",
        "auto: resume from the newest complete checkpoint in output, if there is one; never: start from scratch; any "
        "other value: folder of the checkpoint or run to resume from",
    )
    stop_after_steps: int | None = setting(
        None,
        "number of steps to train in this launch before saving a checkpoint and exiting; the learning rate "
        "schedule is not affected; null: train to the end",
        unit="steps",
        at_least=1,
    )
    max_nonfinite_steps: int = setting(
        10,
        "maximum number of steps with a non-finite loss or gradient among the last 1000; such steps are skipped, and "
        "more of them end the run",
        unit="steps",
        at_least=0,
    )
    dry_run: bool = setting(
        False,
        "print the settings, the number of parameters and steps, and the memory and disk space needed, then exit "
        "without training or writing anything",
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
        """Conflicts between settings, one line each."""
        found = self.engine.problems()
        rate = self.optimizer.learning_rate
        if rate > 1e-3 and not self.optimizer.allow_high_learning_rate:
            advice = "use 5e-5, or set optimizer.allow_high_learning_rate=true"
            why = "above 1e-3 a pre-trained BERT forgets what it has learned"
            found.append(f"optimizer.learning_rate={rate:g}: {why}; {advice}")
        if self.max_steps is not None and self.epochs is not None:
            found.append("max_steps and epochs: set one of them, not both")
        if self.schedule.decay_steps is not None and self.schedule.name != "wsd":
            why = f"schedule.name={self.schedule.name} has no separate decay phase"
            advice = "set schedule.name=wsd, or leave decay_steps out"
            found.append(f"schedule.decay_steps={self.schedule.decay_steps}: {why}; {advice}")
        if self.model.scratch.hidden_size % self.model.scratch.num_attention_heads:
            found.append("model.scratch.hidden_size: must be a multiple of model.scratch.num_attention_heads")
        return found

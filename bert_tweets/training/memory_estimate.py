"""Memory of a training step on one rank, by part, in bytes: formulas and their sources.

What engines hold: Rajbhandari et al. 2020 (ZeRO), section 5, plus what DeepSpeed 0.19 keeps in addition. What the
backward pass needs: counted operator by operator, after Korthikanti et al. 2022 (Reducing activation recomputation),
section 4, for our implementation of the layers (`model.encoder`). Not included: CUDA's context, NCCL's buffers and
memory fragmentation. torch.compile keeps less than is counted here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bert_tweets.engine.deepspeed import BUCKET
from bert_tweets.engine.precision import COMPUTE_DTYPES
from bert_tweets.model.attention.bucketed_cpu import WIDTH_STEP
from bert_tweets.model.encoder import LIKE_BERT
from bert_tweets.model.loss import ROWS_AT_ONCE

FP32 = 4
# Elements of gathered weights that ZeRO 3 keeps because they are used again (stage3_max_reuse_distance).
_REUSED = 1_000_000_000


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters of a model; tied ones count once, so `embeddings` includes a decoder tied to them."""

    embeddings: int
    layers: int
    head: int
    trained: int
    trained_tensors: int

    @property
    def total(self) -> int:
        return self.embeddings + self.layers + self.head


def count_parameters(model: Any) -> ParameterCounts:
    """Count the parameters of a stock model, which may be on the meta device."""
    parts = (model, model.base_model, model.base_model.embeddings)
    total, inside, embeddings = (sum(p.numel() for p in part.parameters()) for part in parts)
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    return ParameterCounts(embeddings, inside - embeddings, total - inside, sum(trained), len(trained))


def checkpoint_size(parameters: ParameterCounts) -> int:
    """Size of a checkpoint on disk: weights, both moments of trained weights, and the best weights if they differ."""
    return 2 * FP32 * (parameters.total + parameters.trained)


@dataclass(frozen=True)
class EngineVariant:
    """An engine, with its ZeRO stage (None: DDP) and what it keeps on the host."""

    stage: int | None = None
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @property
    def name(self) -> str:
        if self.stage is None:
            return "ddp"
        offloaded = ["optimizer"] * self.offload_optimizer + ["parameters"] * self.offload_parameters
        return f"ZeRO {self.stage}" + (f", {' and '.join(offloaded)} on the host" if offloaded else "")


ENGINE_VARIANTS = (
    EngineVariant(),
    *(EngineVariant(stage) for stage in range(4)),
    *(EngineVariant(stage, True) for stage in (1, 2, 3)),
    EngineVariant(3, True, True),
)


@dataclass(frozen=True)
class DTypeSizes:
    """Bytes per number.

    Attributes:
        weights: bytes of weights, and of the gradients that the backward pass produces.
        stream: bytes of the residual stream and of the inputs of LayerNorm.
        products: bytes of operands and results of matrix products; if fewer than `weights`, these are rounded first.
        masters: whether the optimizer has fp32 master weights.
    """

    weights: int
    stream: int
    products: int
    masters: bool


def dtype_sizes(precision: str, variant: EngineVariant) -> DTypeSizes | None:
    """The sizes for a `precision`, see `engine.deepspeed_config`; None: DeepSpeed does not support it there."""
    if precision == "bf16_weights":
        return None if variant.stage == 0 else DTypeSizes(2, 2, 2, True)
    if variant.stage and precision == "fp16":
        return DTypeSizes(2, 2, 2, True)
    # ZeRO's optimizer works on flat copies of its own, in fp32 too.
    return DTypeSizes(FP32, FP32, COMPUTE_DTYPES[precision].itemsize, bool(variant.stage))


@dataclass(frozen=True)
class Memory:
    """Memory of one rank in bytes, on its device except for `host`.

    Attributes:
        gradients: gradients at the end of a backward pass.
        activations: what the forward pass keeps for the backward pass, without the loss.
        workspace: the loss, and temporary tensors.
        host: memory of the host, in addition to that of the process itself.
    """

    weights: int
    masters: int
    gradients: int
    optimizer: int
    activations: int = 0
    workspace: int = 0
    host: int = 0

    @property
    def device(self) -> int:
        return self.weights + self.masters + self.gradients + self.optimizer + self.activations + self.workspace


def state_memory(parameters: ParameterCounts, variant: EngineVariant, sizes: DTypeSizes, world_size: int) -> Memory:
    """The memory of an engine that does not depend on the batch."""
    every, trained = parameters.total, parameters.trained
    if not variant.stage:
        # AdamW: two moments in fp32, and a step count per tensor.
        moments = 2 * FP32 * trained + FP32 * parameters.trained_tensors
        gradients = sizes.weights * trained
        if sizes.masters:
            # Moved to the master weights in fp32; DDP's buckets, of which they were views, stay.
            gradients = FP32 * trained + (gradients if world_size > 1 else 0)
        return Memory(sizes.weights * every, sizes.masters * FP32 * every, gradients, moments)
    shard = -(-trained // world_size)
    weights = sizes.weights * every
    if variant.stage == 3:
        on_device = 0 if variant.offload_parameters else -(-weights // world_size)
        weights = on_device + sizes.weights * min(every, _REUSED)
    # Gradients of the backward pass (sharded from stage 2 on), and the shard that the optimizer reads, in fp32.
    incoming = sizes.weights * (trained if variant.stage == 1 else shard)
    state = FP32 * shard
    host = -(-sizes.weights * every // world_size) if variant.offload_parameters else 0
    if variant.offload_optimizer:
        # Copies of the weights, both moments and gradients, in fp32.
        return Memory(weights, 0, incoming, 0, host=host + 4 * state)
    return Memory(weights, state, incoming + state, 2 * state, host=host)


@dataclass(frozen=True)
class MicroBatchShape:
    """A micro-batch on one rank.

    Attributes:
        device: type of the device, cpu or cuda.
        masked: places for masked tokens.
        squares: sum over its tweets of the square of their padded length.
        checkpoint: whether activations are recomputed in the backward pass.
        sharded_weights: whether weights are sharded (ZeRO 3).
    """

    device: str
    attention: str
    rows: int
    row_length: int
    masked: int
    squares: int
    checkpoint: bool = False
    sharded_weights: bool = False


def padded_square(length: int) -> int:
    """The summand of a tweet in `MicroBatchShape.squares`."""
    return (-(-length // WIDTH_STEP) * WIDTH_STEP) ** 2


def activations(config: Any, batch: MicroBatchShape, sizes: DTypeSizes) -> int:
    """Memory that the forward pass keeps for the backward pass, without the loss; `config` is the stock model's."""
    width, layers, positions = config.hidden_size, config.num_hidden_layers, batch.rows * batch.row_length
    a, s = sizes.stream, sizes.products
    # Indices of three tables; input, mean and deviation of the LayerNorm.
    embeddings = positions * (3 * 8 + width * a + 8)
    inputs = positions * 4 * width * s + _attention(config, batch, s)  # of a layer: its input, query, key, value
    after = _after_attention(config, a, s)
    copied, layer = _copied_weights(config, batch, sizes), inputs + positions * after
    last = layer + positions * width * a  # the LayerNorm after all layers
    if config.model_type in LIKE_BERT:
        # After its attention the last layer computes only masked positions; some backends keep its context.
        context = positions * width * s if batch.attention in ("sdpa", "varlen", "flex") else 0
        last = inputs + context + batch.masked * after
    head = batch.masked * width * 4 * s + (s * width * width if s < sizes.weights else 0)
    if batch.checkpoint:
        kept = positions * width * a * (layers - 1)
        return int(embeddings + kept + layer + last + head + 2 * copied // layers)
    return int(embeddings + (layers - 1) * layer + last + head + copied)


def _after_attention(config: Any, a: int, s: int) -> int:
    """Bytes per position of a layer: inputs of its products, of two LayerNorms and of the activation function."""
    width, inner = config.hidden_size, config.intermediate_size
    # A gated feed-forward layer (ModernBERT) has two such inputs, and their product.
    wide = 2 if config.model_type in LIKE_BERT else 4
    has_dropout = getattr(config, "mlp_dropout", 0.0) or getattr(config, "hidden_dropout_prob", 0.0)
    dropped = 2 * width * s if has_dropout else 0
    return int(width * (2 * a + 2 * s) + wide * inner * s + 2 * 8 + dropped)


def _attention(config: Any, batch: MicroBatchShape, s: int) -> int:
    """Bytes per layer from which the softmax of each head is recomputed, by backend."""
    heads, positions = config.num_attention_heads, batch.rows * batch.row_length
    if batch.attention == "bucketed":
        return int(heads * batch.squares * s)
    of_mask = batch.row_length * s if batch.attention == "sdpa" else 0
    return int(positions * (of_mask + FP32 * heads))


def _copied_weights(config: Any, batch: MicroBatchShape, sizes: DTypeSizes) -> int:
    """Bytes of copies of the layers' weights (rounded, or query, key and value concatenated) that products read."""
    width, inner = config.hidden_size, config.intermediate_size
    concatenated = 3 * width * width
    gated = 1 if config.model_type in LIKE_BERT else 2
    if sizes.products < sizes.weights:
        return int(config.num_hidden_layers * sizes.products * (concatenated + width * (width + (1 + gated) * inner)))
    is_copied = config.model_type in LIKE_BERT and not batch.sharded_weights
    return int(config.num_hidden_layers * sizes.weights * concatenated) if is_copied else 0


def loss_memory(config: Any, sizes: DTypeSizes) -> int:
    """Memory that the loss keeps: the decoder's gradient, computed in the forward pass (`model.loss`)."""
    return int(sizes.weights * config.vocab_size * (config.hidden_size + 1))


def workspace(
    config: Any, batch: MicroBatchShape, sizes: DTypeSizes, variant: EngineVariant, parameters: ParameterCounts
) -> int:
    """Peak of temporary tensors: logits of some rows, or gradients inside a layer; plus buckets."""
    width, vocabulary, s = config.hidden_size, config.vocab_size, sizes.products
    rows = min(batch.masked, ROWS_AT_ONCE[batch.device])
    # Logits and probabilities in fp32, rounded for the products; so are the table and the summands of its gradient.
    rounded = 0 if s == FP32 else s * (rows * vocabulary + 2 * vocabulary * width)
    logits = FP32 * rows * vocabulary + rounded
    inside = batch.rows * batch.row_length * s * (2 * config.intermediate_size + 4 * width)
    bucket = sizes.weights * min(BUCKET, parameters.total) if variant.stage else 0
    return int(max(logits, inside) + bucket)


def estimate_memory(
    config: Any, parameters: ParameterCounts, variant: EngineVariant, precision: str, batch: MicroBatchShape, ranks: int
) -> Memory | None:
    """The memory of one rank under an engine; None if the engine does not support the precision."""
    sizes = dtype_sizes(precision, variant)
    if sizes is None:
        return None
    batch = replace(batch, sharded_weights=variant.stage == 3)
    temporary = loss_memory(config, sizes) + workspace(config, batch, sizes, variant, parameters)
    state = state_memory(parameters, variant, sizes, ranks)
    return replace(state, activations=activations(config, batch, sizes), workspace=temporary)

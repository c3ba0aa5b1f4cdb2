"""Memory of a training step on one rank, part by part: formulae and where they come from. All results are in bytes.

What a rank holds by kind of engine: Rajbhandari et al. 2020 (ZeRO), section 5, with what DeepSpeed 0.19 keeps besides.
What the backward pass needs: counted operator by operator, after Korthikanti et al. 2022 (Reducing activation
recomputation), section 4, for our way through the layers (`model.encoder`). CUDA's context, NCCL's buffers and what an
allocator cannot use come on top; torch.compile keeps less than what is counted here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from bert_tweets.engine.deepspeed import BUCKET
from bert_tweets.model.attention.bucketed_cpu import WIDTH_STEP
from bert_tweets.model.encoder import LIKE_BERT
from bert_tweets.model.loss import ROWS_AT_ONCE

FP32 = 4
# Of weights under ZeRO 3: what will be used again within so many elements stays (stage3_max_reuse_distance).
_REUSED = 1_000_000_000


@dataclass(frozen=True)
class Parameters:
    """Parameters of a model, tied ones once.

    Attributes:
        embeddings, layers, head: elements of each part; the decoder is the embeddings' where it is tied to them.
        trained: elements that are trained.
        trained_tensors: in how many tensors these are.
    """

    embeddings: int
    layers: int
    head: int
    trained: int
    trained_tensors: int

    @property
    def total(self) -> int:
        return self.embeddings + self.layers + self.head


def count(model: Any) -> Parameters:
    """Counts a stock model, the meta device's too."""
    total, inside, embeddings = (_elements(part) for part in (model, model.base_model, model.base_model.embeddings))
    trained = [p for p in model.parameters() if p.requires_grad]
    return Parameters(embeddings, inside - embeddings, total - inside, sum(p.numel() for p in trained), len(trained))


def _elements(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def checkpoint_size(parameters: Parameters) -> int:
    """Of a checkpoint on disk: weights, the two moments of what is trained, the best weights where these are others."""
    return 2 * FP32 * (parameters.total + parameters.trained)


@dataclass(frozen=True)
class Way:
    """An engine, and what it parts among the ranks or keeps on the host.

    Attributes:
        stage: of ZeRO; None: DDP.
    """

    stage: int | None = None
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @property
    def name(self) -> str:
        if self.stage is None:
            return "ddp"
        offloaded = ["optimizer"] * self.offload_optimizer + ["parameters"] * self.offload_parameters
        return f"ZeRO {self.stage}" + (f", {' and '.join(offloaded)} on the host" if offloaded else "")


WAYS = (Way(), *(Way(stage) for stage in range(4)), *(Way(stage, True) for stage in (1, 2, 3)), Way(3, True, True))


@dataclass(frozen=True)
class Arithmetic:
    """Bytes of a number.

    Attributes:
        weights: of weights, and of the gradients that the backward pass leaves.
        stream: of what runs past the layers (residuals, inputs of LayerNorm).
        products: of factors and results of matrix products; fewer than `weights`: these are rounded for them.
        masters: the optimizer has copies of the weights in fp32.
    """

    weights: int
    stream: int
    products: int
    masters: bool


def arithmetic(precision: str, way: Way) -> Arithmetic | None:
    """Of `precision`, see `engine.precision` and `engine.deepspeed_settings`; None: DeepSpeed refuses it there."""
    if precision == "bf16_weights":
        return None if way.stage == 0 else Arithmetic(2, 2, 2, True)
    if way.stage and precision == "fp16":
        return Arithmetic(2, 2, 2, True)
    # ZeRO has an optimizer of flat copies of its own, in fp32 too.
    return Arithmetic(FP32, FP32, FP32 if precision in ("fp32", "tf32") else 2, bool(way.stage))


@dataclass(frozen=True)
class Memory:
    """Of one rank, on its device but for `host`.

    Attributes:
        gradients: at the end of a backward pass.
        workspace: the loss and what is held for a moment.
        host: in the host's memory, on top of a process's own.
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


def held(parameters: Parameters, way: Way, numbers: Arithmetic, world_size: int) -> Memory:
    """What an engine holds, whatever the batch."""
    every, trained = parameters.total, parameters.trained
    if way.stage is None or way.stage == 0:
        # AdamW: two moments in fp32, and a count of steps for each tensor.
        moments = 2 * FP32 * trained + FP32 * parameters.trained_tensors
        gradients = numbers.weights * trained
        if numbers.masters:
            # Moved to the masters in fp32; DDP's buckets, of which they were views, stay.
            gradients = FP32 * trained + (gradients if world_size > 1 else 0)
        return Memory(numbers.weights * every, numbers.masters * FP32 * every, gradients, moments)
    part = -(-trained // world_size)
    weights = numbers.weights * every
    if way.stage == 3:
        on_device = 0 if way.offload_parameters else -(-weights // world_size)
        weights = on_device + numbers.weights * min(every, _REUSED)
    # As they come (in parts from stage 2 on), and the part that the optimizer reads, in fp32.
    coming = numbers.weights * (trained if way.stage == 1 else part)
    state = FP32 * part
    host = -(-numbers.weights * every // world_size) if way.offload_parameters else 0
    if way.offload_optimizer:
        # Copies, both moments and gradients, in fp32.
        return Memory(weights, 0, coming, 0, host=host + 4 * state)
    return Memory(weights, state, coming + state, 2 * state, host=host)


@dataclass(frozen=True)
class MicroBatchShape:
    """A micro-batch on one rank.

    Attributes:
        device: its type, cpu or cuda.
        attention: name of the backend.
        rows, row_length: its positions.
        masked: places of masked tokens.
        squares: sum over its tweets of their padded length's square.
        checkpoint: activations are computed again on the way back.
        parted: weights lie in parts (ZeRO 3).
    """

    device: str
    attention: str
    rows: int
    row_length: int
    masked: int
    squares: int
    checkpoint: bool = False
    parted: bool = False


def padded_square(length: int) -> int:
    """What one tweet adds to `Batch.squares`."""
    return (-(-length // WIDTH_STEP) * WIDTH_STEP) ** 2


def activations(config: Any, batch: MicroBatchShape, numbers: Arithmetic) -> int:
    """What forward keeps for backward, the loss apart.

    Args:
        config: of the stock model: hidden_size, intermediate_size, ...
    """
    width, layers, positions = config.hidden_size, config.num_hidden_layers, batch.rows * batch.row_length
    a, s = numbers.stream, numbers.products
    # Indices of three tables, the LayerNorm's input, its mean and deviation.
    embeddings = positions * (3 * 8 + width * a + 8)
    inputs = positions * 4 * width * s + _attention(config, batch, s)  # of a layer: its input, query, key, value
    behind = _behind_attention(config, a, s)
    copied = _rounded_weights(config, batch, numbers)
    layer = inputs + positions * behind
    last = layer + positions * width * a  # the LayerNorm behind all layers
    if config.model_type in LIKE_BERT:
        # Behind its attention the last layer goes on at masked positions alone; its context is kept by some backends.
        context = positions * width * s if batch.attention in ("sdpa", "varlen", "flex") else 0
        last = inputs + context + batch.masked * behind
    head = batch.masked * width * 4 * s + (s * width * width if s < numbers.weights else 0)
    if batch.checkpoint:
        kept = positions * width * a * (layers - 1)
        return int(embeddings + kept + layer + last + head + 2 * copied // layers)
    return int(embeddings + (layers - 1) * layer + last + head + copied)


def _behind_attention(config: Any, a: int, s: int) -> int:
    """Of a position of one layer: inputs of its products, of two LayerNorms and of the activation function."""
    width, inner = config.hidden_size, config.intermediate_size
    # A gated feed-forward layer (ModernBERT) has two such inputs, and their product.
    wide = 2 if config.model_type in LIKE_BERT else 4
    dropped = 2 * width * s if _dropout(config) else 0
    return int(width * (2 * a + 2 * s) + wide * inner * s + 2 * 8 + dropped)


def _dropout(config: Any) -> float:
    return float(getattr(config, "mlp_dropout", 0.0) or getattr(config, "hidden_dropout_prob", 0.0))


def _attention(config: Any, batch: MicroBatchShape, s: int) -> int:
    """Of one layer: what the softmax of each head is found again from, see the backends."""
    heads, positions = config.num_attention_heads, batch.rows * batch.row_length
    if batch.attention == "bucketed":
        return int(heads * batch.squares * s)
    of_mask = batch.row_length * s if batch.attention == "sdpa" else 0
    return int(positions * (of_mask + FP32 * heads))


def _rounded_weights(config: Any, batch: MicroBatchShape, numbers: Arithmetic) -> int:
    """Weights of the layers as their products read them, where these are no weights of the model."""
    width, inner = config.hidden_size, config.intermediate_size
    side_by_side = 3 * width * width
    gated = 1 if config.model_type in LIKE_BERT else 2
    if numbers.products < numbers.weights:
        return int(config.num_hidden_layers * numbers.products * (side_by_side + width * (width + (1 + gated) * inner)))
    joined = config.model_type in LIKE_BERT and not batch.parted
    return int(config.num_hidden_layers * numbers.weights * side_by_side) if joined else 0


def loss(config: Any, numbers: Arithmetic) -> int:
    """What the loss keeps: the decoder's gradient, found on the way forward (`model.linear_cross_entropy`)."""
    return int(numbers.weights * config.vocab_size * (config.hidden_size + 1))


def workspace(config: Any, batch: MicroBatchShape, numbers: Arithmetic, way: Way, parameters: Parameters) -> int:
    """The most that is held for a moment on top: logits of some rows, or gradients inside a layer; and buckets."""
    width, vocabulary, s = config.hidden_size, config.vocab_size, numbers.products
    rows = min(batch.masked, ROWS_AT_ONCE[batch.device])
    # Logits and probabilities in fp32, rounded for the products; so are the table and what is added to its gradient.
    rounded = 0 if s == FP32 else s * (rows * vocabulary + 2 * vocabulary * width)
    logits = FP32 * rows * vocabulary + rounded
    inside = batch.rows * batch.row_length * s * (2 * config.intermediate_size + 4 * width)
    bucket = numbers.weights * min(BUCKET, parameters.total) if way.stage else 0
    return int(max(logits, inside) + bucket)


def estimate_memory(
    config: Any, parameters: Parameters, way: Way, precision: str, batch: MicroBatchShape, world_size: int
) -> Memory | None:
    """Of one rank under an engine; None where the precision cannot be had with it."""
    numbers = arithmetic(precision, way)
    if numbers is None:
        return None
    batch = replace(batch, parted=way.stage == 3)
    brief = loss(config, numbers) + workspace(config, batch, numbers, way, parameters)
    of_state = held(parameters, way, numbers, world_size)
    return replace(of_state, activations=activations(config, batch, numbers), workspace=brief)

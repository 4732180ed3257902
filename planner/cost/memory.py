"""What a pipeline stage keeps in the memory of each of its GPUs, and how many tokens of KV cache are left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.core.attention import state_bytes as recurrent_bytes
from planner.core.engine import BudgetRule, EngineTraits, MemoryRules
from planner.core.model import DenseMlp, LatentAttention, Layer, LinearAttention, Mixer, ModelSpec, MoeMlp, kinds
from planner.core.plan import EngineLimits, Parallelism
from planner.core.quantization import WeightFormat
from planner.cost.attention import KV_ELEMENT_BYTES, cache_bytes
from planner.cost.formula import formula
from planner.units import Bytes

_ACTIVATION_FACTORS = ((8, 5.0), (4, 5.0), (2, 6.0), (1, 10.0))
_ACTIVATION_FLOOR = 70 * 2.0**20
PLAIN_BYTES = 2
_HIDDEN_TENSORS = 3
"""Tensors of the hidden size that live at the peak of a forward pass: residual, a block's input and its output."""
NEARLY_EVEN = 1.25
"""Kinds of layers whose numbers differ by less are padded to the larger one."""


@formula(
    source="Megatron-style sharding: query and output heads split, KV heads split or replicated (vLLM 0.33 linear.py); latent "
    "attention: down-projections whole on every rank, and a 16-bit copy of what expands the latent (vLLM 0.33 mla)"
)
def attention_weights(layer: Layer, model: ModelSpec, tensor: int) -> Bytes:
    """Bytes of one layer's attention matrices on one of ``tensor`` ranks; biases and head norms are 16-bit."""
    mixer = layer.attention
    if mixer is None:
        return Bytes(0.0)
    held = mixer.weights(model.hidden_size, tensor)
    copies = mixer.expansion(tensor) if isinstance(mixer, LatentAttention) else 0
    stored = layer.format_of("attention", model.weight_format)
    return Bytes(held.matrices * stored.bytes_per_weight + (held.vectors + copies) * plain_bytes(stored))


@formula(source="Megatron-style sharding: the intermediate dimension split over the tensor ranks; biases 16-bit")
def dense_weights(mlp: DenseMlp, hidden_size: int, tensor: int, weights: WeightFormat) -> Bytes:
    """Bytes of a dense feed-forward block on one rank.

    >>> from planner.core.quantization import BF16
    >>> dense_weights(DenseMlp(28672), 8192, 4, BF16)
    352321536.0
    """
    return Bytes((mlp.weights(hidden_size) * weights.bytes_per_weight + mlp.vectors(hidden_size) * plain_bytes(weights)) / tensor)


@formula(source="Megatron-style sharding: feed-forward split by tensor rank, experts by tensor or expert rank, router replicated")
def mlp_weights(layer: Layer, model: ModelSpec, tensor: int, expert_shards: int, expert_ranks: int = 1) -> Bytes:
    """Bytes of one layer's feed-forward block on one rank.

    ``expert_shards`` ranks share the experts: ``expert_ranks`` ways by expert, the rest by slices of each, which engines pad to
    the multiple their kernels want.
    """
    mlp, hidden = layer.mlp, model.hidden_size
    if mlp is None:
        return Bytes(0.0)
    if isinstance(mlp, DenseMlp):
        return dense_weights(mlp, hidden, tensor, layer.format_of("mlp", model.weight_format))
    stored = layer.format_of("experts", model.weight_format)
    inner, outer = stored.expert_multiples
    size = padded_slice(mlp.intermediate_size, max(1, expert_shards // expert_ranks), inner)
    width = padded_slice(mlp.width(hidden), 1, outer)
    routed = mlp.experts * dense_weights(replace(mlp.expert, intermediate_size=size), width, expert_shards, stored)
    replicated = mlp.router_parameters(hidden) + mlp.latent_parameters(hidden)
    shared_format = layer.format_of("shared_experts", model.weight_format)
    shared = dense_weights(mlp.shared, hidden, tensor, shared_format) if mlp.shared else 0.0
    return Bytes(routed + replicated * plain_bytes(model.weight_format) + shared)


@formula(source="measured: gpt-oss-20b takes 13.64 and 7.01 GiB on one and two GPUs of vLLM 0.19, unpadded 12.81 and 6.41")
def padded_slice(size: int, slices: int, multiple: int) -> int:
    """What ``size`` comes to when each of its ``slices`` is padded to a ``multiple``.

    >>> padded_slice(2880, 1, 256), padded_slice(2880, 4, 128), padded_slice(2048, 8, 1)
    (3072, 3072, 2048)
    """
    return size if multiple == 1 else slices * math.ceil(size / slices / multiple) * multiple


def plain_bytes(weights: WeightFormat) -> float:
    """Bytes of a number that no weight format applies to: 16 bits, more only where the whole model is held in 32."""
    return max(PLAIN_BYTES, weights.bytes_per_weight)


@formula(source="vLLM 0.33 vocab_parallel_embedding.py: vocabulary padded to a multiple, split over the tensor ranks, 16 bit")
def vocabulary_table(vocabulary: int, hidden_size: int, tensor: int, multiple: int, element_bytes: float = PLAIN_BYTES) -> Bytes:
    """Bytes of an embedding table or language-model head on one rank.

    >>> vocabulary_table(128256, 8192, 4, 64)
    525336576.0
    """
    padded = math.ceil(vocabulary / multiple) * multiple
    return Bytes(padded * hidden_size / tensor * element_bytes)


@formula(source="measured: start-up logs of vLLM 0.19, Llama-3.1 14.9888 GiB against 14.9575 without the table", valid="vLLM")
def rope_table(positions: int, rotary_size: int, element_bytes: float = PLAIN_BYTES) -> Bytes:
    """Bytes of the cos/sin cache that every rank keeps.

    >>> rope_table(131072, 128)
    33554432
    """
    return Bytes(positions * rotary_size * element_bytes)


def stage_weights(
    model: ModelSpec, layers: Sequence[Layer], parallelism: Parallelism, *, first: bool, last: bool, multiple: int
) -> dict[str, Bytes]:
    """The weights on one GPU of a stage that holds ``layers``, by part."""
    tensor = parallelism.tensor
    shards = expert_shards(parallelism)
    counted = kinds(layers)
    vectors = sum(count * layer.vectors for layer, count in counted) + last * model.final_vectors
    plain = plain_bytes(model.weight_format)
    table = vocabulary_table(model.vocabulary_size, model.hidden_size, tensor, multiple, plain)
    embedding = first or (last and model.tied_embeddings)
    head = last and not (model.tied_embeddings and embedding)
    experts = parallelism.expert
    turning = any(not isinstance(layer.attention, LinearAttention | None) for layer, _ in counted)
    return {
        "attention": Bytes(sum(count * attention_weights(layer, model, tensor) for layer, count in counted)),
        "mlp": Bytes(sum(count * mlp_weights(layer, model, tensor, shards, experts) for layer, count in counted)),
        "norms": Bytes(plain * model.hidden_size * vectors),
        "embedding": Bytes(table * embedding + plain * model.learned_positions * model.hidden_size * first),
        "head": Bytes(table * head + plain * model.vocabulary_size / tensor * model.head_bias * last),
        "rope": Bytes(sum(rope_table(*one, plain) for one in model.rope_tables) if turning else 0.0),
        "encoder": Bytes(plain * model.encoder_parameters / tensor * first),
    }


@formula(source="NVIDIA aiconfigurator 0.12 sdk/memory.py: activations of one step, by tensor degree", valid="TensorRT-LLM")
def forward_activation(tokens: int, hidden_size: int, tensor: int) -> Bytes:
    """Peak bytes of a forward pass over ``tokens`` tokens by the hidden size alone.

    >>> forward_activation(8192, 8192, 4) / 2**30
    0.625
    """
    factor = next(value for least, value in _ACTIVATION_FACTORS if tensor >= least)
    return Bytes(max(_ACTIVATION_FLOOR, 2 * tokens * hidden_size * factor))


@formula(
    source="tensors that live at once in a gated block (gate and up, their product, residual, input, output), 16 bit; vLLM 0.6 "
    "without chunked prefill logged 2.07 and 2.99 GiB for Llama-3-8B at 20,000 and 29,000 tokens",
    valid="vLLM, SGLang",
)
def layer_activation(tokens: int, hidden_size: int, width: float) -> Bytes:
    """Peak bytes of a forward pass over ``tokens`` tokens; ``width`` is all that a token takes within the widest block of a rank.

    >>> round(layer_activation(20_000, 4096, 3 * 14336) / 2**30, 2), round(layer_activation(29_000, 4096, 3 * 14336) / 2**30, 2)
    (2.06, 2.99)
    """
    return Bytes(max(_ACTIVATION_FLOOR, PLAIN_BYTES * tokens * (_HIDDEN_TENSORS * hidden_size + width)))


@formula(
    source="vLLM 0.19 fused_moe: buffers for what experts take in and make, kept between steps; logged beside the sampler: "
    "0.26 GiB for Qwen1.5-MoE, 0.39 for DeepSeek-V2-Lite, 0.63 for Mixtral on two GPUs"
)
def expert_workspace(tokens: int, experts_per_token: int, width: int, slice_size: float, *, gated: bool = True) -> Bytes:
    """Bytes of the buffers of a layer of experts: gate and up or the output, whichever is wider, and the product, a visit.

    ``width`` goes into an expert, ``slice_size`` is what a rank holds of its intermediate size.

    >>> [round(expert_workspace(8192, *one) / 2**30, 2) for one in ((4, 2048, 1408), (6, 2048, 1408), (2, 4096, 7168))]
    [0.26, 0.39, 0.66]
    """
    widest = max((1 + gated) * slice_size, width)
    return Bytes(PLAIN_BYTES * tokens * experts_per_token * (widest + slice_size))


@formula(source="measured: sampler profiling run of vLLM 0.19 (0.144 GiB + 14.3 B a sequence and vocabulary entry)")
def sampler_activation(sequences: int, vocabulary: int, base: Bytes, bytes_per_logit: float) -> Bytes:
    """Peak bytes of sampling for ``sequences`` requests on full-vocabulary logits.

    >>> round(sampler_activation(1024, 128256, Bytes(0.144 * 2**30), 14.3) / 2**30, 2)
    1.89
    """
    return Bytes(base + bytes_per_logit * sequences * vocabulary)


@formula(
    source="measured: vLLM 0.19 logs, 51 graph sizes; 0.56 + 0.0105 GiB a layer on one GPU, about 0.1 + 0.019 on more; layers of "
    "experts (DeepSeek-V2-Lite, Kimi-VL, Qwen1.5-MoE, gpt-oss) take more of them"
)
def cuda_graphs(
    layers: int,
    tensor: int,
    coefficients: Mapping[int, tuple[Bytes, Bytes]],
    expert_layers: int = 0,
    expert_layer: Bytes = Bytes(0),  # noqa: B008 - a number
) -> Bytes:
    """Bytes of the captured graphs of a stage of ``layers``; ``coefficients`` are (base, per layer) by tensor degree.

    >>> round(cuda_graphs(27, 1, {1: (Bytes(0.56), Bytes(0.0105))}, 26, Bytes(0.024)), 2)
    1.47
    """
    degree = max(least for least in coefficients if tensor >= least)
    base, per_layer = coefficients[degree]
    return Bytes(base + per_layer * layers + expert_layer * expert_layers)


def expert_shards(degrees: Parallelism) -> int:
    """Ranks that share the experts: those of one replica, or of all where replicas share them."""
    return degrees.gpus_per_stage * (degrees.data if degrees.attention_data_parallel else 1)


def buffers(rules: MemoryRules, ranks: int, *, nvlink: bool) -> Bytes:
    """Context and communication buffers of one of ``ranks`` GPUs that share layers: what PyTorch does not know of."""
    if ranks == 1:
        return rules.buffers_single
    return rules.buffers_nvlink if nvlink else rules.buffers_pcie


@formula(
    source="vLLM 0.33 gpu_worker.py: a fraction of total memory; TensorRT-LLM: a fraction of what is free after loading; SGLang "
    "0.5.23 kv_cache_configurator.py: a fraction of what is free before loading for weights and cache, all else beside it"
)
def kv_budget(
    capacity: Bytes,
    fraction: float,
    weights: Bytes,
    activation: Bytes,
    overhead: Bytes,
    rule: BudgetRule,
    before_loading: Bytes = Bytes(0),  # noqa: B008 - a number
) -> Bytes:
    """Bytes left for the KV cache; negative where the rest does not fit. ``before_loading`` is what of the ``overhead`` an engine
    holds already when it looks how much is free.

    >>> kv_budget(Bytes(100), 0.9, Bytes(50), Bytes(5), Bytes(5), "fraction-of-total")
    30.0
    >>> kv_budget(Bytes(100), 0.9, Bytes(50), Bytes(5), Bytes(5), "fraction-of-free")
    36.0
    >>> kv_budget(Bytes(100), 0.8, Bytes(50), Bytes(5), Bytes(15), "fraction-for-weights-and-cache", Bytes(10))
    22.0
    """
    taken = weights + activation + overhead
    if rule == "fraction-of-total":
        return Bytes(fraction * capacity - taken)
    if rule == "fraction-for-weights-and-cache":
        return Bytes(min(fraction * (capacity - before_loading), capacity - activation - overhead) - weights)
    free = capacity - taken
    return Bytes(fraction * free if free > 0 else free)


@formula(source="vLLM 0.33 kv_cache_utils.py: layers of one kind of cache in groups of the smallest kind's number, padded")
def cached_layers(layers: Sequence[Layer], *, grouped: bool) -> list[tuple[Mixer, int]]:
    """Mixers with how many layers of each are cached; where ``grouped``, with those an engine adds to make its groups even.

    >>> from planner.core.model import Attention
    >>> far, near = Layer(Attention(32, 16, 128), None), Layer(Attention(32, 16, 128, window=1024), None)
    >>> [count for _, count in cached_layers((near,) * 52 + (far,) * 10, grouped=True)]
    [60, 10]
    """
    found = [(layer.attention, count) for layer, count in kinds(layers) if layer.attention is not None]
    windows: dict[int | None, int] = {}
    for mixer, count in found:
        windows[mixer.window] = windows.get(mixer.window, 0) + count
    alike = len({cache_bytes(mixer, 1, 1) for mixer, _ in found}) == 1
    if not grouped or len(windows) == 1 or not alike:
        return found
    fewest, most = min(windows.values()), max(windows.values())
    size = most if most < NEARLY_EVEN * fewest else fewest
    first = {mixer.window: mixer for mixer, _ in reversed(found)}
    return [(first[window], math.ceil(count / size) * size) for window, count in windows.items()]


@formula(source="cache of a stage: every layer's keys and values, or its latent; a token is written in every layer that caches")
def kv_bytes_of_token(
    layers: Sequence[Layer], tensor: int, element_bytes: float = KV_ELEMENT_BYTES, *, grouped: bool = False
) -> Bytes:
    """Bytes that one token takes on one GPU of a stage while every layer still sees it: what engines count the cache in.

    >>> from planner.core.model import LatentAttention
    >>> kv_bytes_of_token((Layer(LatentAttention(128, 1536, 512, 64, 128, 128), None),) * 61, 8)
    70272
    """
    cached = cached_layers(layers, grouped=grouped)
    return Bytes(sum(count * cache_bytes(mixer, tensor, element_bytes) for mixer, count in cached))


@formula(source="state of a stage: what recurrent layers keep of a sequence whatever its length")
def state_bytes(layers: Sequence[Layer], tensor: int) -> Bytes:
    """Bytes of the recurrent states and last convolution inputs of one request on one GPU of a stage.

    >>> state_bytes((Layer(LinearAttention(16, 128, 48, 128, 4, 2), None),), 1)
    3207168
    """
    return Bytes(sum(count * recurrent_bytes(layer.attention, tensor) for layer, count in kinds(layers)))


@formula(source="cache of a stage: every layer's keys and values; a sliding window keeps its window and one chunk")
def kv_bytes(
    layers: Sequence[Layer],
    tensor: int,
    tokens: float,
    chunk: int,
    element_bytes: float = KV_ELEMENT_BYTES,
    *,
    grouped: bool = False,
) -> Bytes:
    """Bytes of cache and recurrent state that one request of ``tokens`` tokens takes on one GPU of a stage."""
    total = float(state_bytes(layers, tensor))
    for mixer, count in cached_layers(layers, grouped=grouped):
        kept = tokens if mixer.window is None else min(tokens, mixer.window + chunk)
        total += count * kept * cache_bytes(mixer, tensor, element_bytes)
    return Bytes(total)


def request_bytes(
    layers: Sequence[Layer], model: ModelSpec, tokens: int, degrees: Parallelism, limits: EngineLimits, traits: EngineTraits
) -> Bytes:
    """Bytes of cache and state of one request of ``tokens`` tokens, in whole blocks, on one GPU of a stage of ``layers``."""
    blocks = rounded_tokens(-(-tokens // degrees.decode_context), traits.block_tokens)
    return kv_bytes(
        layers, degrees.tensor, blocks, limits.max_batched_tokens, model.kv_element_bytes, grouped=traits.cache_groups
    )


@formula(source="EPLB (DeepSeek 2025): every layer of experts holds so many of them twice, spread over the expert ranks")
def redundant_experts(layers: Sequence[Layer], hidden_size: int, weights: WeightFormat, experts: float) -> Bytes:
    """Bytes that ``experts`` more on every layer of experts take; a rank of R keeps what ``experts / R`` of them do.

    >>> from planner.core.quantization import FORMATS
    >>> round(redundant_experts((Layer(None, MoeMlp(256, 8, 2048)),) * 58, 7168, FORMATS["fp8"], 1) / 1e9, 3)
    2.554
    """
    total = 0.0
    for layer, count in kinds(layers):
        if isinstance(layer.mlp, MoeMlp):
            stored = layer.format_of("experts", weights)
            total += count * dense_weights(layer.mlp.expert, layer.mlp.width(hidden_size), 1, stored)
    return Bytes(experts * total)


@formula(source="paged attention (Kwon et al. 2023): a request takes whole blocks")
def rounded_tokens(tokens: int, block: int) -> int:
    """``tokens`` rounded up to whole blocks.

    >>> rounded_tokens(1281, 16)
    1296
    """
    return math.ceil(tokens / block) * block

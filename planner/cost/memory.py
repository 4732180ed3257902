"""What a pipeline stage keeps in the memory of each of its GPUs, and how many tokens of KV cache are left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from planner.core.engine import BudgetRule, MemoryRules, replicated_kv_heads
from planner.core.model import DenseMlp, Layer, ModelSpec, kinds
from planner.core.plan import EngineLimits, Parallelism
from planner.cost.attention import kv_bytes_per_token
from planner.cost.formula import formula
from planner.units import Bytes

_ACTIVATION_FACTORS = ((8, 5.0), (4, 5.0), (2, 6.0), (1, 10.0))
_ACTIVATION_FLOOR = 70 * 2.0**20
PLAIN_BYTES = 2


@formula(source="Megatron-style sharding: query and output heads split, KV heads split or replicated (vLLM 0.33 linear.py)")
def attention_weights(layer: Layer, model: ModelSpec, tensor: int) -> Bytes:
    """Bytes of one layer's attention matrices on one of ``tensor`` ranks; biases and head norms are 16-bit."""
    attention, hidden = layer.attention, model.hidden_size
    queries = attention.query_heads // tensor * attention.head_size
    keys = 2 * replicated_kv_heads(attention.kv_heads, tensor) * attention.head_size
    biases = (queries + keys) * attention.input_bias + hidden * attention.output_bias
    norms = 2 * attention.head_size * attention.head_norm
    matrices = hidden * (2 * queries + keys)
    return Bytes(matrices * model.weight_format.bytes_per_weight + (biases + norms) * PLAIN_BYTES)


@formula(source="Megatron-style sharding: feed-forward split by tensor rank, experts by tensor or expert rank, router replicated")
def mlp_weights(layer: Layer, model: ModelSpec, tensor: int, expert_shards: int) -> Bytes:
    """Bytes of one layer's feed-forward block on one rank; ``expert_shards`` ranks share the experts, however cut."""
    per_weight = model.weight_format.bytes_per_weight
    if isinstance(layer.mlp, DenseMlp):
        return Bytes(layer.mlp.parameters(model.hidden_size) / tensor * per_weight)
    experts = layer.mlp.experts * layer.mlp.expert_parameters(model.hidden_size)
    router = layer.mlp.router_parameters(model.hidden_size)
    return Bytes(experts / expert_shards * per_weight + router * PLAIN_BYTES)


@formula(source="vLLM 0.33 vocab_parallel_embedding.py: vocabulary padded to a multiple, split over the tensor ranks, 16 bit")
def vocabulary_table(vocabulary: int, hidden_size: int, tensor: int, multiple: int) -> Bytes:
    """Bytes of an embedding table or language-model head on one rank.

    >>> vocabulary_table(128256, 8192, 4, 64)
    525336576.0
    """
    padded = math.ceil(vocabulary / multiple) * multiple
    return Bytes(padded * hidden_size / tensor * PLAIN_BYTES)


@formula(source="measured: start-up logs of vLLM 0.19, Llama-3.1 14.9888 GiB against 14.9575 without the table", valid="vLLM")
def rope_table(positions: int, rotary_size: int) -> Bytes:
    """Bytes of the cos/sin cache that every rank keeps.

    >>> rope_table(131072, 128)
    33554432
    """
    return Bytes(positions * rotary_size * PLAIN_BYTES)


def stage_weights(
    model: ModelSpec, layers: Sequence[Layer], parallelism: Parallelism, *, first: bool, last: bool, multiple: int
) -> dict[str, Bytes]:
    """The weights on one GPU of a stage that holds ``layers``, by part."""
    tensor = parallelism.tensor
    shards = tensor * parallelism.data if parallelism.attention_data_parallel else tensor
    counted = kinds(layers)
    norms = PLAIN_BYTES * model.hidden_size * (2 * len(layers) + last)
    table = vocabulary_table(model.vocabulary_size, model.hidden_size, tensor, multiple)
    embedding = first or (last and model.tied_embeddings)
    head = last and not (model.tied_embeddings and embedding)
    return {
        "attention": Bytes(sum(count * attention_weights(layer, model, tensor) for layer, count in counted)),
        "mlp": Bytes(sum(count * mlp_weights(layer, model, tensor, shards) for layer, count in counted)),
        "norms": Bytes(norms),
        "embedding": Bytes(table * embedding),
        "head": Bytes(table * head),
        "rope": rope_table(model.rope_positions, layers[0].attention.head_size) if layers else Bytes(0.0),
    }


@formula(source="NVIDIA aiconfigurator 0.12 sdk/memory.py: activations of one step, by tensor degree")
def forward_activation(tokens: int, hidden_size: int, tensor: int) -> Bytes:
    """Peak bytes of a forward pass over ``tokens`` tokens.

    >>> forward_activation(8192, 8192, 4) / 2**30
    0.625
    """
    factor = next(value for least, value in _ACTIVATION_FACTORS if tensor >= least)
    return Bytes(max(_ACTIVATION_FLOOR, 2 * tokens * hidden_size * factor))


@formula(source="measured: sampler profiling run of vLLM 0.19 (0.144 GiB + 14.3 B a sequence and vocabulary entry)")
def sampler_activation(sequences: int, vocabulary: int, base: Bytes, bytes_per_logit: float) -> Bytes:
    """Peak bytes of sampling for ``sequences`` requests on full-vocabulary logits.

    >>> round(sampler_activation(1024, 128256, Bytes(0.144 * 2**30), 14.3) / 2**30, 2)
    1.89
    """
    return Bytes(base + bytes_per_logit * sequences * vocabulary)


@formula(source="measured: vLLM 0.19 logs, 51 graph sizes; 0.56 + 0.0105 GiB a layer on one GPU, about 0.1 + 0.019 on more")
def cuda_graphs(layers: int, tensor: int, coefficients: Mapping[int, tuple[Bytes, Bytes]]) -> Bytes:
    """Bytes of the captured graphs of a stage of ``layers``; ``coefficients`` are (base, per layer) by tensor degree."""
    degree = max(least for least in coefficients if tensor >= least)
    base, per_layer = coefficients[degree]
    return Bytes(base + per_layer * layers)


def stage_activation(model: ModelSpec, rules: MemoryRules, limits: EngineLimits, tensor: int, *, last: bool) -> Bytes:
    """Activation peak of a stage: a forward pass; on the last one the sampler, if that takes more."""
    peak = forward_activation(limits.max_batched_tokens, model.hidden_size, tensor)
    if last:
        sampler = sampler_activation(
            limits.max_sequences, model.vocabulary_size, rules.sampler_base, rules.sampler_bytes_per_logit
        )
        peak = Bytes(max(peak, sampler))
    return Bytes(peak + rules.moe_workspace * (model.experts > 0))


def stage_overhead(rules: MemoryRules, layers: int, tensor: int, *, nvlink: bool) -> Bytes:
    """Communication buffers, context and CUDA graphs of a stage, inside the engine's budget."""
    if tensor == 1:
        buffers = rules.buffers_single
    else:
        buffers = rules.buffers_nvlink if nvlink else rules.buffers_pcie
    return Bytes(buffers + cuda_graphs(layers, tensor, rules.cuda_graphs))


@formula(source="vLLM 0.33 gpu_worker.py: a fraction of total memory; TensorRT-LLM: a fraction of what is free after loading")
def kv_budget(capacity: Bytes, fraction: float, weights: Bytes, activation: Bytes, overhead: Bytes, rule: BudgetRule) -> Bytes:
    """Bytes left for the KV cache; negative where the rest does not fit.

    >>> kv_budget(Bytes(100), 0.9, Bytes(50), Bytes(5), Bytes(5), "fraction-of-total")
    30.0
    >>> kv_budget(Bytes(100), 0.9, Bytes(50), Bytes(5), Bytes(5), "fraction-of-free")
    36.0
    """
    taken = weights + activation + overhead
    if rule == "fraction-of-total":
        return Bytes(fraction * capacity - taken)
    free = capacity - taken
    return Bytes(fraction * free if free > 0 else free)


@formula(source="cache of a stage: every layer's keys and values; a sliding window keeps its window and one chunk")
def kv_bytes(layers: Sequence[Layer], tensor: int, tokens: float, chunk: int) -> Bytes:
    """Bytes of KV cache that one request of ``tokens`` tokens takes on one GPU of a stage."""
    total = 0.0
    for layer, count in kinds(layers):
        attention = layer.attention
        kept = tokens if attention.window is None else min(tokens, attention.window + chunk)
        heads = replicated_kv_heads(attention.kv_heads, tensor)
        total += count * kept * kv_bytes_per_token(heads, attention.head_size)
    return Bytes(total)


@formula(source="paged attention (Kwon et al. 2023): a request takes whole blocks")
def rounded_tokens(tokens: int, block: int) -> int:
    """``tokens`` rounded up to whole blocks.

    >>> rounded_tokens(1281, 16)
    1296
    """
    return math.ceil(tokens / block) * block

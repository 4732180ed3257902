"""Plans of many models on many machines, as commands with what an engine must make of each.

The plans are the planner's own; what is expected is read from the plan, never from the command.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from planner import api
from planner.core.engine import EngineTraits, LaunchProcess
from planner.core.model import ModelSpec
from planner.core.plan import Parallelism, Plan
from planner.core.quantization import CacheDtype
from planner.core.speculation import Speculation
from planner.core.topology import Topology
from planner.core.workload import Workload
from planner.documents.catalogue import find_model
from planner.engines import find_engine
from planner.search.disaggregation import Disaggregation
from planner.search.recommendation import Recommendation

ENGINES = ("vllm", "sglang")


@dataclass(frozen=True, slots=True)
class Question:
    """A model on a machine: the best plans where no ``degrees`` are asked for. ``checkpoint`` is a format to store it in."""

    model: str
    topology: str
    degrees: tuple[Parallelism, ...] = ()
    checkpoint: str = ""
    online: str | None = None
    input_tokens: int = 1024
    guess: Speculation | None = None
    cache: CacheDtype = "auto"


def _at(
    tensor: int, pipeline: int = 1, data: int = 1, expert: int = 1, context: int = 1, prompts: int = 1
) -> tuple[Parallelism, ...]:
    return (Parallelism(tensor, pipeline, data, expert, context, prompts),)


QUESTIONS = (
    # one host, the best plans
    Question("llama-3.1-8b", "1x-l4"),
    Question("llama-3.1-8b", "2x-l4"),
    Question("llama-3.1-8b", "dgx-h100"),
    Question("llama-3.1-8b", "8x-rtx-4090"),
    Question("qwen3-8b", "8x-t4"),
    Question("qwen2.5-7b", "aws-g5-12xlarge"),
    Question("mistral-7b", "2x-rtx-3090-bridged"),
    Question("llama-3.2-3b", "1x-a10g"),
    Question("llama-2-13b", "4x-v100-pcie"),
    Question("llama-3.1-70b", "dgx-h100"),
    Question("llama-3.1-70b", "8x-l40s"),
    Question("llama-3.1-70b", "4x-h100-sxm-mesh"),
    Question("llama-3.3-70b", "dgx-b200"),
    Question("qwen2.5-72b", "8x-a6000"),
    Question("qwen3-32b", "4x-rtx-pro-6000"),
    Question("llama-3.1-70b", "1x-gh200", online="fp8"),
    # stored or loaded in fewer bits
    Question("llama-3.1-70b", "4x-rtx-3090-bridged", checkpoint="awq"),
    Question("llama-3.1-70b", "8x-rtx-4090", checkpoint="awq"),
    Question("mistral-large-123b", "dgx-a100", checkpoint="awq"),
    Question("qwen2.5-72b", "4x-a6000-pairs", checkpoint="gptq"),
    Question("qwen3-32b-fp8", "4x-rtx-6000-ada"),
    Question("qwen3-235b-a22b-fp8", "dgx-h200"),
    Question("llama-3.1-70b", "8x-l40s", online="fp8"),
    Question("llama-3.1-405b", "dgx-h200", online="fp8"),
    # a cache in 8 bits
    Question("llama-3.1-70b", "8x-l40s", _at(4, 2), online="fp8", cache="fp8"),
    Question("qwen2.5-72b", "8x-a6000", cache="fp8"),
    Question("deepseek-v3", "dgx-h200", _at(8), cache="fp8"),
    # experts
    Question("qwen3-30b-a3b", "4x-h100-sxm-mesh", _at(4, expert=4)),
    Question("qwen3-30b-a3b", "dgx-a100", (*_at(2, data=2, expert=4), *_at(4, data=2, expert=4), *_at(4, 2, 1, 4))),
    Question("qwen3-235b-a22b-fp8", "dgx-h200", (*_at(8, expert=8), *_at(4, data=2, expert=8))),
    Question("qwen3-235b-a22b-fp8", "2x-dgx-h100", (*_at(4, data=4, expert=16), *_at(8, 2, 1, 8), *_at(8, data=2, expert=8))),
    Question("mixtral-8x22b", "dgx-a100", (*_at(8, expert=8), *_at(8))),
    Question("mixtral-8x7b", "8x-a6000"),
    Question("qwen3-coder-480b-a35b", "dgx-b200", _at(8, expert=8)),
    # pipelines, even and not
    Question("llama-3.1-70b", "8x-l40s", (*_at(2, 3), *_at(1, 8), *_at(2, 4), *_at(4, 2))),
    Question("qwen3-32b", "8x-a6000", (*_at(2, 3), *_at(1, 6))),
    Question("qwen2.5-7b", "8x-t4", (*_at(1, 3), *_at(2, 2, 2))),
    Question("qwen3-235b-a22b", "dgx-h200", _at(2, 4)),
    # ranks that share out the cache of a request
    Question("deepseek-v3", "dgx-h200", (*_at(8, context=8), *_at(8, expert=8, context=2), *_at(4, data=2, expert=8, context=4))),
    Question("deepseek-r1", "2x-dgx-h100", (*_at(8, 2, context=4), *_at(16, expert=16, context=16))),
    Question("kimi-k2", "2x8xH200-SXM5-141GB@8x400", _at(8, 2, 1, 8, 8)),
    Question("qwen3-235b-a22b-fp8", "dgx-h200", _at(8, expert=8, context=2)),
    # tensor groups that split prompts
    Question("deepseek-v3", "dgx-h200", (*_at(4, prompts=2), *_at(1, expert=8, prompts=8), *_at(2, data=2, expert=4, prompts=2))),
    Question("deepseek-r1", "2x-dgx-h100", (*_at(8, prompts=2), *_at(4, expert=16, prompts=4))),
    # tokens that are guessed
    Question("llama-3.1-70b", "dgx-h100", (*_at(8), *_at(4, 2), *_at(4, data=2)), guess=Speculation("ngram", 5, 0.5)),
    Question("deepseek-v3", "dgx-h200", (*_at(8), *_at(8, expert=8)), guess=Speculation("mtp", 1, 0.8)),
    # other families
    Question("deepseek-v3", "dgx-h200", (*_at(8), *_at(8, expert=8), *_at(1, data=8, expert=8), *_at(4, data=2, expert=8))),
    Question("deepseek-r1", "2x-dgx-h100", (*_at(8, 2), *_at(8, 2, 1, 8), *_at(8, data=2, expert=16), *_at(16, expert=16))),
    Question("deepseek-v3.1-nvfp4", "dgx-b200"),
    Question("kimi-k2", "2x8xH200-SXM5-141GB@8x400", (*_at(8, 2, 1, 8), *_at(8, data=2, expert=16))),
    Question("gpt-oss-120b", "dgx-h100", (*_at(1, data=8), *_at(2), *_at(4, expert=4))),
    Question("gpt-oss-20b", "1x-rtx-4090"),
    Question("glm-4.5-air", "dgx-h100", (*_at(4, data=2, expert=8), *_at(8, expert=8), *_at(4, 2))),
    Question("minimax-m2.5", "dgx-h200", _at(4, expert=4)),
    Question("llama-4-scout", "dgx-h100"),
    Question("gemma-3-27b", "4x-a6000-pairs", (*_at(2, 2), *_at(4))),
    Question("gemma-2-9b", "2x-l4"),
    Question("phi-4", "2x-rtx-4090"),
    Question("falcon-40b", "4x-a100-pcie-bridged"),
    Question("command-r-35b", "4x-a6000-pairs"),
    Question("qwen2.5-vl-7b", "2x-l4"),
    Question("qwen3-vl-30b-a3b", "4x-h100-sxm-mesh", _at(4, expert=4)),
    Question("qwen3-32b-awq", "2x-rtx-3090-bridged"),
    Question("llama-3.1-70b-fp8", "4x-h100-sxm-mesh"),
    Question("qwen2-72b-gptq", "4x-rtx-6000-ada"),
    # several hosts
    Question("llama-3.1-405b", "2x-dgx-h100", (*_at(8, 2), *_at(16))),
    Question("llama-3.1-405b", "2x8xA100-SXM4-80GB@8x200"),
    Question("llama-3.1-405b", "3x8xA100-SXM4-80GB@8x200", _at(8, 3)),
    Question("llama-3.1-70b", "2x4xL40S@2x100", (*_at(4, 2), *_at(2, 4), *_at(2, 3))),
    Question("qwen3-235b-a22b", "2x8xH100-SXM5-80GB@8x400", (*_at(8, 2), *_at(8, data=2, expert=16))),
    Question("qwen3-30b-a3b", "2x4xL40S@2x100", (*_at(2, data=4, expert=8), *_at(4, data=2, expert=8))),
    Question("llama-3.1-8b", "2x4xL40S@2x100", _at(1, data=8)),
    # a replica over hosts that has different numbers of GPUs on them, and replicas over hosts that share their experts
    Question("llama-3.1-70b", "2x8xA100-SXM4-80GB@8x200", (*_at(4, 3), *_at(2, 6))),
    Question("qwen3-30b-a3b", "4x4xL40S@2x100", _at(8, data=2, expert=16)),
    Question("llama-3.1-70b", "gb200-tray"),
)

PAIRS = (
    # two pools of one machine: hosts apart, hosts divided, heads regrouped, latents, windows, experts
    Question("llama-3.1-8b", "dgx-h100"),
    Question("llama-3.1-70b", "2x-dgx-h100", input_tokens=4096),
    Question("llama-3.1-70b", "8x-a6000", checkpoint="awq"),
    Question("qwen3-235b-a22b-fp8", "2x-dgx-h100"),
    Question("deepseek-v3", "2x8xH200-SXM5-141GB@8x400"),
    Question("gemma-3-27b", "dgx-h100"),
    Question("llama-3.1-405b", "4x8xH100-SXM5-80GB@8x400"),
)

STORED: dict[str, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
}
"""What checkpoints say of their quantisation; the planner's catalogue holds only what the planner reads."""
METHODS = {
    "awq": ["awq", "awq_marlin", "auto_awq"],
    "gptq": ["gptq", "gptq_marlin", "auto_gptq"],
    "fp8": ["fp8", "modelopt", "modelopt_fp8", "compressed-tensors"],
    "fp8-block": ["fp8"],
    "nvfp4": ["modelopt_fp4"],
    "mxfp4": ["mxfp4", "gpt_oss_mxfp4"],
    "int8": ["compressed-tensors"],
}
"""What engines call a weight format once they have chosen kernels."""


@dataclass(frozen=True, slots=True)
class Case:
    """One command with the machine it is for, and what the engine must make of it; a list is a choice."""

    name: str
    engine: str
    process: LaunchProcess
    gpu: dict[str, Any]
    layers: int
    plan: Plan
    topology: Topology
    expected: dict[str, Any]
    kinds: frozenset[str] = field(default=frozenset())


def cases(folder: Path, engine: str) -> Iterator[Case]:
    """All commands for one engine; configs of the models are written below ``folder``."""
    traits = find_engine(engine).traits
    seen = set()
    for question in QUESTIONS:
        model = api.load_model(str(_stored(folder, question)), quant=question.online, cache=question.cache)
        topology = api.load_topology(question.topology)
        for answer in _answers(question, model, topology, engine):
            for plan in answer.plans:
                what = question.checkpoint or question.online or "as it is"
                guessed = f", {question.guess.method}" if question.guess is not None else ""
                guessed += "" if question.cache == "auto" else f", cache {question.cache}"
                name = f"{question.model} ({what}) on {question.topology}: {plan.ranked.plan.parallelism}{guessed}"
                if name not in seen:
                    yield from _commands(name, plan.ranked.plan, plan.launch.processes, answer, traits, _dtype(question))
                seen.add(name)
    for question in PAIRS:
        model = api.load_model(str(_stored(folder, question)), quant=question.online, cache=question.cache)
        workload = Workload(input_tokens=question.input_tokens, load="full")
        found = api.disaggregate(model, api.load_topology(question.topology), workload, engine=engine, top=2)
        for pair in found.pairs:
            for pool, launch in ((pair.pair.prefill, pair.launch.prefill), (pair.pair.decode, pair.launch.decode)):
                name = f"{question.model} on {question.topology}, {pool.role} pool of #{pair.rank}: {pool.plan.parallelism}"
                for case in _commands(name, pool.plan, launch.processes, found, traits, _dtype(question)):
                    yield replace(case, kinds=case.kinds | {"pools"})


def _dtype(question: Question) -> str:
    """The 16-bit type that the checkpoint asks for."""
    config = find_model(question.model).config
    text = config.get("text_config", {})
    said = (one.get(key) for one in (config, text) for key in ("dtype", "torch_dtype"))
    return next((one for one in said if one), "bfloat16")


def _answers(question: Question, model: ModelSpec, topology: Topology, engine: str) -> Iterator[Recommendation]:
    workload = Workload(input_tokens=question.input_tokens, speculation=question.guess)
    if not question.degrees:
        yield api.recommend(model, topology, workload, engine=engine, top=2)
    for degrees in question.degrees:
        yield api.estimate(model, topology, workload, degrees, engine=engine)


def _stored(folder: Path, question: Question) -> Path:
    """A folder with the model's config, as a checkpoint in that format has it."""
    config = dict(find_model(question.model).config)
    stored = STORED.get(question.checkpoint) or config.get("quantization_config")
    if stored:
        config["quantization_config"] = STORED.get(stored.get("quant_method", ""), {}) | stored
    path = folder / f"{question.model}-{question.checkpoint or 'plain'}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


def _commands(
    name: str,
    plan: Plan,
    processes: tuple[LaunchProcess, ...],
    answer: Recommendation | Disaggregation,
    traits: EngineTraits,
    dtype: str,
) -> Iterator[Case]:
    degrees = plan.parallelism
    model = answer.model
    for number, process in enumerate(processes):
        engine = [one for one in processes if one.replica == process.replica or degrees.attention_data_parallel]
        rank = engine.index(process)
        devices = len(process.environment["CUDA_VISIBLE_DEVICES"].split(","))
        expected: dict[str, Any] = {
            "pipeline": degrees.pipeline,
            "partition": list(plan.layer_partition),
            "gpus": devices,
            "context": plan.limits.max_model_tokens,
            "sequences": plan.limits.max_sequences,
            "batched_tokens": plan.limits.max_batched_tokens,
            "memory_fraction": plan.limits.memory_fraction,
            "quantisation": METHODS.get(model.weight_format.name),
            "cache_dtype": "auto" if model.kv_element_bytes == 2 else ["fp8", "fp8_e4m3"],
            "batches_in_flight": traits.batches_in_flight(degrees.pipeline),
        }
        guess = plan.speculation
        if guess is not None:
            expected["guesses"] = guess.draft_tokens if traits.name == "vllm" else guess.verified
        dtype = "float16" if model.dtype_override else dtype
        expected |= (
            _of_vllm(plan, engine, rank) | {"dtype": dtype} if traits.name == "vllm" else _of_sglang(plan, model, engine, rank)
        )
        first = answer.topology.gpus[plan.placement[0][0][0]]
        spec = api.load_gpu(first.hardware or "")
        gpu = {
            "name": spec.name,
            "capability": list(spec.compute_capability or (0, 0)),
            "memory": int(first.memory or spec.memory),
            "count": devices,
        }
        kinds = set()
        if degrees.expert > 1:
            kinds.add("experts")
        if degrees.decode_context > 1:
            kinds.add("shared cache")
        if degrees.prefill_context > 1:
            kinds.add("split prompts")
        if guess is not None:
            kinds.add("guessed tokens")
        if len({one.node for one in engine}) > 1 and degrees.pipeline > 1:
            kinds.add("pipeline over hosts")
        if len(set(plan.layer_partition)) > 1:
            kinds.add("uneven")
        kinds.add(model.weight_format.name)
        yield Case(
            f"{name} [{number}]", traits.name, process, gpu, len(model.layers), plan, answer.topology, expected, frozenset(kinds)
        )


def _of_vllm(plan: Plan, engine: list[LaunchProcess], rank: int) -> dict[str, Any]:
    degrees = plan.parallelism
    shared = degrees.attention_data_parallel
    counts = [len(one.environment["CUDA_VISIBLE_DEVICES"].split(",")) for one in engine]
    by_replica = shared and len(engine) > 1 and all(count % degrees.gpus_per_replica == 0 for count in counts)
    return {
        "tensor": degrees.tensor,
        "data": degrees.data if shared else 1,
        "expert": degrees.expert > 1,
        "decode_context": degrees.decode_context,
        "prefill_context": degrees.prefill_context,
        "processes": 1 if by_replica else len(engine),
        "rank": 0 if by_replica else rank,
        "first_replica": sum(counts[:rank]) // degrees.gpus_per_replica if shared else 0,
        "headless": rank > 0,
        "all_to_all": "allgather_reducescatter",
    }


def _of_sglang(plan: Plan, model: ModelSpec, engine: list[LaunchProcess], rank: int) -> dict[str, Any]:
    degrees = plan.parallelism
    shared = degrees.attention_data_parallel
    world = sum(len(one.environment["CUDA_VISIBLE_DEVICES"].split(",")) for one in engine)
    return {
        "tensor": degrees.tensor * (degrees.data if shared else 1),
        "attention_data": degrees.data if shared else 1,
        "data": 1 if shared else world // degrees.gpus_per_replica,
        "expert": degrees.expert,
        "decode_context": degrees.decode_context,
        "processes": len(engine),
        "rank": rank,
        "dtype": ["half", "float16"] if model.dtype_override else ["auto", "bfloat16"],
        "page": 1,
    }

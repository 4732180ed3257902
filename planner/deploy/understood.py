"""What the arguments of a server mean: the model, degrees and limits, whichever way the options are spelled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from planner.core.quantization import CacheDtype
from planner.deploy.found import DEVICES, TGI, Found
from planner.deploy.guessing import Guesses, guesses_of
from planner.documents import strict_yaml
from planner.errors import BadInput

_VLLM = {
    "--model": "model",
    "--tensor-parallel-size": "tensor",
    "-tp": "tensor",
    "--pipeline-parallel-size": "pipeline",
    "-pp": "pipeline",
    "--data-parallel-size": "data",
    "-dp": "data",
    "--decode-context-parallel-size": "decode context",
    "-dcp": "decode context",
    "--prefill-context-parallel-size": "prefill context",
    "-pcp": "prefill context",
    "--enable-expert-parallel": "experts spread",
    "-ep": "experts spread",
    "--max-model-len": "context",
    "--max-num-seqs": "sequences",
    "--max-num-batched-tokens": "batched",
    "--gpu-memory-utilization": "memory",
    "--quantization": "quantisation",
    "-q": "quantisation",
    "--kv-cache-dtype": "cache",
    "--speculative-config": "guesses",
    "-sc": "guesses",
    "--dtype": "dtype",
    "--nnodes": "nodes",
    "-n": "nodes",
    "--node-rank": "node",
    "-r": "node",
    "--master-addr": "leader",
    "--master-port": "leader port",
    "--data-parallel-size-local": "local",
    "-dpl": "local",
    "--data-parallel-start-rank": "start",
    "-dpr": "start",
}
_SGLANG = {
    "--model-path": "model",
    "--model": "model",
    "--tp-size": "tensor",
    "--tp": "tensor",
    "--tensor-parallel-size": "tensor",
    "--pp-size": "pipeline",
    "--pp": "pipeline",
    "--pipeline-parallel-size": "pipeline",
    "--dp-size": "data",
    "--dp": "data",
    "--data-parallel-size": "data",
    "--attn-dp-size": "attention data",
    "--enable-dp-attention": "attention flag",
    "--ep-size": "expert",
    "--ep": "expert",
    "--expert-parallel-size": "expert",
    "--dcp-size": "decode context",
    "--decode-context-parallel-size": "decode context",
    "--attn-cp-size": "attention context",
    "--attention-context-parallel-size": "attention context",
    "--moe-dp-size": "expert replicas",
    "--moe-data-parallel-size": "expert replicas",
    "--context-length": "context",
    "--max-running-requests": "sequences",
    "--chunked-prefill-size": "batched",
    "--mem-fraction-static": "memory",
    "--quantization": "quantisation",
    "--kv-cache-dtype": "cache",
    "--speculative-algorithm": "guess method",
    "--speculative-num-steps": "guesses",
    "--speculative-num-draft-tokens": "guesses verified",
    "--speculative-draft-model-path": "guess checkpoint",
    "--dtype": "dtype",
    "--nnodes": "nodes",
    "--node-rank": "node",
    "--dist-init-addr": "leader",
}
_TENSORRT = {
    "--tp-size": "tensor",
    "--tensor-parallel-size": "tensor",
    "--pp-size": "pipeline",
    "--pipeline-parallel-size": "pipeline",
    "--ep-size": "expert",
    "--moe-expert-parallel-size": "expert",
    "--cp-size": "attention context",
    "--context-parallel-size": "attention context",
    "--max-batch-size": "sequences",
    "--max-num-tokens": "batched",
    "--max-seq-len": "context",
    "--free-gpu-memory-fraction": "memory",
    "--kv-cache-free-gpu-memory-fraction": "memory",
    "--kv-cache-dtype": "cache",
    "--extra-llm-api-options": "options",
    "--config": "options",
}
_TGI = {
    "--model-id": "model",
    "--num-shard": "tensor",
    "--sharded": "sharded",
    "--max-total-tokens": "context",
    "--max-concurrent-requests": "sequences",
    "--max-batch-prefill-tokens": "batched",
    "--cuda-memory-fraction": "memory",
    "--quantize": "quantisation",
    "--kv-cache-dtype": "cache",
    "--speculate": "guesses",
}
_KEYS = {
    "tensor_parallel_size": "tensor",
    "pipeline_parallel_size": "pipeline",
    "moe_expert_parallel_size": "expert",
    "context_parallel_size": "attention context",
    "max_batch_size": "sequences",
    "max_num_tokens": "batched",
    "max_seq_len": "context",
    "enable_attention_dp": "attention flag",
}
_TABLES = {"vllm": _VLLM, "sglang": _SGLANG, "tensorrt-llm": _TENSORRT, "tgi": _TGI}
_NOT_PLANNED = {
    "attention context": "context parallelism",
    "expert replicas": "data parallelism of the experts alone",
}
"""Degrees that change how many GPUs a launch takes or what each holds, and of which no plan can say so."""
_SWITCHES = frozenset({"experts spread", "attention flag"})
_PARTITIONS = {"vllm": "VLLM_PP_LAYER_PARTITION", "sglang": "SGLANG_PP_LAYER_PARTITION"}
GONE = {
    "vllm": {"--swap-space": "vLLM refuses it since 0.18: remove it"},
    "sglang": {
        "--enable-dp-attention": "deprecated, to be removed after 2026: write --attn-dp-size N instead of --dp-size N with it"
    },
    "tensorrt-llm": {"--backend tensorrt": "the engine-building backend is gone: remove it, or write --backend pytorch"},
    "tgi": {
        "--max-input-length": "the old name: write --max-input-tokens",
        "--max-batch-total-tokens": "TGI passes over it with flash attention, and sizes the cache by itself: remove it",
    },
}
"""Options that are gone or going, by engine (vLLM 0.33, SGLang 0.5.23, TensorRT-LLM main of November 2026, TGI 3.3)."""
_ROOM = ("TGI_WIGGLE_ROOM", "0.9")
"""The variable by which TGI uses only a part of its memory fraction (1 where nobody says), and its default."""
_NUMBER = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([kKmMgG]?)")
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True, slots=True)
class Understood:
    """What one process asks of its engine; what it does not say is ``None``. ``devices`` are the host's numbers, in rank order;
    ``meeting`` is where the processes of an engine find each other, ``host`` the number of the node it is on;
    ``source`` is the file it was found in.

    ``data`` counts replicas within the engine, which share experts where ``attention_data``. ``tensor`` is of one of them.
    """

    engine: str
    model: str
    tensor: int
    pipeline: int
    data: int
    attention_data: bool
    expert: int
    decode_context: int
    prefill_context: int
    nodes: int
    node: int
    devices: tuple[int, ...] | None
    local: int | None
    context: int | None
    sequences: int | None
    batched: int | None
    memory: float | None
    quantisation: str | None
    cache: CacheDtype
    guesses: Guesses | None
    partition: tuple[int, ...] | None
    gone: tuple[str, ...]
    meeting: str = ""
    host: int | None = None
    source: str = ""


def understand(found: Found, source: str) -> Understood:
    """What a process means. Raises ``BadInput`` for values that no engine takes."""
    engine = _engine(found.argv)
    said = _said(engine, found.argv, source)
    if engine == "tensorrt-llm":
        said |= _options_file(found, said.get("options"), source)

    def count(name: str) -> int | None:
        return None if name not in said else _number(said[name], f"{source}: {name}")

    for name, what in _NOT_PLANNED.items():
        if (count(name) or 1) > 1:
            raise BadInput(
                f"asks for {what} over {said[name]} ranks, which is not planned", path=source, hint="import one without"
            )
    devices = _devices(found.environment.get(DEVICES), source)
    # TGI splits a model over all GPUs it sees, unless it is told
    unsaid = len(devices) if engine == "tgi" and devices and said.get("sharded") != "false" else 1
    tensor, data = count("tensor") or unsaid, count("data") or 1
    together = count("attention data") or (data if engine == "sglang" and "attention flag" in said else 1)
    if engine == "tensorrt-llm" and said.get("attention flag") == "true":
        together = tensor
    if engine == "vllm" and "experts spread" in said and data > 1:
        together = data
    if together > 1 and engine != "vllm":
        if tensor % together:
            raise BadInput(f"{tensor} tensor ranks are not divisible by {together} attention replicas", path=source)
        tensor, data = tensor // together, together
    groups = count("prefill context") or 1
    expert = count("expert") or (tensor * groups * together if "experts spread" in said else 1)
    divided = together if engine == "sglang" else 1
    node = found.worker if found.worker is not None else count("node") or 0
    sequences, batched = count("sequences"), count("batched")
    memory = _share(said["memory"], f"{source}: memory") if "memory" in said else None
    if engine == "tgi":
        share = found.environment.get(_ROOM[0], _ROOM[1])
        memory = round((memory or 1.0) * _share(share, f"{source}: {_ROOM[0]}"), 6)
    return Understood(
        engine=engine,
        model=said.get("model", ""),
        tensor=tensor,
        pipeline=count("pipeline") or 1,
        data=data,
        attention_data=together > 1,
        expert=expert,
        decode_context=count("decode context") or 1,
        prefill_context=groups,
        nodes=count("nodes") or 1,
        node=node if "start" not in said else max(node, 1),
        devices=devices,
        local=count("local"),
        context=count("context"),
        sequences=None if sequences is None else max(1, sequences // divided),
        batched=None if batched is None else max(1, batched // divided),
        memory=memory,
        quantisation=said.get("quantisation"),
        cache="fp8" if said.get("cache", "").startswith("fp8") else "auto",
        guesses=guesses_of(engine, said, source),
        partition=_partition(engine, found, said, source),
        gone=(
            *(f"{option}: {why}" for option, why in GONE[engine].items() if option in _spelled(found.argv)),
            *_other_cache(said),
        ),
        meeting=" ".join(said[name] for name in ("leader", "leader port") if name in said),
        host=found.host,
        source=source.rpartition("/")[2],
    )


def _other_cache(said: Mapping[str, str]) -> tuple[str, ...]:
    """What to know of a cache in anything but the checkpoint's own format and 8 bits."""
    kept = said.get("cache", "auto")
    if kept == "auto" or kept.startswith("fp8"):
        return ()
    return (f"a KV cache in {kept[:40]} is not planned: priced as the checkpoint asks",)


def _engine(argv: tuple[str, ...]) -> str:
    if argv[0].rpartition("/")[2] in TGI:
        return "tgi"
    words = " ".join(argv[:3])
    return "tensorrt-llm" if "trtllm-serve" in words else "sglang" if "sglang" in words else "vllm"


def _spelled(argv: tuple[str, ...]) -> set[str]:
    """Options as they are written, and each with its value."""
    pairs = zip(argv, (*argv[1:], ""), strict=True)
    return {spelled for option, value in pairs for spelled in (option.partition("=")[0], f"{option} {value}")}


def _said(engine: str, argv: tuple[str, ...], source: str) -> dict[str, str]:
    """Values by what they decide; the positional argument is the model."""
    table = _TABLES[engine]
    start = 3 if argv[1:2] == ("-m",) else 2 if argv[1:2] == ("serve",) else 1
    said: dict[str, str] = {}
    words = list(argv[start:])
    if words and not words[0].startswith("-"):
        said["model"] = words.pop(0)
    place = 0
    while place < len(words):
        option, equals, value = words[place].partition("=")
        name = table.get(option.replace("_", "-") if option.startswith("--") else option)
        place += 1
        if name is None:
            continue
        if name in _SWITCHES:
            said[name] = "true"
        elif equals:
            said[name] = value
        elif place < len(words):
            said[name] = words[place]
            place += 1
        else:
            raise BadInput("has no value", path=f"{source}: {option}")
    return said


def _options_file(found: Found, name: str | None, source: str) -> dict[str, str]:
    """What the options file of TensorRT-LLM says: it goes over the command line."""
    text = found.files.get((name or "").rpartition("/")[2])
    if text is None:
        return {}
    data = strict_yaml.load(text, f"{source}: {name}")
    if not isinstance(data, dict):
        return {}
    said = {what: str(data[key]).lower() for key, what in _KEYS.items() if key in data}
    cache = data.get("kv_cache_config")
    if isinstance(cache, dict) and "free_gpu_memory_fraction" in cache:
        said["memory"] = str(cache["free_gpu_memory_fraction"])
    if isinstance(cache, dict) and "dtype" in cache:
        said["cache"] = str(cache["dtype"])
    if isinstance(data.get("speculative_config"), dict):
        said["guesses"] = json.dumps(data["speculative_config"], default=str)
    if isinstance(data.get("pp_partition"), list):
        said["partition"] = ",".join(map(str, data["pp_partition"]))
    return said


def _number(text: str, place: str) -> int:
    """A count as vLLM reads it: 32k is 32000, 32K is 32768."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadInput(f"{text!r} is not a number", path=place)
    return int(float(match[1]) * _FACTORS[match[2]])


def _share(text: str, place: str) -> float:
    match = re.fullmatch(r"[0-9]?\.?[0-9]{1,17}", text)
    value = float(text) if match else 0.0
    if not 0 < value <= 1:
        raise BadInput(f"{text!r} is no share of memory", path=place)
    return value


def _devices(text: str | None, source: str) -> tuple[int, ...] | None:
    if text is None or not re.fullmatch(r"[0-9]{1,4}(?:,[0-9]{1,4}){0,255}", text):
        return None
    devices = tuple(int(word) for word in text.split(","))
    if len(set(devices)) != len(devices):
        raise BadInput(f"names a GPU twice: {text}", path=f"{source}: {DEVICES}")
    return devices


def _partition(engine: str, found: Found, said: Mapping[str, str], source: str) -> tuple[int, ...] | None:
    text = said.get("partition") or found.environment.get(_PARTITIONS.get(engine, ""))
    if text is None:
        return None
    return tuple(_number(word.strip(), f"{source}: layer partition") for word in text.split(",")[:1024])

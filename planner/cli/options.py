"""Options that several commands share, and the enumerations they choose from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """How the answer is written."""

    table = "table"
    json = "json"


class CacheName(StrEnum):
    """What the KV cache is kept in."""

    auto = "auto"
    fp8 = "fp8"


class ObjectiveName(StrEnum):
    """What the best plan is best at."""

    throughput = "throughput"
    latency = "latency"


MOST = 10_000_000
"""Larger numbers than this are slips of the keyboard."""

MODEL_HELP = "A catalogue name (llama-3.1-70b), a hub id, a directory with config.json, or the file."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
TopologyReference = Annotated[
    str | None,
    typer.Option(
        "--topology",
        "-t",
        help="A topology YAML, the saved text of 'nvidia-smi topo -m' (- for stdin), a library name (dgx-h100), "
        "or a short spec (8xH100-SXM5-80GB). Without it: this host.",
        show_default=False,
    ),
]
TensorDegree = Annotated[int, typer.Option("--tp", "--tensor-parallel-size", min=1, max=MOST, help="Tensor-parallel size.")]
PipelineDegree = Annotated[int, typer.Option("--pp", "--pipeline-parallel-size", min=1, max=MOST, help="Pipeline-parallel size.")]
DataDegree = Annotated[int, typer.Option("--dp", "--data-parallel-size", min=1, max=MOST, help="Replicas.")]
ContextDegree = Annotated[
    int,
    typer.Option(
        "--dcp",
        "--decode-context-parallel-size",
        min=1,
        max=MOST,
        help="Ranks of a tensor group that share out the KV cache (vllm; sglang for latent attention).",
    ),
]
PromptDegree = Annotated[
    int,
    typer.Option(
        "--pcp",
        "--prefill-context-parallel-size",
        min=1,
        max=MOST,
        help="Tensor groups of a replica that split prompts (vllm with latent attention).",
    ),
]
ExpertDegree = Annotated[int, typer.Option("--ep", "--expert-parallel-size", min=1, max=MOST, help="Expert-parallel size.")]
InputTokens = Annotated[int, typer.Option("--input-tokens", min=1, max=MOST, help="Prompt length.")]
OutputTokens = Annotated[int, typer.Option("--output-tokens", min=1, max=MOST, help="Answer length.")]
TtftTarget = Annotated[
    float | None,
    typer.Option(
        "--ttft-ms",
        min=0.001,
        max=MOST,
        help="Target for the time to first token, ms: its mean, or see --percentile.",
        show_default=False,
    ),
]
TpotTarget = Annotated[
    float | None,
    typer.Option(
        "--tpot-ms",
        min=0.001,
        max=MOST,
        help="Target for the time per output token, ms: its mean, or see --percentile.",
        show_default=False,
    ),
]
ObjectiveOption = Annotated[ObjectiveName, typer.Option("--objective", help="What to rank by.")]
EngineOption = Annotated[str, typer.Option("--engine", help="vllm, sglang, tensorrt-llm or tgi.")]
Quant = Annotated[
    str | None,
    typer.Option(
        "--quant",
        help="Weight format instead of the checkpoint's: bf16, fp16, fp8, fp8-block, int8, awq, gptq, nvfp4, mxfp4, bnb-4bit.",
        show_default=False,
    ),
]
CacheOption = Annotated[
    CacheName, typer.Option("--kv-cache-dtype", help="Keep keys and values in 8 bits (fp8), or as the checkpoint asks (auto).")
]
Gpu = Annotated[
    str | None,
    typer.Option("--gpu", help="The GPU model, where the topology does not name it (H100-SXM5-80GB).", show_default=False),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to write the answer.")]

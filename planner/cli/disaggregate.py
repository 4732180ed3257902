"""planner disaggregate"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from planner.cli.guard import guarded
from planner.cli.options import (
    MOST,
    CacheName,
    CacheOption,
    Format,
    FormatOption,
    Gpu,
    InputTokens,
    Model,
    OutputTokens,
    Quant,
    TopologyReference,
    TpotTarget,
    TtftTarget,
)
from planner.cli.traffic import CachedShare, RequestRate, TargetPercentile, Traffic, workload_of
from planner.errors import ExitCode


@guarded
def disaggregate(
    model: Model,
    topology: TopologyReference = None,
    input_tokens: InputTokens = 1024,
    output_tokens: OutputTokens = 256,
    request_rate: RequestRate = None,
    cached: CachedShare = 0.0,
    ttft_ms: TtftTarget = None,
    tpot_ms: TpotTarget = None,
    percentile: TargetPercentile = None,
    engine: Annotated[str, typer.Option("--engine", help="vllm, sglang or tensorrt-llm.")] = "vllm",
    quant: Quant = None,
    cache: CacheOption = CacheName.auto,
    gpu: Gpu = None,
    top: Annotated[int, typer.Option("--top", min=1, max=MOST, help="How many pairs of pools to show.")] = 3,
    form: FormatOption = Format.table,
) -> None:
    """Divide a machine into a prefill pool and a decode pool, with the KV transfer between them over its links.

    Pairs are ranked by the requests a second that meet the targets; with --request-rate by how few GPUs keep up with it.
    Exit code 0 with pairs, 1 if nothing fits or keeps up, 2 for bad input.
    """
    from planner import api

    asked = Traffic(
        input_tokens,
        output_tokens,
        request_rate=request_rate,
        cached_share=cached,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        percentile=percentile,
    )
    workload = workload_of(asked, idle="full")
    spec = api.load_model(model, quant=quant, cache=cache.value)
    answer = api.disaggregate(spec, api.find_topology(topology, gpu=gpu), workload, engine=engine, top=top)
    if form is Format.json:
        from planner.render import json, pools_document

        sys.stdout.write(json.write(pools_document.document(answer)))
    else:
        from planner.render import pools

        pools.disaggregation(answer)
    if not answer.pairs:
        sys.stdout.flush()
        raise typer.Exit(ExitCode.NO)

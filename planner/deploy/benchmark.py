"""The command that measures on the running server what a plan predicts: the engine's own benchmark, the same traffic.

Arguments as the documentation of ``vllm bench serve``, ``sglang.bench_serving`` and AIPerf (which TensorRT-LLM's own examples use,
and which asks TGI by the same interface) has them in November 2026; none was run here.
"""

from __future__ import annotations

from collections.abc import Sequence

from planner.core.saved import SavedPlan

ROUNDS = 8
"""Requests a benchmark sends, in multiples of the concurrency: the first and last of them do not meet a full server."""
LEAST_REQUESTS = 32


def result_file(engine: str) -> str:
    """Where :func:`benchmark` leaves its result; AIPerf makes a folder for it."""
    return {"vllm": "result.json", "sglang": "result.jsonl"}.get(engine, "artifacts/*/profile_export_aiperf.json")


def benchmark(saved: SavedPlan, engine: str, address: str) -> Sequence[str]:
    """The argument vector for a server at ``address``."""
    traffic, model = saved.workload, saved.model.name
    requests = str(max(LEAST_REQUESTS, ROUNDS * traffic.concurrency))
    lengths = (str(traffic.input_tokens), str(traffic.output_tokens))
    flight = str(traffic.concurrency)
    rate = f"{traffic.request_rate:g}" if traffic.load == "request-rate" else None
    if engine == "vllm":
        start = ["vllm", "bench", "serve", "--model", model, "--base-url", address, "--dataset-name", "random"]
        sizes = ["--random-input-len", lengths[0], "--random-output-len", lengths[1], "--ignore-eos"]
        kept = ["--save-result", "--result-filename", result_file(engine)]
        load = ["--request-rate", rate] if rate else ["--max-concurrency", flight]
        return [*start, *sizes, *load, "--num-prompts", requests, *kept]
    if engine == "sglang":
        start = ["python3", "-m", "sglang.bench_serving", "--backend", "sglang-oai", "--base-url", address, "--model", model]
        sizes = ["--dataset-name", "random-ids", "--random-input-len", lengths[0], "--random-output-len", lengths[1]]
        sizes += ["--random-range-ratio", "1", *(["--request-rate", rate] if rate else ["--max-concurrency", flight])]
        sizes += ["--num-prompts", requests]
        return [*start, *sizes, "--output-file", result_file(engine)]
    start = ["aiperf", "profile", "--model", model, "--url", address, "--endpoint-type", "chat", "--streaming"]
    sizes = ["--synthetic-input-tokens-mean", lengths[0], "--synthetic-input-tokens-stddev", "0"]
    sizes += ["--output-tokens-mean", lengths[1], "--output-tokens-stddev", "0"]
    if engine != "tgi":  # which knows no such wish: its answers may end early
        sizes += ["--extra-inputs", "ignore_eos:true"]
    load = ["--request-rate", rate] if rate else ["--concurrency", flight]
    return [*start, *sizes, *load, "--request-count", requests]

"""The flags and variables of ``vllm serve`` that a plan decides."""

from __future__ import annotations

from planner.engines.flags import Flag, FlagTable

PARTITION = "VLLM_PP_LAYER_PARTITION"

VLLM = FlagTable(
    engine="vLLM",
    versions=("0.31", "0.32", "0.33"),
    read_from="vllm/engine/arg_utils.py and vllm/config/ of 0.31.0, 0.32.0 and 0.33.0, read in November 2026; the parser of 0.33.0 run",
    flags={
        "tensor": Flag("--tensor-parallel-size", "1"),
        "pipeline": Flag("--pipeline-parallel-size", "1"),
        "data": Flag("--data-parallel-size", "1"),
        "data-local": Flag("--data-parallel-size-local"),
        "data-start": Flag("--data-parallel-start-rank"),
        "data-address": Flag("--data-parallel-address", "127.0.0.1"),
        "data-port": Flag("--data-parallel-rpc-port", "29550"),
        "decode-context": Flag("--decode-context-parallel-size", "1"),
        "prefill-context": Flag("--prefill-context-parallel-size", "1"),
        "expert": Flag("--enable-expert-parallel"),
        "executor": Flag("--distributed-executor-backend"),
        "nodes": Flag("--nnodes", "1"),
        "node": Flag("--node-rank", "0"),
        "leader": Flag("--master-addr", "127.0.0.1"),
        "leader-port": Flag("--master-port", "29501"),
        "headless": Flag("--headless"),
        "numa": Flag("--numa-bind"),
        "numa-nodes": Flag("--numa-bind-nodes"),
        "quantisation": Flag("--quantization"),
        "dtype": Flag("--dtype", "auto"),
        "cache-dtype": Flag("--kv-cache-dtype", "auto"),
        "context": Flag("--max-model-len"),
        "sequences": Flag("--max-num-seqs"),
        "batched-tokens": Flag("--max-num-batched-tokens"),
        "memory": Flag("--gpu-memory-utilization", "0.92"),
        "no-custom-all-reduce": Flag("--disable-custom-all-reduce"),
        "speculation": Flag("--speculative-config"),
        "port": Flag("--port", "8000"),
        "transfer": Flag("--kv-transfer-config"),
    },
)

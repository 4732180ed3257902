"""The flags and variables of ``sglang.launch_server`` that a plan decides."""

from __future__ import annotations

from planner.engines.flags import Flag, FlagTable

PARTITION = "SGLANG_PP_LAYER_PARTITION"

SGLANG = FlagTable(
    engine="SGLang",
    versions=("0.5.20", "0.5.21", "0.5.22", "0.5.23"),
    read_from="sglang/srt/arg_groups/ of 0.5.20 to 0.5.23, read in November 2026; the parser of 0.5.23 run",
    flags={
        "model": Flag("--model-path"),
        "tensor": Flag("--tp-size", "1"),
        "pipeline": Flag("--pp-size", "1"),
        "data": Flag("--dp-size", "1"),
        "attention-data": Flag("--attn-dp-size", "1", "0.5.22", "--dp-size with --enable-dp-attention"),
        "expert": Flag("--ep-size", "1"),
        "decode-context": Flag("--dcp-size", "1"),
        "attention": Flag("--attention-backend"),
        "nodes": Flag("--nnodes", "1"),
        "node": Flag("--node-rank", "0"),
        "leader": Flag("--dist-init-addr"),
        "quantisation": Flag("--quantization"),
        "dtype": Flag("--dtype", "auto"),
        "cache-dtype": Flag("--kv-cache-dtype", "auto"),
        "context": Flag("--context-length"),
        "sequences": Flag("--max-running-requests"),
        "batched-tokens": Flag("--chunked-prefill-size"),
        "graphs": Flag("--cuda-graph-max-bs-decode"),
        "memory": Flag("--mem-fraction-static"),
        "no-custom-all-reduce": Flag("--disable-custom-all-reduce"),
        "speculation": Flag("--speculative-algorithm"),
        "draft-checkpoint": Flag("--speculative-draft-model-path"),
        "draft-steps": Flag("--speculative-num-steps"),
        "draft-branches": Flag("--speculative-eagle-topk"),
        "draft-tokens": Flag("--speculative-num-draft-tokens"),
        "port": Flag("--port", "30000"),
        "host": Flag("--host", "127.0.0.1"),
        "pool": Flag("--disaggregation-mode", "null"),
        "transfer": Flag("--disaggregation-transfer-backend", "mooncake"),
        "bootstrap": Flag("--disaggregation-bootstrap-port", "8998"),
    },
)

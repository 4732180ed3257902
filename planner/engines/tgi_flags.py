"""The flags and variables of ``text-generation-launcher`` that a plan decides."""

from __future__ import annotations

from planner.engines.flags import Flag, FlagTable

CACHE_SHARE = "TGI_WIGGLE_ROOM"

TGI = FlagTable(
    engine="TGI",
    versions=("3.3",),
    read_from="TGI's launcher reference (docs/source/reference/launcher.md) and launcher/src/main.rs of the 3.x line, read in November "
    "2026; its own parser was not run",
    flags={
        "model": Flag("--model-id"),
        "shards": Flag("--num-shard"),
        "sharded": Flag("--sharded"),
        "quantisation": Flag("--quantize"),
        "dtype": Flag("--dtype"),
        "cache-dtype": Flag("--kv-cache-dtype"),
        "input": Flag("--max-input-tokens"),
        "context": Flag("--max-total-tokens"),
        "sequences": Flag("--max-concurrent-requests", "128"),
        "batched-tokens": Flag("--max-batch-prefill-tokens"),
        "graphs": Flag("--cuda-graphs", "1,2,4,8,16,32"),
        "memory": Flag("--cuda-memory-fraction", "1.0"),
        "socket": Flag("--shard-uds-path"),
        "leader-port": Flag("--master-port", "29500"),
        "speculation": Flag("--speculate"),
        "port": Flag("--port", "3000"),
    },
)

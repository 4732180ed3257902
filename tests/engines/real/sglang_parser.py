"""SGLang's own parser, resolution and checks, on a machine without a GPU. Run by SGLang's interpreter, by ``check.py``.

Reads commands as JSON lines (``argv``, ``environment``, ``gpu``) from standard input, and writes for each what SGLang made of it, or
what it said against it. Heads against tensor ranks, memory and kernels are out of sight at this stage.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any

from stand_ins import without_torchvision

START = ["python3", "-m", "sglang.launch_server"]


def read(case: dict[str, Any]) -> dict[str, Any]:
    """What SGLang makes of one command. Raises whatever SGLang raises."""
    from sglang.srt.arg_groups.overrides import model_config_of
    from sglang.srt.distributed.utils import get_pp_indices
    from sglang.srt.layers import quantization
    from sglang.srt.layers.quantization import marlin_utils
    from sglang.srt.server_args import prepare_server_args

    quantization.QUANTIZATION_METHODS["mxfp4"] = quantization.Mxfp4Config  # as where there is CUDA
    marlin_utils.get_device_capability = lambda *_args: tuple(case["gpu"]["capability"])
    words = case["argv"]
    if words[: len(START)] != START:
        raise ValueError(f"not {' '.join(START)}: {words[:3]}")
    arguments = prepare_server_args([*words[len(START) :], "--device", "cuda"])
    arguments.resolve_once()
    arguments.check_server_args()
    found = arguments.resolved_dict()
    layers, stages = case["layers"], found["pp_size"]
    cuts = [get_pp_indices(layers, stage, stages) for stage in range(stages)]
    return {
        "tensor": found["tp_size"],
        "pipeline": stages,
        "data": found["dp_size"],
        "attention_data": found["attn_dp_size"],
        "expert": found["ep_size"],
        "decode_context": found["dcp_size"],
        "partition": [end - start for start, end in cuts],
        "processes": found["nnodes"],
        "rank": found["node_rank"],
        "gpus": found["tp_size"] * stages * found["dp_size"] // found["nnodes"],
        "context": found["context_length"],
        "sequences": found["max_running_requests"] // found["attn_dp_size"],
        "batched_tokens": found["chunked_prefill_size"],
        "memory_fraction": found["mem_fraction_static"],
        "cache_dtype": found["kv_cache_dtype"],
        "dtype": found["dtype"],
        "quantisation": model_config_of(arguments).quantization,
        "batches_in_flight": stages + found["pp_async_batch_depth"],
        "custom_all_reduce": not found["disable_custom_all_reduce"],
        "page": found["page_size"],
        "guesses": found["speculative_num_draft_tokens"] or 0,
    }


def main() -> None:
    """A line in, a line out."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    without_torchvision()
    for line in sys.stdin:
        case = json.loads(line)
        kept, said = dict(os.environ), io.StringIO()
        os.environ.update(case["environment"])
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                answer: dict[str, Any] = {"resolved": read(case)}
        except (Exception, SystemExit) as refusal:
            words = said.getvalue().strip().splitlines()[-1:] if isinstance(refusal, SystemExit) else [str(refusal)]
            answer = {"refused": " ".join([type(refusal).__name__, *words])[:2000]}
        os.environ.clear()
        os.environ.update(kept)
        print(json.dumps({"name": case["name"]} | answer, default=str), flush=True)


if __name__ == "__main__":
    main()

"""vLLM's own parser and configuration, on a machine without a GPU. Run by vLLM's interpreter, by ``check.py``.

Reads commands as JSON lines (``argv``, ``environment``, ``gpu``) from standard input, and writes for each what vLLM made of it, or what
it said against it. Only the platform is made up: how many GPUs there are, and what each is. What needs weights, kernels or wires is
out of sight: memory, quantisation blocks against shards, kernels that are not there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any

from stand_ins import Empty, with_triton, without_torchvision


def _prepare() -> Any:
    """Import vLLM without its kernels, and set it on a CUDA platform whose facts are those of a case. Returns that platform."""
    os.environ.update(
        VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1", VLLM_PLUGINS="", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1"
    )
    kernels = ("vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch", "vllm._qutlass_C", "vllm.vllm_flash_attn")
    for name in (*kernels, "vllm.vllm_flash_attn.flash_attn_interface"):
        sys.modules[name] = Empty(name)
    without_torchvision()
    with_triton()
    import vllm.platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    class Platform(NonNvmlCudaPlatform):  # type: ignore[misc]  # vLLM is not there where types are checked
        gpu: dict[str, Any] = {}

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return DeviceCapability(*cls.gpu["capability"])

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return str(cls.gpu["name"])

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return int(cls.gpu["memory"])

        @classmethod
        def device_count(cls) -> int:
            return int(cls.gpu["count"])

        @classmethod
        def is_fully_connected(cls, physical_device_ids: list[int]) -> bool:
            return True

        @classmethod
        def num_compute_units(cls, device_id: int = 0) -> int:
            return 100

        @classmethod
        def is_integrated_gpu(cls, device_id: int = 0) -> bool:
            return False

        @classmethod
        def import_kernels(cls) -> None:
            return None

        @classmethod
        def set_device(cls, device: Any) -> None:
            return None

        @classmethod
        def get_cuda_runtime_major(cls) -> int:
            return 13

        @classmethod
        def check_if_supports_dtype(cls, dtype: Any) -> None:
            if str(dtype) == "torch.bfloat16" and tuple(cls.gpu["capability"]) < (8, 0):
                raise ValueError("Bfloat16 is only supported on GPUs with compute capability of at least 8.0")

    vllm.platforms._current_platform = Platform()  # before anything binds the platform it finds
    import vllm._custom_ops as operations
    from vllm.model_executor.models import registry

    registry._LazyRegisteredModel._save_modelinfo_to_cache = lambda *_args, **_options: None
    registry._run_in_subprocess = lambda look: look()  # there is no CUDA here to keep from starting
    for name in dir(operations):
        if "supports" in name:  # they ask the compiled kernels
            setattr(operations, name, lambda *_args, **_options: True)
    return Platform


class Parser:
    """``vllm serve`` up to where it would start workers."""

    def __init__(self) -> None:
        self._platform = _prepare()
        from vllm.entrypoints.common.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        self._parser = make_arg_parser(FlexibleArgumentParser())

    def read(self, case: dict[str, Any]) -> dict[str, Any]:
        """What vLLM makes of one command. Raises whatever vLLM raises."""
        from vllm.distributed.utils import get_pp_indices
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext

        self._platform.gpu = case["gpu"]
        words = case["argv"]
        if words[:2] != ["vllm", "serve"]:
            raise ValueError(f"not vllm serve: {words[:2]}")
        # no tokenizer and no weights lie beside the config
        parsed = self._parser.parse_args([*words[2:], "--skip-tokenizer-init", "--load-format", "dummy"])
        parsed.model = parsed.model_tag
        arguments = AsyncEngineArgs.from_cli_args(parsed)
        config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER, headless=parsed.headless)
        parallel, scheduler, model = config.parallel_config, config.scheduler_config, config.model_config
        model.verify_with_parallel_config(parallel)
        stages = parallel.pipeline_parallel_size
        cuts = [get_pp_indices(model.get_total_num_hidden_layers(), stage, stages) for stage in range(stages)]
        local = parallel.data_parallel_size_local if parallel.data_parallel_size > 1 else 1
        return {
            "tensor": parallel.tensor_parallel_size,
            "pipeline": stages,
            "data": parallel.data_parallel_size,
            "expert": bool(parallel.enable_expert_parallel),
            "decode_context": parallel.decode_context_parallel_size,
            "prefill_context": parallel.prefill_context_parallel_size,
            "partition": [end - start for start, end in cuts],
            "processes": parallel.nnodes,
            "rank": parallel.node_rank,
            "first_replica": parallel.data_parallel_rank,
            "gpus": max(1, parallel.local_world_size * local),
            "headless": bool(parsed.headless),
            "context": model.max_model_len,
            "sequences": scheduler.max_num_seqs,
            "batched_tokens": scheduler.max_num_batched_tokens,
            "memory_fraction": config.cache_config.gpu_memory_utilization,
            "cache_dtype": config.cache_config.cache_dtype,
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantisation": model.quantization,
            "batches_in_flight": config.max_concurrent_batches,
            "custom_all_reduce": not parallel.disable_custom_all_reduce,
            "numa_nodes": parallel.numa_bind_nodes,
            "all_to_all": parallel.all2all_backend,
            "guesses": config.speculative_config.num_speculative_tokens if config.speculative_config else 0,
        }


def main() -> None:
    """A line in, a line out."""
    parser = Parser()
    for line in sys.stdin:
        case = json.loads(line)
        kept, said = dict(os.environ), io.StringIO()
        os.environ.update(case["environment"])
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                answer: dict[str, Any] = {"resolved": parser.read(case)}
        except (Exception, SystemExit) as refusal:
            words = said.getvalue().strip().splitlines()[-1:] if isinstance(refusal, SystemExit) else [str(refusal)]
            answer = {"refused": " ".join([type(refusal).__name__, *words])[:2000]}
        os.environ.clear()
        os.environ.update(kept)
        print(json.dumps({"name": case["name"]} | answer, default=str), flush=True)


if __name__ == "__main__":
    main()

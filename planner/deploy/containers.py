"""What every container needs beside its arguments: an image, the weights, and a place for the files that arguments name."""

from __future__ import annotations

from collections.abc import Sequence

from planner.core.engine import LaunchProcess
from planner.deploy.target import Job
from planner.errors import BadInput

IMAGES = {
    "vllm": "vllm/vllm-openai:v0.33.0",
    "sglang": "lmsysorg/sglang:v0.5.23",
    "tgi": "ghcr.io/huggingface/text-generation-inference:3.3.5",
}
"""The images of the releases that the arguments are for. TensorRT-LLM's was not read in any one release."""
ROUTER_IMAGE = "nginx:1.29"
FILES = "/planner"
CACHE = "/root/.cache/huggingface"
CACHES = {"tgi": "/data"}
"""Where images keep what they fetch from the hub (HF_HOME), if elsewhere."""
HEALTH = "/health"
"""Where vLLM, SGLang, TensorRT-LLM and TGI all answer once they serve."""
LOADING_MINUTES = 60
"""How long a server may take until it answers: loading hundreds of gigabytes and capturing graphs."""
BINDING = frozenset({"--numa-bind", "--numa-bind-nodes"})
UNBOUND = (
    "--numa-bind is left out in containers: it takes numactl in the image and the capability SYS_NICE; with both, put it back"
)
RDMA = "NCCL_IB_HCA"
"""Set where a process reaches others over RDMA cards."""
DEVICES = "CUDA_VISIBLE_DEVICES"


def image_of(job: Job) -> str:
    """The image that was named, or that of the engine. Raises ``BadInput`` where neither is known."""
    image = job.image or IMAGES.get(job.engine)
    if image is None:
        hint = "add --image, for example nvcr.io/nvidia/tensorrt-llm/release:TAG"
        raise BadInput(f"no image of {job.engine} is known here", path="--image", hint=hint)
    return image


def cache_of(job: Job) -> str:
    """The directory of the image that holds weights from the hub."""
    return CACHES.get(job.engine, CACHE)


def devices_of(process: LaunchProcess) -> list[int]:
    """The host's numbers of the GPUs of a process, in the order of its ranks."""
    return [int(word) for word in process.environment[DEVICES].split(",")]


def positions(devices: list[int]) -> str:
    """The order of ranks as a container numbers the GPUs it was given: from 0, by PCI bus id.

    >>> positions([4, 6, 5, 7])
    '0,2,1,3'
    """
    order = sorted(devices)
    return ",".join(str(order.index(device)) for device in devices)


def without_binding(argv: Sequence[str]) -> tuple[str, ...]:
    """``argv`` without the options that bind workers to NUMA nodes.

    >>> without_binding(("vllm", "serve", "--numa-bind", "--numa-bind-nodes", "0", "1", "--port", "8000"))
    ('vllm', 'serve', '--port', '8000')
    """
    kept: list[str] = []
    dropping = False
    for word in argv:
        dropping = word in BINDING or (dropping and not word.startswith("--"))
        if not dropping:
            kept.append(word)
    return tuple(kept)


def binding_notes(job: Job) -> tuple[str, ...]:
    """A word about it, where there was any."""
    return (UNBOUND,) if any(BINDING & set(process.argv) for process in job.launch.processes) else ()


def refuse_mpi(job: Job, target: str) -> None:
    """Raise ``BadInput`` where an engine starts by MPI over several nodes, which a target has no launcher for."""
    if any(process.argv[0] == "srun" for process in job.launch.processes):
        problem = f"{job.engine} over several nodes starts by MPI, which the {target} target has no launcher for"
        raise BadInput(problem, path="--target", hint="use --target slurm, or a plan whose replicas fit a node")

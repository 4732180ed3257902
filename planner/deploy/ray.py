"""Ray: a script for every node that starts Ray there; the first node of a replica starts the server on it.

Every replica has a Ray cluster of its own, so that Ray cannot place it elsewhere.
"""

from __future__ import annotations

from planner.core.engine import LaunchProcess
from planner.deploy.addresses import without_options
from planner.deploy.containers import without_binding
from planner.deploy.router import router
from planner.deploy.shell import assignments, command, prologue, token
from planner.deploy.target import Job, Output, Target, file_stem, groups, port_of
from planner.errors import BadInput

PORT = 6379
_OF_OTHERS = frozenset({"--nnodes", "--node-rank", "--master-addr", "--master-port", "--distributed-executor-backend"})
"""What vLLM is told about nodes where it starts its own processes."""
_NOTES = (
    "Ray gives workers the GPUs of a node in the order of their indices: the order of ranks within a node is Ray's, not the plan's",
)


def _refuse(job: Job) -> None:
    replicas = groups(job)
    if job.engine != "vllm" or job.saved.plan.parallelism.attention_data_parallel:
        what = "replicas that share experts" if job.engine == "vllm" else job.engine
        raise BadInput(
            f"Ray starts vLLM's pipelines and tensor groups here, not {what}", path="--target", hint="use --target shell"
        )
    if any(len(processes) < 2 for processes in replicas):
        raise BadInput("a replica of this plan is on one node, and needs no Ray", path="--target", hint="use --target shell")
    used = [process.node for processes in replicas for process in processes]
    if len(set(used)) != len(used):
        raise BadInput("replicas share nodes; Ray would mix their GPUs", path="--target", hint="use --target shell")


def serve(process: LaunchProcess) -> tuple[str, ...]:
    """The server's arguments where Ray starts its workers."""
    return (*without_options(without_binding(process.argv), _OF_OTHERS), "--distributed-executor-backend", "ray")


def _write(job: Job) -> Output:
    _refuse(job)
    files: dict[str, str] = {}
    run = []
    for processes in groups(job):
        head = processes[0]
        for process in processes:
            gpus = len(process.environment["CUDA_VISIBLE_DEVICES"].split(","))
            exports = "".join(f"export {one}\n" for one in assignments(process.environment))
            if process is head:
                start = command(["ray", "start", "--head", "--port", str(PORT), "--num-gpus", str(gpus)])
                last = f"{start}\nexport RAY_ADDRESS=127.0.0.1:{PORT}\nexec {command(serve(head))}\n"
            else:
                address = f"{head.node}:{PORT}"
                last = f"exec {command(['ray', 'start', '--address', address, '--num-gpus', str(gpus), '--block'])}\n"
            name = f"ray-{file_stem(process.node)}.sh"
            files[name] = f'{prologue(job, _NOTES)}cd -- "$(dirname -- "$0")"\n{token(job)}{exports}{last}'
            run.append(f"on {process.node}: sh {name}")
    routed = router(job)
    first = groups(job)[0][0]
    address = routed.address or f"http://{first.node}:{port_of(job, first)}"
    return Output({**files, **job.launch.files, **routed.files}, (*run, *routed.run), address=address)


TARGET = Target("ray", "Ray on every node of a replica, and vLLM on it", _write)

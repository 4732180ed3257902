"""A Slurm batch job: one step for every process, on the nodes of the allocation in the order of the plan's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from planner.core.engine import LaunchProcess
from planner.deploy.addresses import with_nodes
from planner.deploy.containers import devices_of
from planner.deploy.shell import Variable, Word, assignments, command, prologue, together, token
from planner.deploy.target import Job, Output, Target, by_node, gpus_of, nodes, reachable, servers

_MPI = "trtllm-llmapi-launch"
_SHARED = ("--overlap", "--cpu-bind=none")
"""Steps run beside each other, and are not bound to a core of each task: servers have many threads."""
MPI_ENGINE = "tensorrt-llm"


def _write(job: Job) -> Output:
    places = nodes(job)
    variables = {node: Variable(f"NODE{number}") for number, node in enumerate(places)}
    gpus = {gpus_of(job, node) for node in places}
    steps = [(f"replica {one.replica} on {one.node}", _step(job, one, variables)) for one in job.launch.processes]
    notes = [f"${variable.name} of the allocation stands for {node} of the plan" for node, variable in variables.items()]
    if len(gpus) > 1:
        notes.append(f"nodes have {', '.join(map(str, sorted(gpus)))} GPUs: the job asks for the fewer")
    first, *rest = prologue(job, notes).splitlines(keepends=True)
    options = [
        f"#SBATCH --job-name={job.name}\n",
        f"#SBATCH --nodes={len(places)}\n",
        f"#SBATCH --ntasks-per-node={max(_tasks(job, processes) for processes in by_node(job).values())}\n",
        f"#SBATCH --gpus-per-node={min(gpus)}\n",
        "#SBATCH --exclusive\n",
    ]
    name = f"{job.name}.sbatch"
    text = [
        first,
        *options,
        *rest,
        'cd -- "${SLURM_SUBMIT_DIR:?is set by sbatch}"\n',
        token(job),
        _allocation(variables.values()),
    ]
    head, port = servers(job)[0]
    return Output(
        {name: "".join([*text, together(steps)]), **job.launch.files},
        (f"sbatch {name}",),
        ("it serves on the nodes of the allocation: 'squeue -j JOB -o %N' names them",) if len(places) > 1 else (),
        f"http://{head.node}:{port}",
    )


def _allocation(variables: Iterable[Variable]) -> str:
    """Lines that give each node of the allocation its variable."""
    lines = ['nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")\n']
    for number, variable in enumerate(variables):
        lines.append(f"{variable.name}=$(printf '%s\\n' \"$nodes\" | sed -n {number + 1}p)\n")
    return "".join(lines)


def _tasks(job: Job, processes: Sequence[LaunchProcess]) -> int:
    """Tasks that processes need on their node."""
    argv = processes[0].argv
    if argv[0] == "srun":
        return int(argv[argv.index("--ntasks-per-node") + 1])
    return sum(_ranks(job, process) for process in processes)


def _step(job: Job, process: LaunchProcess, variables: dict[str, Variable]) -> str:
    """The step of a process. The environment is set by ``env`` inside it: srun would put its own over it."""
    words: list[Word] = list(with_nodes(reachable(job, process, always=True), variables))
    environment = ["env", *assignments_as_words(process)]
    if process.argv[0] == "srun":  # an MPI world over all its nodes
        place = words.index(_MPI)
        return command([*words[:place], *_SHARED, *environment, *words[place:]])
    where: tuple[Variable] = (variables[process.node],)
    ranks = _ranks(job, process)
    mpi = ("--mpi=pmix",) if ranks > 1 else ()
    step: list[Word] = ["srun", *mpi, "--nodes=1", f"--ntasks={ranks}", *_SHARED]
    wrapped: list[Word] = [_MPI, *words] if ranks > 1 else words
    return command([*step, f"--gpus-per-node={gpus_of(job, process.node)}", "--nodelist", where, *environment, *wrapped])


def _ranks(job: Job, process: LaunchProcess) -> int:
    """Tasks of a process: inside a job TensorRT-LLM cannot start its own ranks, so that Slurm starts them."""
    return len(devices_of(process)) if job.engine == MPI_ENGINE else 1


def assignments_as_words(process: LaunchProcess) -> list[str]:
    """``NAME=value`` arguments for ``env``, not quoted yet."""
    assignments(process.environment)  # refuses what is no name
    return [f"{name}={value}" for name, value in process.environment.items()]


TARGET = Target("slurm", "a batch job for sbatch, a step of srun for every process", _write)

"""Other hosts: asked over ssh by a hostfile, or by tasks on a Ray cluster. A node that does not answer says why.

A node is first asked for ``planner probe -o -``, its topology document; where planner is not installed, for what
nvidia-smi says. Programs are started by argument vector, host names are checked, every call has a limit in time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from planner.errors import BadInput, Unavailable

AT_ONCE = 16
MAX_NODES = 4096
MAX_CHARACTERS = 4_000_000
TIMEOUT_SECONDS = 60.0
CONNECT_SECONDS = 10
NOT_FOUND = 127
UNREACHED = 255
"""What ssh ends with when it cannot get there; a Ray task that fails is told the same way."""
TIMED_OUT = 124

PLANNER = ("planner", "probe", "-o", "-")
_ASK_ALL = (
    "nvidia-smi topo -m || exit $?; for ask in -L 'topo -p2p r' 'nvlink -s' -q; do "
    'echo; echo "$ nvidia-smi $ask"; nvidia-smi $ask 2>/dev/null; done; exit 0'
)
NVIDIA_SMI = ("sh", "-c", _ASK_ALL)
"""The matrix must be there; what the others say adds to it. A matrix of ``topo -p2p`` does not say itself what was asked."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program on a node ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node said: ``text`` is a topology document or captures; without it, ``problem`` says why."""

    node: str
    text: str = ""
    problem: str = ""
    hint: str = ""


Runner = Callable[[tuple[str, ...], float], Ran]
"""Runs an argument vector on a node, within seconds."""


def ask(node: str, run: Runner, timeout: float, hint: str) -> NodeAnswer:
    """What a node says of itself by ``planner``, else by ``nvidia-smi``; ``hint`` is for one that is not reached."""
    ran = run(PLANNER, timeout)
    ours = ran
    if ran.code not in {0, UNREACHED, TIMED_OUT}:
        ran = run(NVIDIA_SMI, timeout)
    if ran.code == TIMED_OUT:
        return NodeAnswer(node, problem=f"did not answer within {timeout:g} s", hint="is it up? allow more with --timeout")
    if ran.code == UNREACHED:
        return NodeAnswer(node, problem=f"cannot be reached: {_last_line(ran)}", hint=hint)
    if len(ran.out) > MAX_CHARACTERS:
        return NodeAnswer(node, problem=f"answered with more than {MAX_CHARACTERS} characters")
    if ran.code != 0 or not ran.out.strip():
        said = _last_line(ran)
        if ours.code not in {0, NOT_FOUND}:
            said = f"{_first_line(ours)} (and nvidia-smi: {said})"
        return NodeAnswer(node, problem=said, hint="its driver must be running: try nvidia-smi there")
    return NodeAnswer(node, text=ran.out)


def _first_line(ran: Ran) -> str:
    lines = [line.strip() for line in (ran.err or ran.out).splitlines() if line.strip()]
    return lines[0][:200] if lines else f"exit code {ran.code}"


def _last_line(ran: Ran) -> str:
    lines = [line.strip() for line in (ran.err or ran.out).splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {ran.code}, and not a word"


_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


def parse_hostfile(text: str, source: str) -> list[str]:
    """The hosts of a hostfile as OpenMPI, MPICH and DeepSpeed write it (``node1 slots=8``, ``node1:8``), each once.

    Raises ``BadInput`` with the line.
    """
    hosts: dict[str, None] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.split("#")[0].split()
        if not words:
            continue
        host = re.sub(r":[0-9]+$", "", words[0])
        if not _HOST.fullmatch(host):
            raise BadInput(
                f"{words[0]!r} is not a host name", path=f"{source}, line {number}", hint="one host a line: node1 slots=8"
            )
        hosts[host] = None
        if len(hosts) > MAX_NODES:
            raise BadInput(f"more than {MAX_NODES} hosts", path=source)
    if not hosts:
        raise BadInput("names no host", path=source, hint="one host a line: node1 slots=8")
    return list(hosts)


def ask_by_ssh(hosts: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> list[NodeAnswer]:
    """What every host says, in order, up to 16 asked at a time. Raises ``Unavailable`` where there is no ssh here."""
    import shutil

    if shutil.which("ssh") is None:
        raise Unavailable("no ssh on this host")

    def one(host: str) -> NodeAnswer:
        hint = f"'ssh -o BatchMode=yes {host} true' must work without a password"
        return ask(host, lambda argv, limit: _ssh(host, argv, limit), timeout, hint)

    return _all(one, hosts)


def _all(one: Callable[[Any], NodeAnswer], nodes: Sequence[Any]) -> list[NodeAnswer]:
    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(nodes)))) as pool:
        try:
            return list(pool.map(one, nodes))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ssh(host: str, argv: tuple[str, ...], timeout: float) -> Ran:
    """``argv`` on ``host``; ssh hands one line to the shell there, so it is quoted for that shell."""
    if not _HOST.fullmatch(host):
        return Ran(UNREACHED, "", f"{host!r} is not a host name")
    options = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}")
    return _run(("ssh", *options, host, shlex.join(argv)), timeout)


def _run(argv: tuple[str, ...], timeout: float) -> Ran:
    """A program of this host, ended with all that it started when the time is up."""
    try:
        process = subprocess.Popen(  # noqa: S603 - an argument vector of ours, with a checked host name
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Ran(NOT_FOUND, "", f"{argv[0]}: {error.strerror or error}")
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Ran(TIMED_OUT, "", "")
    return Ran(process.returncode, out, err)


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node of a Ray cluster that is alive: Ray's id for it, its host name, its name or address, the GPUs Ray counts."""

    id: str
    host: str
    name: str
    gpus: float


class RayCluster(Protocol):
    """What is asked of Ray."""

    def nodes(self) -> Sequence[RayNode]:
        """The nodes that are alive."""
        ...

    def run(self, node: RayNode, argv: tuple[str, ...], timeout: float) -> Ran:
        """A program run by a task on that node."""
        ...


WITHOUT_GPU = "Ray counts no GPU on it"


def ask_by_ray(cluster: RayCluster | None = None, timeout: float = TIMEOUT_SECONDS) -> list[NodeAnswer]:
    """What every node of the running Ray cluster says. Raises ``Unavailable`` without Ray or a cluster.

    Nodes on which Ray counts no GPU (a head node, often) are not asked.
    """
    ray = _connected() if cluster is None else cluster
    nodes = sorted(ray.nodes(), key=lambda node: (node.host, node.name, node.id))[:MAX_NODES]
    hosts, names = Counter(node.host for node in nodes), Counter(node.name for node in nodes)

    def label(node: RayNode) -> str:
        return node.host if hosts[node.host] == 1 else node.name if names[node.name] == 1 else node.id

    def one(node: RayNode) -> NodeAnswer:
        if node.gpus <= 0:
            return NodeAnswer(label(node), problem=WITHOUT_GPU)
        return ask(
            label(node), lambda argv, limit: ray.run(node, argv, limit), timeout, "see 'ray status' and the logs of Ray there"
        )

    return _all(one, nodes)


def _connected() -> RayCluster:
    try:
        import ray
    except ImportError as error:
        raise Unavailable(f"ray cannot be imported: {error}", hint="pip install 'interconnect-planner[ray]'") from None
    try:
        address = os.environ.get("RAY_ADDRESS", "auto")
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    except Exception as error:  # noqa: BLE001 - Ray raises many kinds
        said = " ".join(str(error).split())[:200]
        hint = "run it on a node of the cluster ('ray start'), or set RAY_ADDRESS"
        raise Unavailable(f"no Ray cluster answers: {said}", hint=hint) from None
    return _RunningCluster(ray)


class _RunningCluster:
    """The Ray cluster this program is connected to."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def nodes(self) -> list[RayNode]:
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        return [
            RayNode(
                node["NodeID"],
                node.get("NodeManagerHostname", ""),
                node.get("NodeName") or node.get("NodeManagerAddress", ""),
                float(node.get("Resources", {}).get("GPU", 0)),
            )
            for node in alive
        ]

    def run(self, node: RayNode, argv: tuple[str, ...], timeout: float) -> Ran:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def task(argv: tuple[str, ...], limit: float) -> tuple[int, str, str]:
            # a function inside a function travels by value: the node need not have planner
            import subprocess

            try:
                done = subprocess.run(  # noqa: S603 - an argument vector of ours
                    argv, capture_output=True, text=True, errors="replace", timeout=limit, check=False, stdin=subprocess.DEVNULL
                )
            except subprocess.TimeoutExpired:
                return 124, "", ""
            except OSError as error:
                return 127, "", f"{argv[0]}: {error.strerror or error}"
            return done.returncode, done.stdout, done.stderr

        where = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        remote = self._ray.remote(num_cpus=0, num_gpus=0, max_retries=0, scheduling_strategy=where)(task)
        try:
            code, out, err = self._ray.get(remote.remote(argv, timeout), timeout=timeout + CONNECT_SECONDS)
        except self._ray.exceptions.GetTimeoutError:
            return Ran(TIMED_OUT, "", "")
        except Exception as error:  # noqa: BLE001 - a task fails in as many ways as a node does
            return Ran(UNREACHED, "", f"the Ray task failed: {' '.join(str(error).split())[:200]}")
        return Ran(code, out, err)

"""Manifests: they keep to their schemas, and once what reads them has expanded them they start what was planned."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from launch_support import CASES, ENGINES, EVERYWHERE, IMAGE, Bench, emitted, saved
from planner import api
from planner.core.engine import LaunchProcess
from planner.deploy.containers import without_binding
from planner.deploy.target import Job, by_node, groups, port_of
from planner.documents import strict_yaml
from planner.errors import BadInput

LWS_SCHEMA = json.loads((Path(__file__).parent / "leader_worker_set.schema.json").read_text("utf-8"))
COMPOSE_SCHEMA = json.loads(
    resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text("utf-8")
)


def starts_by_mpi(name: str, engine: str) -> bool:
    return engine == "tensorrt-llm" and name in {"pipeline", "replicas of two nodes", "replicas across each other"}


CONTAINERS = [case for case in CASES if not starts_by_mpi(*case)]


def planned(job: Job, process: LaunchProcess, *, always: bool) -> list[str]:
    """The arguments in a container: nothing bound to NUMA nodes, and an address that others reach where they must."""
    argv = list(without_binding(process.argv))
    several = always or len({place.node for place in job.ranks}) > 1
    listening = job.engine in EVERYWHERE or not several or port_of(job, process) is None
    return argv if listening else [*argv, "--host", "0.0.0.0"]  # noqa: S104


# --- compose


def interpolated(value: Any) -> Any:
    """What compose makes of a value: ``$$`` is a dollar, ``${…}`` a variable."""
    if isinstance(value, str):
        return re.sub(r"\$(\$|\{[^}]*\}+)", lambda match: "$" if match[1] == "$" else "<variable>", value)
    if isinstance(value, list):
        return [interpolated(item) for item in value]
    return {key: interpolated(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(("name", "engine"), CONTAINERS)
def test_compose_starts_what_was_planned(name: str, engine: str) -> None:
    job, output = emitted(saved(name, engine=engine), "compose")
    files = [file for file in output.files if file.startswith("compose")]
    assert len(files) == len(by_node(job))
    for file, processes in zip(files, by_node(job).values(), strict=True):
        document = yaml.safe_load(output.files[file])
        assert document == strict_yaml.load(output.files[file], file)
        jsonschema.validate(document, COMPOSE_SCHEMA)
        services = {key: value for key, value in document["services"].items() if key != "router"}
        assert len(services) == len(processes)
        for service, process in zip(services.values(), processes, strict=True):
            assert interpolated(service["entrypoint"]) == planned(job, process, always=False)
            assert service["image"] == IMAGE
            _check_devices(service, process)
            others = {key: value for key, value in process.environment.items() if key != "CUDA_VISIBLE_DEVICES"}
            assert others.items() <= interpolated(service["environment"]).items()
            assert service["environment"]["HF_TOKEN"].startswith("${HF_TOKEN:?")
            assert ("healthcheck" in service) is (port_of(job, process) is not None)
            for mounted in job.launch.files:
                assert any(f"./{mounted}" == volume["source"] for volume in service["volumes"])
                assert mounted in output.files


def _check_devices(service: dict[str, Any], process: LaunchProcess) -> None:
    """The devices given, numbered anew from 0 in their order, and picked in the order of ranks, are the plan's."""
    (reservation,) = service["deploy"]["resources"]["reservations"]["devices"]
    given = reservation["device_ids"]
    assert given == sorted(given, key=int)
    order = service["environment"]["CUDA_VISIBLE_DEVICES"].split(",")
    assert ",".join(given[int(place)] for place in order) == process.environment["CUDA_VISIBLE_DEVICES"]


def test_replicas_get_a_router_in_the_same_file() -> None:
    _, output = emitted(saved("replicas"), "compose")
    document = yaml.safe_load(output.files["compose.yaml"])
    (volume,) = document["services"]["router"]["volumes"]
    assert volume["source"] == "./nginx.conf"
    assert "nginx.conf" in output.files
    assert "router" not in yaml.safe_load(emitted(saved("bridged"), "compose")[1].files["compose.yaml"])["services"]


# --- Kubernetes


def expanded(text: str, variables: dict[str, str]) -> str:
    """What the kubelet makes of an argument: ``$$`` is a dollar, ``$(NAME)`` a variable that is there, else left alone."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def check_schema(document: dict[str, Any]) -> None:
    if document["kind"] != "LeaderWorkerSet":
        kubernetes_validate.validate(document, "1.32", strict=True)
        return
    jsonschema.validate(document, LWS_SCHEMA)
    template = document["spec"]["leaderWorkerTemplate"]
    for part in (template["leaderTemplate"], template["workerTemplate"]):
        selector = {"matchLabels": part["metadata"]["labels"]}
        spec = {"selector": selector, "template": part}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(deployment, "1.32", strict=True)


def started(pod: dict[str, Any], variables: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The arguments and environment of the one container of a pod."""
    (container,) = pod["spec"]["containers"]
    environment = {one["name"]: expanded(one["value"], variables) for one in container["env"] if "value" in one}
    return [expanded(word, variables) for word in [*container["command"], *container["args"]]], environment


@pytest.mark.parametrize(("name", "engine"), CONTAINERS)
def test_kubernetes_starts_what_was_planned(bench: Bench, name: str, engine: str) -> None:
    job, output = emitted(saved(name, engine=engine), "kubernetes")
    every = documents(output.files["kubernetes.yaml"])
    for document in every:
        check_schema(document)
    found: list[tuple[list[str], dict[str, str]]] = []
    for document in every:
        if document["kind"] == "Deployment":
            found += [started(document["spec"]["template"], {})] * document["spec"]["replicas"]
        if document["kind"] == "LeaderWorkerSet":
            found += _group(document)
    want = [(process, members) for members in groups(job) for process in members]
    assert len(found) == len(want)
    for process, members in want:
        alone = len(by_node(job)[process.node]) == 1
        argv = _in_pod(
            planned(job, process, always=True),
            next(place for place, one in enumerate(members) if one is process),
            members[0].node,
            job,
        )
        environment = dict(process.environment)
        if not alone:
            for pinned in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
                del environment[pinned]
        assert (argv, environment) in found
        found.remove((argv, environment))


def _group(document: dict[str, Any]) -> list[tuple[list[str], dict[str, str]]]:
    """The pods of all groups of a LeaderWorkerSet, with what its controller puts into their environment."""
    template, replicas = document["spec"]["leaderWorkerTemplate"], int(document["spec"]["replicas"])
    variables = {"LWS_LEADER_ADDRESS": "leader.example", "LWS_GROUP_SIZE": str(template["size"]), "LWS_WORKER_INDEX": "0"}
    pods = [started(template["leaderTemplate"], variables)]
    indices = range(1, template["size"])
    pods += [started(template["workerTemplate"], variables | {"LWS_WORKER_INDEX": str(index)}) for index in indices]
    return pods * replicas


def _in_pod(argv: list[str], place: int, leader: str, job: Job) -> list[str]:
    """The planned arguments of the process at ``place`` of its engine as they are in pods: ports as those of the first engine,
    the leader by its address.
    """
    first = groups(job)[0][place].argv
    words = list(argv)
    for option in ("--port", "--master-port", "--shard-uds-path"):  # of a worker that nobody asks, or beside a default
        if option not in first and option in words:
            del words[words.index(option) : words.index(option) + 2]
    for number, (before, word) in enumerate(pairwise(list(words)), 1):
        if before in {"--port", "--master-port", "--shard-uds-path"} and before in first:
            words[number] = first[first.index(before) + 1]
        if before in {"--master-addr", "--data-parallel-address"}:
            assert word == leader
            words[number] = "leader.example"
        if before == "--dist-init-addr":
            assert word.startswith(f"{leader}:")
            words[number] = f"leader.example:{first[first.index(before) + 1].partition(':')[2]}"
    return words


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_workers_that_differ_are_started_by_a_script(bench: Bench) -> None:
    machine = "4x8xH100-SXM5-80GB@8x400"
    from planner.core.plan import Parallelism
    from planner.core.workload import Workload

    topology = api.load_topology(machine)
    answer = api.estimate(api.load_model("qwen3-235b-a22b"), topology, Workload(), Parallelism(8, 1, 4, 32))
    plan = api.plan_of(answer, topology, model="qwen3-235b-a22b", reference=machine)
    job, output = emitted(plan, "kubernetes")
    config, group, _ = documents(output.files["kubernetes.yaml"])
    check_schema(group)
    kubernetes_validate.validate(config, "1.32", strict=True)
    template = group["spec"]["leaderWorkerTemplate"]
    (container,) = template["workerTemplate"]["spec"]["containers"]
    assert (container["command"], container["args"]) == (["/bin/sh"], ["/planner/worker.sh"])
    (bench.folder / "worker.sh").write_text(config["data"]["worker.sh"])
    for index in (1, 2, 3):
        done = bench.run(bench.folder / "worker.sh", LWS_WORKER_INDEX=str(index), LWS_LEADER_ADDRESS="leader.example")
        assert (done.returncode, done.stderr) == (0, "")
    leader = job.launch.processes[0].node
    want = sorted(
        [word.replace(leader, "leader.example") for word in planned(job, one, always=True)] for one in job.launch.processes[1:]
    )
    assert sorted(list(one.argv) for one in bench.started("vllm")) == want
    assert bench.run(bench.folder / "worker.sh", LWS_WORKER_INDEX="4", LWS_LEADER_ADDRESS="x").returncode == 2


def test_gpus_are_pinned_where_they_can_be_and_a_comment_says_where_not() -> None:
    def container(name: str) -> tuple[dict[str, Any], str]:
        text = emitted(saved(name), "kubernetes")[1].files["kubernetes.yaml"]
        deployment = next(one for one in documents(text) if one["kind"] == "Deployment")
        return deployment["spec"]["template"]["spec"]["containers"][0], text

    part, text = container("part")
    assert part["resources"]["limits"]["nvidia.com/gpu"] == "4"  # of which it uses two
    assert "asks for all GPUs of the node" in text
    shared, text = container("replicas")
    assert shared["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert not [one for one in shared["env"] if one["name"].startswith("CUDA")]
    assert "cannot be pinned" in text


def test_names_and_namespaces_are_given_or_made_valid() -> None:
    plan = saved("bridged")
    _, output = api.emit_plan(plan, "kubernetes", name="llama", namespace="serving")
    for document in documents(output.files["kubernetes.yaml"]):
        assert document["metadata"]["namespace"] == "serving"
        assert document["metadata"]["name"] == "llama"
    for bad in ("Llama", "8b", "a_b", "", "a" * 41, "-a", "a-", "a\n", "á"):
        with pytest.raises(BadInput, match="no name"):
            api.emit_plan(plan, "kubernetes", name=bad)
    for bad in ("Serving", "a.b", "", "a" * 64, "a b"):
        with pytest.raises(BadInput, match="no namespace"):
            api.emit_plan(plan, "kubernetes", namespace=bad)
    for bad in ("", "a b", "$(id)", "a\n", "-x"):
        with pytest.raises(BadInput, match="no reference"):
            api.emit_plan(plan, "kubernetes", image=bad)


@pytest.mark.parametrize("target", ["compose", "kubernetes"])
def test_mpi_over_nodes_and_an_unknown_image_are_refused(target: str) -> None:
    with pytest.raises(BadInput, match="MPI") as refused:
        emitted(saved("pipeline", engine="tensorrt-llm"), target)
    assert "slurm" in refused.value.hint
    with pytest.raises(BadInput, match="no image"):
        api.emit_plan(saved("part", engine="tensorrt-llm"), target)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_images_are_of_the_releases_that_the_arguments_are_of(engine: str) -> None:
    from planner.deploy.containers import IMAGES
    from planner.engines import find_engine

    assert f":v{find_engine(engine).traits.version}" in IMAGES[engine]


def test_tgi_finds_its_weights_where_its_image_looks_for_them() -> None:
    from planner.deploy.containers import IMAGES
    from planner.engines import find_engine

    plan = saved("part", engine="tgi")
    service = yaml.safe_load(api.emit_plan(plan, "compose")[1].files["compose.yaml"])["services"]["replica-0"]
    assert service["image"] == IMAGES["tgi"]
    assert f":{find_engine('tgi').traits.version}." in IMAGES["tgi"]
    assert [volume["target"] for volume in service["volumes"]] == ["/data"]
    deployment, _ = documents(emitted(plan, "kubernetes")[1].files["kubernetes.yaml"])
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "weights", "mountPath": "/data"} in container["volumeMounts"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8000}


# --- systemd


def unquoted(line: str) -> list[str]:
    """Words as systemd reads them (systemd.syntax(7), systemd.service(5)): C escapes, ``%%`` and ``$$``."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    plain = (re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in words)
    return [word.replace("%%", "%").replace("$$", "$") for word in plain]


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_units_start_what_was_planned(name: str, engine: str) -> None:
    job, output = emitted(saved(name, engine=engine), "systemd")
    units = [text for file, text in output.files.items() if file.endswith(".service")]
    assert len(units) == len(job.launch.processes)
    ordered = [process for processes in by_node(job).values() for process in processes]
    for text, process in zip(units, ordered, strict=True):
        unit = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
        unit.read_string(text)
        several = len({place.node for place in job.ranks}) > 1
        host = ["--host", "0.0.0.0"] if engine not in EVERYWHERE and several and port_of(job, process) is not None else []  # noqa: S104
        assert unquoted(unit["Service"]["ExecStart"]) == ["/usr/bin/env", *process.argv, *host]
        lines = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
        assert dict(unquoted(line)[0].split("=", 1) for line in lines) == dict(process.environment)


def test_systemd_itself_takes_a_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    _, output = emitted(saved("bridged", model='/models/50% of "$(id)" \\x'), "systemd")
    (file,) = (file for file in output.files if file.endswith(".service"))
    (tmp_path / file).write_text(output.files[file])
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / file)], capture_output=True, text=True, check=False
    )
    if "Failed to" in done.stderr and file not in done.stderr:
        pytest.skip(f"systemd-analyze cannot run here: {done.stderr[:80]}")
    assert [line for line in done.stderr.splitlines() if file in line] == []


# --- benchmark, router and ranks


@pytest.mark.parametrize("engine", ENGINES)
def test_the_benchmark_sends_the_traffic_of_the_plan(engine: str) -> None:
    from planner.deploy.benchmark import benchmark

    plan = saved("part", engine=engine)
    argv = list(benchmark(plan, engine, "http://127.0.0.1:8000"))
    traffic = plan.workload
    for value in (plan.model.name, "http://127.0.0.1:8000", traffic.input_tokens, traffic.output_tokens, traffic.concurrency):
        assert str(value) in argv
    assert str(8 * traffic.concurrency) in argv
    assert argv[0] == {"vllm": "vllm", "sglang": "python3", "tensorrt-llm": "aiperf", "tgi": "aiperf"}[engine]


@pytest.mark.parametrize("target", ["shell", "compose", "systemd"])
@pytest.mark.parametrize(
    ("name", "servers"),
    [
        ("replicas", [f"127.0.0.1:800{number}" for number in range(4)]),
        ("replicas of a node", ["node0:8000", "node1:8001"]),
        ("replicas of two nodes", ["node0:8000", "node2:8001"]),
    ],
)
def test_the_router_is_read_by_an_nginx_parser_and_names_every_replica(
    tmp_path: Path, name: str, servers: list[str], target: str
) -> None:
    import crossplane

    _, output = emitted(saved(name), target)
    (tmp_path / "nginx.conf").write_text(output.files["nginx.conf"])
    parsed = crossplane.parse(str(tmp_path / "nginx.conf"), strict=True)
    assert parsed["errors"] == []
    (http,) = (block for block in parsed["config"][0]["parsed"] if block["directive"] == "http")
    (upstream,) = (block for block in http["block"] if block["directive"] == "upstream")
    found = [one["args"] for one in upstream["block"] if one["directive"] == "server"]
    assert [one[0] for one in found] == servers
    assert all("max_fails=3" in one for one in found)
    assert "http://127.0.0.1:9000" in output.address


def test_one_engine_needs_no_router() -> None:
    for name in ("bridged", "pipeline", "shared experts"):
        assert "nginx.conf" not in emitted(saved(name), "shell")[1].files


@pytest.mark.parametrize(("name", "engine"), [case for case in CASES if case[1] == "vllm"])
def test_the_map_of_ranks_is_the_placement(name: str, engine: str) -> None:
    job, output = emitted(saved(name, engine=engine), "ranks")
    ranks = json.loads(output.files["ranks.json"])["ranks"]
    placement = [
        (replica, stage, rank, gpu)
        for replica, stages in enumerate(job.saved.plan.placement)
        for stage, group in enumerate(stages)
        for rank, gpu in enumerate(group)
    ]
    assert [(one["replica"], one["stage"], one["tensor_rank"], one["gpu"]) for one in ranks] == placement
    gpus = job.saved.topology.gpus
    assert all((one["node"], one["host_index"]) == (gpus[one["gpu"]].host, gpus[one["gpu"]].index) for one in ranks)
    table = output.files["ranks.txt"].partition("\n#\n")[2].splitlines()
    assert len(table) == len(placement) + 1
    for line, one in zip(table[1:], ranks, strict=True):
        assert line.split()[1:3] == [one["node"], str(one["host_index"])]

"""What makes the launches of two pools a pair."""

from __future__ import annotations

import json
import re

import pytest

from planner import api
from planner.core.engine import LaunchProcess
from planner.core.workload import Workload
from planner.documents import strict_yaml
from planner.engines.pools import RULES, handover_rules
from planner.engines.sglang_flags import SGLANG
from planner.engines.tensorrt_llm import KEYS
from planner.engines.vllm_flags import VLLM
from planner.errors import BadInput
from planner.search.disaggregation import PlannedPair

QUESTIONS = [
    ("llama-3.1-8b", "dgx-h100"),
    ("llama-3.1-70b", "2x-dgx-h100"),
    ("qwen3-235b-a22b-fp8", "2x-dgx-h100"),
    ("llama-3.1-405b", "4x8xH100-SXM5-80GB@8x400"),
    ("qwen3-4b", "2x-l4"),
]


def pairs(model: str, machine: str, engine: str) -> tuple[PlannedPair, ...]:
    found = api.disaggregate(
        api.load_model(model), api.load_topology(machine), Workload(2048, 256, load="full"), engine=engine, top=6
    )
    assert found.pairs
    return found.pairs


def value(process: LaunchProcess, flag: str) -> str:
    return process.argv[process.argv.index(flag) + 1]


def ports(process: LaunchProcess) -> set[str]:
    named = (flag for flag in ("--port", "--master-port", "--data-parallel-rpc-port", "--disaggregation-bootstrap-port"))
    found = {value(process, flag) for flag in named if flag in process.argv}
    return found | {port for name, port in process.environment.items() if name == "VLLM_NIXL_SIDE_CHANNEL_PORT"}


@pytest.mark.parametrize("engine", sorted(RULES))
@pytest.mark.parametrize(("model", "machine"), QUESTIONS)
def test_processes_of_a_host_do_not_share_ports_or_gpus(model: str, machine: str, engine: str) -> None:
    for one in pairs(model, machine, engine):
        taken: dict[str, list[str]] = {}
        devices: dict[str, list[str]] = {}
        for launch in (one.launch.prefill, one.launch.decode):
            for process in launch.processes:
                taken.setdefault(process.node, []).extend(ports(process))
                devices.setdefault(process.node, []).extend(process.environment["CUDA_VISIBLE_DEVICES"].split(","))
        for seen in (*taken.values(), *devices.values()):
            assert len(seen) == len(set(seen))
        assert all("8000" not in seen for seen in taken.values())  # the router's


@pytest.mark.parametrize(("model", "machine"), QUESTIONS)
def test_vllm(model: str, machine: str) -> None:
    for one in pairs(model, machine, "vllm"):
        several = len({process.node for spec in (one.launch.prefill, one.launch.decode) for process in spec.processes}) > 1
        for role, launch in (("kv_producer", one.launch.prefill), ("kv_consumer", one.launch.decode)):
            for process in launch.processes:
                assert json.loads(value(process, VLLM.flags["transfer"].name)) == {
                    "kv_connector": "NixlConnector",
                    "kv_role": role,
                }
                assert int(process.environment["VLLM_NIXL_SIDE_CHANNEL_PORT"]) >= 5600
                assert (process.environment.get("VLLM_NIXL_SIDE_CHANNEL_HOST") == process.node) == several
        proxy = next(note for note in one.launch.notes if "toy_proxy_server" in note)
        assert len(re.findall(r" 81\d\d", proxy)) == len([p for p in one.launch.prefill.processes if "--port" in p.argv])
        assert not any("put a router" in note for spec in (one.launch.prefill, one.launch.decode) for note in spec.notes)


@pytest.mark.parametrize(("model", "machine"), QUESTIONS)
def test_sglang(model: str, machine: str) -> None:
    for one in pairs(model, machine, "sglang"):
        for role, launch in (("prefill", one.launch.prefill), ("decode", one.launch.decode)):
            for process in launch.processes:
                assert value(process, SGLANG.flags["pool"].name) == role
                assert value(process, SGLANG.flags["transfer"].name) == "nixl"
                assert (SGLANG.flags["bootstrap"].name in process.argv) == (role == "prefill")
        router = next(note for note in one.launch.notes if "--pd-disaggregation" in note)
        for process in one.launch.prefill.processes:
            if "--port" in process.argv:
                assert f":{value(process, '--port')} {value(process, SGLANG.flags['bootstrap'].name)}" in router


@pytest.mark.parametrize(("model", "machine"), QUESTIONS)
def test_tensorrt_llm(model: str, machine: str) -> None:
    for one in pairs(model, machine, "tensorrt-llm"):
        for role, launch in (("prefill", one.launch.prefill), ("decode", one.launch.decode)):
            ((name, text),) = launch.files.items()
            options = strict_yaml.load(text, name)
            assert isinstance(options, dict)
            assert set(options) <= KEYS | {"cache_transceiver_config", "disable_overlap_scheduler"}
            assert options["cache_transceiver_config"] == {"backend": "NIXL", "max_tokens_in_buffer": 2048}
            assert options.get("disable_overlap_scheduler", False) == (role == "prefill")
            assert all(value(process, "--extra_llm_api_options") == name for process in launch.processes)
        (router,) = one.launch.router.processes
        ((name, text),) = one.launch.router.files.items()
        assert router.argv == ("trtllm-serve", "disaggregated", "-c", name)
        servers = strict_yaml.load(text, name)
        assert isinstance(servers, dict)
        for key, launch in (("context_servers", one.launch.prefill), ("generation_servers", one.launch.decode)):
            assert [url.rpartition(":")[2] for url in servers[key]["urls"]] == [value(p, "--port") for p in launch.processes]
            assert servers[key]["num_instances"] == len(launch.processes)


def test_an_engine_without_pools_is_refused() -> None:
    with pytest.raises(BadInput, match="tgi has no pools"):
        handover_rules("tgi")

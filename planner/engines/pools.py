"""What the engines' transfers of caches can do, and what makes two launches a pair.

Read in vLLM 0.33.0 (distributed/kv_transfer/kv_connector/v1/nixl), SGLang 0.5.23 (srt/disaggregation, srt/arg_groups) and the
documentation of TensorRT-LLM's disaggregated serving (November 2026), which was not run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from planner.core.engine import Engine, LaunchProcess, LaunchSpec
from planner.core.model import ModelSpec
from planner.core.pools import HandoverRules, PairLaunch, PoolPair
from planner.core.topology import Topology
from planner.documents import yaml_out
from planner.engines import tensorrt_llm
from planner.engines.sglang_flags import SGLANG
from planner.engines.vllm_flags import VLLM
from planner.errors import BadInput

RULES: Mapping[str, HandoverRules] = {
    "vllm": HandoverRules(
        connector="NixlConnector",
        handover="prompt",
        prefill_stages=False,
        decode_stages="one",
        copies=False,
        early=False,
        source="vLLM 0.33.0 nixl/: the decode pool reads when a prompt is done, from ranks of stage 0; nixl_connector_compatibility.md",
    ),
    "sglang": HandoverRules(
        connector="SGLang's transfer",
        handover="chunk",
        prefill_stages=True,
        decode_stages="one-or-equal",
        copies=True,
        early=True,
        source="SGLang 0.5.23 srt/disaggregation/prefill.py: send_kv_chunk; common/conn.py: _resolve_rank_mapping",
    ),
    "tensorrt-llm": HandoverRules(
        connector="the cache transceiver",
        handover="prompt",
        prefill_stages=True,
        decode_stages="any",
        copies=True,
        early=False,
        source="TensorRT-LLM features/disagg-serving.md: context and generation may differ in TP and PP; read, not run",
    ),
}
PREFILL_PORTS, DECODE_PORTS = 100, 200
"""How far the ports of the pools lie behind an engine's own, which are left to the router."""
SIDE_CHANNEL, BOOTSTRAP = 5600, 8998
ROUTER_PORT = 8000
ORCHESTRATOR = "disaggregated.yaml"
_LOOPBACK, _EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - where the router is on one host and the pools on several
_PORT = VLLM.flags["port"].name
"""The same with all engines."""
_PORTS = frozenset({_PORT, VLLM.flags["leader-port"].name, VLLM.flags["data-port"].name, SGLANG.flags["leader"].name})


def handover_rules(engine: str) -> HandoverRules:
    """How an engine joins two pools. Raises ``BadInput`` where it does not."""
    found = RULES.get(engine)
    if found is None:
        hint = f"engines that are planned in two pools: {', '.join(RULES)}"
        raise BadInput(f"{engine} has no pools for prefill and decode", path="--engine", hint=hint)
    return found


def launch_pair(engine: Engine, pair: PoolPair, model: ModelSpec, topology: Topology, input_tokens: int) -> PairLaunch:
    """The processes of both pools and what goes before them; visible device *k* of a process is the GPU of its local rank *k*."""
    prefill, decode = (engine.launch(pool.plan, model, topology) for pool in (pair.prefill, pair.decode))
    several = len({process.node for process in (*prefill.processes, *decode.processes)}) > 1
    return _PAIRED[engine.traits.name](_apart(prefill, PREFILL_PORTS), _apart(decode, DECODE_PORTS), several, input_tokens)


def _apart(launch: LaunchSpec, by: int) -> LaunchSpec:
    """The same with its ports ``by`` further on; what is said of ports and of a router is said of the pair."""
    processes = tuple(replace(process, argv=_later(process.argv, by)) for process in launch.processes)
    return replace(launch, processes=processes, notes=tuple(note for note in launch.notes if "put a router before" not in note))


def _later(argv: Sequence[str], by: int) -> tuple[str, ...]:
    words = list(argv)
    for place, word in enumerate(words[:-1]):
        if word in _PORTS:
            host, colon, port = words[place + 1].rpartition(":")
            words[place + 1] = f"{host}{colon}{int(port) + by}"
    return tuple(words)


def _servers(launch: LaunchSpec, *, several: bool) -> list[tuple[LaunchProcess, str]]:
    """The processes that take requests, each with its address."""
    found = []
    replicas = set()
    for process in launch.processes:
        if _PORT in process.argv and process.replica not in replicas:
            replicas.add(process.replica)
            port = process.argv[process.argv.index(_PORT) + 1]
            found.append((process, f"{process.node if several else _LOOPBACK}:{port}"))
    return found


def _with(process: LaunchProcess, *more: str, **environment: str) -> LaunchProcess:
    return replace(process, argv=(*process.argv, *more), environment={**process.environment, **environment})


def _vllm(prefill: LaunchSpec, decode: LaunchSpec, several: bool, input_tokens: int) -> PairLaunch:
    del input_tokens
    port = SIDE_CHANNEL

    def joined(launch: LaunchSpec, role: str) -> LaunchSpec:
        nonlocal port
        config = json.dumps({"kv_connector": "NixlConnector", "kv_role": role}, separators=(",", ":"))
        processes = []
        for process in launch.processes:
            where = {"VLLM_NIXL_SIDE_CHANNEL_PORT": str(port)} | (
                {"VLLM_NIXL_SIDE_CHANNEL_HOST": process.node} if several else {}
            )
            processes.append(_with(process, VLLM.flags["transfer"].name, config, **where))
            data = VLLM.flags["data"].name
            port += int(process.argv[process.argv.index(data) + 1]) if data in process.argv else 1
        return replace(launch, processes=tuple(processes))

    proxied = f"{_hosts('prefiller', _servers(prefill, several=several))} {_hosts('decoder', _servers(decode, several=several))}"
    proxy = f"tests/v1/kv_connector/nixl_integration/toy_proxy_server.py {proxied} --port {ROUTER_PORT}"
    notes = [
        "NIXL must be installed beside vLLM (pip install nixl); both pools need the same version, model and KV cache dtype",
        f"a proxy goes before the pools, which has a prompt computed by one and answered by the other: vLLM has a plain one, {proxy}",
    ]
    if several:
        notes.append("NCCL's variables do not steer NIXL: where UCX picks wrong network cards, name them in UCX_NET_DEVICES")
    return PairLaunch(joined(prefill, "kv_producer"), joined(decode, "kv_consumer"), LaunchSpec(()), tuple(notes))


def _hosts(what: str, servers: Sequence[tuple[LaunchProcess, str]]) -> str:
    hosts, ports = zip(*(address.rsplit(":", 1) for _, address in servers), strict=True)
    return f"--{what}-hosts {' '.join(hosts)} --{what}-ports {' '.join(ports)}"


def _sglang(prefill: LaunchSpec, decode: LaunchSpec, several: bool, input_tokens: int) -> PairLaunch:
    del input_tokens
    flags = SGLANG.flags
    pool, more = flags["pool"].name, [flags["transfer"].name, "nixl", *((flags["host"].name, _EVERYWHERE) if several else ())]
    first = [
        _with(process, pool, "prefill", *more, flags["bootstrap"].name, str(BOOTSTRAP + process.replica))
        for process in prefill.processes
    ]
    second = [_with(process, pool, "decode", *more) for process in decode.processes]
    asked = [f"--prefill http://{one} {BOOTSTRAP + process.replica}" for process, one in _servers(prefill, several=several)]
    asked += [f"--decode http://{one}" for _, one in _servers(decode, several=several)]
    router = f"python3 -m sglang_router.launch_router --pd-disaggregation {' '.join(asked)} --port {ROUTER_PORT}"
    notes = (
        "NIXL must be installed beside SGLang (pip install nixl), or leave the backend to Mooncake, SGLang's own choice",
        f"SGLang's router goes before the pools: {router} (read in its documentation, not run)",
    )
    return PairLaunch(replace(prefill, processes=tuple(first)), replace(decode, processes=tuple(second)), LaunchSpec(()), notes)


def _tensorrt_llm(prefill: LaunchSpec, decode: LaunchSpec, several: bool, input_tokens: int) -> PairLaunch:
    """Each pool has options of its own; the orchestrator has a file with the servers of both."""

    def joined(launch: LaunchSpec, role: str, more: Mapping[str, object]) -> LaunchSpec:
        name = f"tensorrt-llm-{role}.yaml"
        buffer = {"cache_transceiver_config": {"backend": "NIXL", "max_tokens_in_buffer": input_tokens}}
        text = launch.files[tensorrt_llm.CONFIG_FILE] + yaml_out.write({**more, **buffer})
        listening = (SGLANG.flags["host"].name, _EVERYWHERE) if several else ()  # spelled alike
        processes = tuple(
            replace(
                process,
                argv=(*(name if word == tensorrt_llm.CONFIG_FILE else word for word in process.argv), *listening),
            )
            for process in launch.processes
        )
        notes = tuple(note.replace(tensorrt_llm.CONFIG_FILE, name) for note in launch.notes)
        return LaunchSpec(processes, {name: text}, notes)

    servers = {"context_servers": prefill, "generation_servers": decode}
    addresses = {name: [one for _, one in _servers(launch, several=several)] for name, launch in servers.items()}
    first = prefill.processes[0].node
    orchestrated = {
        "hostname": first if several else "localhost",
        "port": ROUTER_PORT,
        "backend": "pytorch",
        **{name: {"num_instances": len(urls), "urls": urls} for name, urls in addresses.items()},
    }
    header = f"# TensorRT-LLM {tensorrt_llm.TRAITS.version} disaggregated servers, {tensorrt_llm.CHECKED}\n"
    command = LaunchProcess(first, 0, ("trtllm-serve", "disaggregated", "-c", ORCHESTRATOR))
    notes = (
        f"{ORCHESTRATOR} and cache_transceiver_config are as TensorRT-LLM's documentation has them, not engine-validated",
        "the overlap scheduler is off in the prefill pool, which does not have it",
    )
    return PairLaunch(
        joined(prefill, "prefill", {"disable_overlap_scheduler": True}),
        joined(decode, "decode", {}),
        LaunchSpec((command,), {ORCHESTRATOR: header + yaml_out.write(orchestrated)}),
        notes,
    )


_PAIRED: Mapping[str, Callable[[LaunchSpec, LaunchSpec, bool, int], PairLaunch]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "tensorrt-llm": _tensorrt_llm,
}

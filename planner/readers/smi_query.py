"""``nvidia-smi -q``, whole or some of its sections: what each GPU says of itself.

Indentation is not relied upon, since forms and logs lose it: a line without a colon is a heading, and the few lines that
need their heading (``Current``, ``Max``, ``Total``) stand right below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from planner.core.bus_id import normal_bus_id
from planner.core.capture import Capture
from planner.core.facts import HostFacts
from planner.core.finding import Finding
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.smi_words import lines, lost, number, refuse_many, sight, version

_GPU = re.compile(r"(?:^|\s)GPU ((?:[0-9A-Fa-f]{4,8}:)[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])[ \t]*$", re.MULTILINE)
_HEADINGS = ("MIG Mode", "PCIe Generation", "Link Width", "FB Memory Usage", "Fabric")
_FACTS = {
    ("", "Product Name"): "model",
    ("", "GPU UUID"): "uuid",
    ("", "Performance State"): "performance_state",
    ("", "GPU C2C Mode"): "c2c",
    ("", "Virtualization Mode"): "virtualization",
    ("MIG Mode", "Current"): "multi_instance",
    ("PCIe Generation", "Max"): "pcie_generation_possible",
    ("PCIe Generation", "Current"): "pcie_generation",
    ("PCIe Generation", "Device Max"): "pcie_generation_gpu",
    ("Link Width", "Max"): "pcie_width_possible",
    ("Link Width", "Current"): "pcie_width",
    ("FB Memory Usage", "Total"): "memory",
    ("FB Memory Usage", "Used"): "memory_used",
    ("FB Memory Usage", "Free"): "memory_free",
    ("Fabric", "State"): "fabric",
    ("Fabric", "Status"): "fabric_status",
    ("Fabric", "CliqueId"): "fabric_clique",
    ("Fabric", "ClusterUUID"): "fabric_cluster",
}
_HOST = {
    "Driver Version": "driver",
    "KMD Version": "driver",
    "CUDA Version": "cuda",
    "CUDA UMD Version": "cuda",
    "Attached GPUs": "attached",
}
_BELOW = frozenset(fact for heading, fact in _FACTS if heading)
# "Device Current" and "Host Max" are keys of their own, or their last word would be taken for the line of both.
_KEYS = sorted({key for _, key in _FACTS} | set(_HOST) | {"Device Current", "Host Max"}, key=len, reverse=True)
_LINE = re.compile(rf"(?:^|\s)({'|'.join(_KEYS)})\s*:\s(.{{0,120}})")
_HEADING = re.compile(rf"(?:^|\s)({'|'.join(_HEADINGS)})\s*$")
_OF_MEMORY = frozenset({"memory", "memory_used", "memory_free"})
_PASSED_THROUGH = frozenset({"pass-through", "vgpu", "vgpu guest"})


def _recognises(text: str) -> bool:
    return _GPU.search(text) is not None and any(words for _, _, words in _gpus(text, {}))


def _gpus(text: str, host: dict[str, str]) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Bus id, line and facts of each section; what stands above the first goes to ``host``."""
    words: dict[str, str] = {}
    bus_id: str | None = None
    start, heading = 0, ""
    for count, line in lines(text):
        if "GPU " in line and (found := _GPU.search(line)):
            if bus_id is not None:
                yield bus_id, start, words
            words, bus_id, start, heading = {}, found[1], count, ""
        elif " :" in line or ": " in line:
            if match := _LINE.search(line):
                _note(words if bus_id is not None else None, host, heading, match[1], match[2].strip())
        elif bus_id is not None and not line.isspace():
            known = _HEADING.search(line)
            heading = known[1] if known else ""
    if bus_id is not None:
        yield bus_id, start, words


def _note(words: dict[str, str] | None, host: dict[str, str], heading: str, key: str, value: str) -> None:
    if words is None:
        if key in _HOST:
            host.setdefault(_HOST[key], value)
        return
    fact = _FACTS.get((heading if key in _BELOW else "", key))
    if fact in _OF_MEMORY:
        words[fact] = value  # MIG devices list theirs first, the GPU's own comes last
    elif fact is not None:
        words.setdefault(fact, value)


def _read(text: str, source: str) -> Capture:
    host: dict[str, str] = {}
    gpus: dict[str, dict[str, str]] = {}
    for bus_id, line, words in _gpus(text, host):
        if words:
            known = gpus.setdefault(normal_bus_id(bus_id) or bus_id, {"bus_id": bus_id})
            gpus[normal_bus_id(bus_id) or bus_id] = {**words, **known}
            refuse_many(len(gpus), f"{source}, line {line}")
    if not gpus:
        raise BadInput("holds no section of a GPU", path=f"{source}, line 1", hint="run 'nvidia-smi -q' and pass its text")
    return Capture(
        source=source,
        format="nvidia-smi -q",
        gpus=tuple(sight(index, words) for index, words in enumerate(gpus.values())),
        host=HostFacts(driver=version(host.get("driver")), cuda=version(host.get("cuda"))),
        findings=(*lost(dict(enumerate(gpus.values()))), *_findings(gpus, host)),
    )


def _findings(gpus: dict[str, dict[str, str]], host: dict[str, str]) -> Iterator[Finding]:
    attached = number(host.get("attached"))
    if attached != len(gpus):
        told = f"{attached} GPUs are attached" if isinstance(attached, int) else "the number of GPUs is not in the paste"
        yield Finding(
            "index-by-order",
            f"{told}, {len(gpus)} are described; they were counted in their order",
            "pass the whole output of 'nvidia-smi -q'",
            "notice",
        )
    passed = [
        f"gpu{index}" for index, words in enumerate(gpus.values()) if words.get("virtualization", "").lower() in _PASSED_THROUGH
    ]
    if passed:
        yield Finding(
            "virtual-machine",
            f"{len(passed)} GPUs are handed to a virtual machine",
            "bandwidths between GPUs may be lower than on the bare machine",
            "notice",
            evidence="nvidia-smi -q: Virtualization Mode",
            devices=tuple(passed),
        )


READER = Reader("nvidia-smi -q", _recognises, _read)

"""What Linux tells of the host itself: processor, IOMMU, access control, virtual machine, container, fabric manager."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from planner.core.facts import HostFacts
from planner.core.unknown import Unknown
from planner.readers.host_files import FileTree, exists, names, text
from planner.readers.pci_config import redirects
from planner.readers.sysfs import DEVICES, config_of

_ARM_NAMES = {
    (0x41, 0xD0C): "Neoverse N1",
    (0x41, 0xD40): "Neoverse V1",
    (0x41, 0xD49): "Neoverse N2",
    (0x41, 0xD4F): "Neoverse V2",  # NVIDIA Grace
    (0x41, 0xD84): "Neoverse V3",
    (0x41, 0xD8E): "Neoverse N3",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
}
"""Implementer and part → name. Source: Linux ``arch/arm64/include/asm/cputype.h``."""
_CONTAINERS = {"kubepods": "kubernetes", "docker": "docker", "containerd": "containerd", "libpod": "podman", "lxc": "lxc"}
_HYPERVISORS = ("QEMU", "KVM", "Amazon EC2", "Google", "VMware", "Xen", "OpenStack", "Alibaba", "Tencent", "Virtual Machine")
"""What firmware calls a virtual machine, by maker or product. ARM processors do not tell a guest that it is one."""
_FABRIC_MANAGER = "nv-fabricmanager"[:15]
"""As ``/proc/*/comm`` has it: cut at 15 characters."""
_NEEDS_ROOT = "needs root: the ports' access control registers are behind what an ordinary user may read"


def hostname(files: FileTree) -> str | None:
    """The name the host gives itself."""
    name = text(files, "/proc/sys/kernel/hostname")
    return None if isinstance(name, Unknown) else name or None


def read_host(files: FileTree, environment: Collection[str], chains: Sequence[Sequence[str]]) -> HostFacts:
    """The facts of the host that files tell.

    ``environment`` has the names of the environment's variables, ``chains`` the PCI functions from the root down to each
    GPU. Never raises: what cannot be read is unknown, with the reason.
    """
    facts = _processor(files)
    virtual_machine = _virtual_machine(files)
    container = _container(files, environment)
    return replace(
        facts,
        iommu=_iommu(files, [chain[-1] for chain in chains if chain]),
        acs=_acs(files, chains, virtual_machine),
        virtual_machine=virtual_machine,
        container=container,
        fabric_manager=_fabric_manager(files, container),
    )


def _first_processor(files: FileTree) -> dict[str, str] | Unknown:
    said = text(files, "/proc/cpuinfo")
    if isinstance(said, Unknown):
        return said
    lines = (line.partition(":") for line in said.split("\n\n")[0].split("\n"))
    return {key.strip(): value.strip() for key, _, value in lines if value}


def _processor(files: FileTree) -> HostFacts:
    """The processor by the words of ``/proc/cpuinfo``."""
    keys = _first_processor(files)
    if isinstance(keys, Unknown):
        return HostFacts(cpu_name=keys, cpu_vendor=keys, cpu_family=keys, cpu_model=keys)
    if "CPU implementer" in keys:
        implementer, part = _number(keys, "CPU implementer"), _number(keys, "CPU part")
        name = Unknown(f"/proc/cpuinfo: part {keys.get('CPU part')} of implementer {keys['CPU implementer']} has no name here")
        return HostFacts(
            cpu_name=name
            if isinstance(implementer, Unknown) or isinstance(part, Unknown)
            else _ARM_NAMES.get((implementer, part), name),
            cpu_vendor="ARM",
            cpu_family=_number(keys, "CPU architecture"),
            cpu_model=part,
        )
    return HostFacts(
        cpu_name=_word(keys, "model name"),
        cpu_vendor=_word(keys, "vendor_id"),
        cpu_family=_number(keys, "cpu family"),
        cpu_model=_number(keys, "model"),
    )


def _word(keys: Mapping[str, str], key: str) -> str | Unknown:
    return " ".join(keys[key].split()) if key in keys else Unknown(f"/proc/cpuinfo: no {key!r}")


def _number(keys: Mapping[str, str], key: str) -> int | Unknown:
    word = keys.get(key, "")
    if not re.fullmatch(r"0x[0-9a-f]{1,8}|[0-9]{1,8}", word):
        return Unknown(f"/proc/cpuinfo: no {key!r}")
    return int(word, 0)


def _iommu(files: FileTree, gpus: Sequence[str]) -> Literal["off", "passthrough", "translating"] | Unknown:
    """By the groups the GPUs are in, else by any group, else by what the kernel was started with."""
    units = names(files, "/sys/class/iommu")
    groups = names(files, "/sys/kernel/iommu_groups")
    if not isinstance(units, Unknown) and not units and (isinstance(groups, Unknown) or not groups):
        return "off"
    paths = [f"{DEVICES}/{gpu}/iommu_group/type" for gpu in gpus]
    kinds = [kind for path in paths if not isinstance(kind := text(files, path), Unknown)]
    if not kinds and not isinstance(groups, Unknown):
        paths = [f"/sys/kernel/iommu_groups/{group}/type" for group in groups]
        kinds = [kind for path in paths if not isinstance(kind := text(files, path), Unknown)]
    if any(kind.startswith("DMA") for kind in kinds):
        return "translating"
    if "identity" in kinds:
        return "passthrough"
    line = text(files, "/proc/cmdline")
    if not isinstance(line, Unknown) and {"iommu=pt", "iommu.passthrough=1"} & set(line.split()):
        return "passthrough"
    if isinstance(units, Unknown):
        return units
    return Unknown("/sys/kernel/iommu_groups: no group tells its type")


def _acs(
    files: FileTree, chains: Sequence[Sequence[str]], virtual_machine: str | Unknown
) -> Literal["redirects", "direct"] | Unknown:
    """Whether a switch above a GPU sends up what it could turn around. A root port is where such traffic goes anyway."""
    if not any(chains):
        return Unknown("/sys: shows no PCIe way to a GPU")
    if isinstance(virtual_machine, str) and virtual_machine != "none":
        return Unknown("a virtual machine does not show the ports of its host")
    ports = dict.fromkeys(port for chain in chains for port in chain[1:-1])
    answers = [redirects(config_of(files, port)) for port in ports]
    if True in answers:
        return "redirects"
    return Unknown(_NEEDS_ROOT) if None in answers else "direct"


def _virtual_machine(files: FileTree) -> str | Unknown:
    """The maker that the firmware of a virtual machine names, ``none`` on bare metal.

    An x86 processor tells a guest that it is one (the flag ``hypervisor``); elsewhere the firmware's names have to do.
    """
    keys = _first_processor(files)
    maker, product = (text(files, f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    named = maker if not isinstance(maker, Unknown) and maker else text(files, "/sys/hypervisor/type")
    if not isinstance(keys, Unknown) and "flags" in keys:
        if "hypervisor" not in keys["flags"].split():
            return "none"
        return "unnamed" if isinstance(named, Unknown) or not named else named
    if isinstance(named, Unknown):
        return maker if isinstance(maker, Unknown) else Unknown("the firmware names no maker")
    model = "" if isinstance(product, Unknown) else product
    metal = model.endswith(".metal")  # an Amazon machine without hypervisor has Amazon's name all the same
    return named if not metal and any(word in f"{named} {model}" for word in _HYPERVISORS) else "none"


def _container(files: FileTree, environment: Collection[str]) -> str | Unknown:
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "kubernetes"
    for path, name in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman"), ("/.singularity.d", "apptainer")):
        if exists(files, path):
            return name
    manager = text(files, "/run/systemd/container")
    if not isinstance(manager, Unknown) and manager:
        return manager
    groups = text(files, "/proc/1/cgroup")
    if isinstance(groups, Unknown):
        return groups
    return next((name for word, name in _CONTAINERS.items() if word in groups), "none")


def _fabric_manager(files: FileTree, container: str | Unknown) -> str | Unknown:
    """``running`` or ``not running``, by the names of all processes."""
    processes = names(files, "/proc")
    if isinstance(processes, Unknown):
        return processes
    seen = (text(files, f"/proc/{process}/comm") for process in processes if process.isdigit())
    if _FABRIC_MANAGER in seen:
        return "running"
    if container != "none":
        return Unknown("a container does not show the processes of its host")
    if isinstance(text(files, "/proc/1/comm"), Unknown):
        return Unknown("/proc: the processes of other users are hidden")
    return "not running"

"""Fill in what the hardware implies: NVLink and PCIe bandwidths from data sheets, what transfers reach on each link.

A topology says which cables there are; the GPU's data sheet says what one carries. Every default is written into
the origin's assumptions, so that it stays visible in every answer that leans on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.core.hardware import GpuSpec, LinkRates
from planner.core.topology import Device, DeviceKind, Link, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.units import BytesPerSecond

DEFAULT_LANES = 16


def equip(topology: Topology, specs: Mapping[str, GpuSpec], rates: LinkRates) -> Topology:
    """``topology`` with a bandwidth and an achieved rate on every link; ``specs`` holds the GPU models by name.

    Every GPU of the topology must be named. A link that already states a bandwidth keeps it.
    """
    links, assumptions = [], dict.fromkeys(topology.origin.assumptions)
    hosts = []
    for host in topology.hosts:
        gpus = [specs[gpu.hardware or ""] for gpu in topology.gpus if gpu.host == host.name]
        barred = sorted({gpu.name for gpu in gpus if not gpu.pcie_peer_to_peer})
        if host.peer_to_peer == "unknown" and barred and len(gpus) > 1 and not host.peer_status:
            hosts.append(replace(host, peer_to_peer="disabled"))
            assumptions[f"no peer-to-peer over PCIe: the driver does not offer it on {', '.join(barred)}"] = None
        else:
            hosts.append(host)
    fill = _Fill(topology, specs, rates)
    for link in topology.links:
        filled, assumption = fill(link)
        links.append(filled if link.measured is None else replace(filled, achieved=link.measured))
        if assumption and link.measured is None:
            assumptions[assumption] = None
    origin = replace(topology.origin, assumptions=tuple(assumptions))
    return replace(topology, hosts=tuple(hosts), links=tuple(links), origin=origin)


class _Fill:
    def __init__(self, topology: Topology, specs: Mapping[str, GpuSpec], rates: LinkRates) -> None:
        self._topology = topology
        self._specs = specs
        self._rates = rates

    def __call__(self, link: Link) -> tuple[Link, str]:
        if link.kind is LinkKind.PCIE:
            return self._pcie(link)
        if link.kind in {LinkKind.NVLINK, LinkKind.XGMI}:
            return self._peer(link)
        if link.kind is LinkKind.C2C:
            return self._c2c(link)
        if link.kind is LinkKind.SOCKET:
            return self._socket(link)
        return self._scaled(link, self._rates.network_efficiency), ""

    def _gpus(self, devices: list[Device]) -> list[GpuSpec]:
        return [self._specs[device.hardware or ""] for device in devices if device.kind is DeviceKind.GPU]

    def _ends(self, link: Link) -> list[Device]:
        return [self._topology.by_id[link.a], self._topology.by_id[link.b]]

    def _host_gpus(self, link: Link) -> list[GpuSpec]:
        hosts = {device.host for device in self._ends(link)}
        return self._gpus([gpu for gpu in self._topology.gpus if gpu.host in hosts])

    @staticmethod
    def _scaled(link: Link, efficiency: float) -> Link:
        if isinstance(link.bandwidth, Unknown):
            return link
        share = 1.0 if link.basis == "achieved" else efficiency
        return replace(link, achieved=BytesPerSecond(link.bandwidth * share))

    def _pcie(self, link: Link) -> tuple[Link, str]:
        ends = self._gpus(self._ends(link))
        generation = link.generation or max(gpu.pcie_generation for gpu in ends or self._host_gpus(link))
        lanes = link.count or (ends[0].pcie_lanes if ends else DEFAULT_LANES)
        bridge = {DeviceKind.HOST_BRIDGE, DeviceKind.SOCKET} == {device.kind for device in self._ends(link)}
        assumed = link.generation is None and link.count is None and isinstance(link.bandwidth, Unknown)
        peak = self._rates.pcie_lane_peak[generation]
        if isinstance(link.bandwidth, Unknown):
            slots = self._slots(link) if bridge and link.count is None else 1
            link = replace(link, bandwidth=BytesPerSecond(slots * lanes * peak))
        note = (
            "PCIe slots at the cards' full generation and width, switch uplinks x16 of the same generation, "
            "a host bridge carries all its slots at full rate"
        )
        efficiency = self._rates.pcie_lane_achieved[generation] / peak
        link = replace(link, generation=generation, count=link.count or (None if bridge else lanes))
        return self._scaled(link, efficiency), note if assumed else ""

    def _slots(self, link: Link) -> int:
        """How many x16 slots hang below the host bridge of its link to the socket."""
        bridge = next(device.id for device in self._ends(link) if device.kind is DeviceKind.HOST_BRIDGE)
        below = [other for other in self._topology.links if other.kind is LinkKind.PCIE and bridge in (other.a, other.b)]
        return max(1, len(below) - 1)

    def _peer(self, link: Link) -> tuple[Link, str]:
        gpus = self._gpus(self._ends(link))
        known = [gpu for gpu in gpus if gpu.peer_links]
        if link.kind is LinkKind.XGMI:
            per_link = min((gpu.peer_links.bandwidth_per_link for gpu in known if gpu.peer_links), default=None)
            reached = None if per_link is None else BytesPerSecond(per_link * self._rates.xgmi_efficiency)
        else:
            per_link = min((gpu.peer_links.bandwidth_per_link for gpu in known if gpu.peer_links), default=None)
            reached = min(self._rates.nvlink_link(gpu.compute_capability) for gpu in known) if known else None
        note = ""
        if per_link is None or reached is None:
            per_link = reached = self._rates.nvlink_unknown
            names = ", ".join(sorted({gpu.name for gpu in gpus}))
            note = f"{names} has no NVLink on its data sheet; each link counted as {per_link / 1e9:g} GB/s"
        count = link.count or min((gpu.peer_links.links for gpu in known if gpu.peer_links), default=1)
        if isinstance(link.bandwidth, Unknown):
            link = replace(link, bandwidth=BytesPerSecond(count * per_link))
        return self._scaled(replace(link, count=count), reached / per_link), note

    def _c2c(self, link: Link) -> tuple[Link, str]:
        if isinstance(link.bandwidth, Unknown):
            rates = [gpu.c2c_bandwidth for gpu in self._gpus(self._ends(link)) if gpu.c2c_bandwidth is not None]
            if not rates:
                rate = self._rates.pcie_lane_achieved[5] * DEFAULT_LANES
                note = f"C2C link {link.name} counted as PCIe 5 x16: the GPU's data sheet says nothing of C2C"
                return replace(link, bandwidth=BytesPerSecond(rate), basis="achieved", achieved=BytesPerSecond(rate)), note
            link = replace(link, bandwidth=min(rates))
        return self._scaled(link, self._rates.c2c_efficiency), ""

    def _socket(self, link: Link) -> tuple[Link, str]:
        if not isinstance(link.bandwidth, Unknown):
            return self._scaled(link, 1.0), ""
        facts = self._topology.host(self._ends(link)[0].host).facts
        if not isinstance(facts.cpu_vendor, Unknown):
            family = 0 if isinstance(facts.cpu_family, Unknown) else facts.cpu_family
            model = 0 if isinstance(facts.cpu_model, Unknown) else facts.cpu_model
            by_cpu = self._rates.socket(facts.cpu_vendor, family, model)
            if by_cpu is not None:
                return replace(link, bandwidth=by_cpu, basis="achieved", achieved=by_cpu), ""
        generation = max(gpu.pcie_generation for gpu in self._host_gpus(link))
        rate = self._rates.socket_by_pcie_generation.get(generation, min(self._rates.socket_by_pcie_generation.values()))
        note = f"socket interconnect {rate / 1e9:g} GB/s one way: the CPU is not known, usual with PCIe {generation}"
        return replace(link, bandwidth=rate, basis="achieved", achieved=rate), note

"""One host as the families of findings ask it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from planner.core.hardware import GpuSpec, LinkRates
from planner.core.topology import PEER_LINKS, TREE_LINKS, Device, DeviceKind, Host, Link, Topology
from planner.core.unknown import Unknown
from planner.graph.equip import equip
from planner.graph.paths import DirectedLink, PathKind, Paths
from planner.units import BytesPerSecond

NEVER = frozenset({"none", ""})
"""Words for no hypervisor, no container."""


@dataclass(frozen=True)
class View:
    """A host of ``topology``.

    ``paths`` are those of the equipped topology where ``priced``, whose links have rates; its links are numbered as
    those of ``topology``, which hold only what was seen or stated.
    """

    topology: Topology
    host: Host
    specs: Mapping[str, GpuSpec]
    rates: LinkRates
    paths: Paths
    priced: bool

    @cached_property
    def gpus(self) -> tuple[Device, ...]:
        """The host's GPUs by index."""
        return tuple(self.topology.gpus[gpu] for gpu in self.topology.gpus_of_host[self.host.name])

    @cached_property
    def pairs(self) -> tuple[tuple[Device, Device], ...]:
        """All pairs of GPUs with no NVLink or Infinity Fabric between them."""
        return tuple((a, b) for a, b in combinations(self.gpus, 2) if self.paths.nvlink(a.id, b.id) is None)

    @property
    def virtual(self) -> bool:
        """Whether the host is known to be a virtual machine."""
        name = self.host.facts.virtual_machine
        return not isinstance(name, Unknown) and name.lower() not in NEVER

    @property
    def nvidia(self) -> bool:
        """Whether NVIDIA's tools are there to be named in a remedy: unless all GPUs are known to be of other vendors."""
        known = [spec for gpu in self.gpus if (spec := self.spec(gpu)) is not None]
        return not known or any(spec.vendor == "NVIDIA" for spec in known)

    @property
    def seen(self) -> bool:
        """Whether a machine was looked at, rather than written down."""
        return self.topology.origin.kind in {"probed", "capture"}

    def spec(self, gpu: Device) -> GpuSpec | None:
        """The GPU's data sheet, where there is one."""
        return self.specs.get(gpu.hardware or "")

    def above(self, device: str) -> Link | None:
        """The link, as seen or stated, from a device up the PCIe tree."""
        chain = self.paths.ancestors(device)
        if len(chain) < 2:
            return None
        ((number, _),) = self.paths.up(device, chain[1])
        return self.topology.links[number]

    @cached_property
    def tree(self) -> tuple[Link, ...]:
        """The host's PCIe and C2C links, as seen or stated."""
        return tuple(one for one in self.topology.links if one.kind in TREE_LINKS and self._mine(one))

    @cached_property
    def peer_links(self) -> tuple[Link, ...]:
        """The NVLinks and Infinity Fabric links with an end at one of the host's GPUs."""
        return tuple(one for one in self.topology.links if one.kind in PEER_LINKS and self._mine(one))

    def _mine(self, link: Link) -> bool:
        return any(self.topology.by_id[end].host == self.host.name for end in (link.a, link.b))

    @cached_property
    def ports(self) -> dict[str, Link]:
        """The link to its NVSwitch of every GPU that hangs from one."""
        found = {}
        for link in self.peer_links:
            a, b = self.topology.by_id[link.a], self.topology.by_id[link.b]
            for gpu, other in ((a, b), (b, a)):
                if gpu.host == self.host.name and other.kind is DeviceKind.NVSWITCH:
                    found[gpu.id] = link
        return found

    @cached_property
    def direct(self) -> tuple[Link, ...]:
        """The peer links that join two of the host's GPUs with no switch."""
        own = {gpu.id for gpu in self.gpus}
        return tuple(link for link in self.peer_links if {link.a, link.b} <= own)

    def rate(self, links: Sequence[DirectedLink]) -> BytesPerSecond | None:
        """What a copy over these links achieves, one that crosses a link twice at half its rate; ``None`` if not known."""
        if not self.priced or not links:
            return None
        uses = Counter(links)
        rates = [self.paths.topology.links[number].achieved for number, _ in links]
        known = [rate / uses[link] for rate, link in zip(rates, links, strict=True) if rate is not None]
        return BytesPerSecond(min(known)) if len(known) == len(links) else None

    def lanes(self, count: int, generation: int | None) -> BytesPerSecond | None:
        """What so many PCIe lanes of a generation achieve in one direction."""
        lane = self.rates.pcie_lane_achieved.get(generation or 0)
        return None if lane is None else BytesPerSecond(count * lane)

    def near(self, a: Device, b: Device) -> bool:
        """Whether two devices meet under a PCIe switch, below the host bridge."""
        return self.paths.pcie_kind(a.id, b.id) <= PathKind.PXB


def views(topology: Topology, specs: Mapping[str, GpuSpec], rates: LinkRates) -> Iterator[View]:
    """The hosts that have GPUs."""
    priced = all(gpu.hardware in specs for gpu in topology.gpus)
    paths = Paths(equip(topology, specs, rates) if priced else topology)
    for host in topology.hosts:
        if topology.gpus_of_host[host.name]:
            yield View(topology, host, specs, rates, paths, priced)


def listed(gpus: Sequence[Device]) -> str:
    """GPUs as people list them; three and more in a row as a range.

    >>> listed([Device(f"gpu{n}", DeviceKind.GPU, index=n) for n in (0, 1, 2, 5)])
    'GPU0-2, GPU5'
    """
    runs: list[list[int]] = []
    for index in sorted(gpu.index or 0 for gpu in gpus):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    words = []
    for run in runs:
        words += [f"GPU{run[0]}-{run[-1]}"] if len(run) > 2 else [f"GPU{index}" for index in run]
    return ", ".join(words)


def ids(gpus: Sequence[Device]) -> tuple[str, ...]:
    """Their ids."""
    return tuple(gpu.id for gpu in gpus)


def per_second(rate: float) -> str:
    """A bandwidth with three digits.

    >>> per_second(370.8e9)
    '371 GB/s'
    """
    return f"{rate / 1e9:.3g} GB/s"


def instead(now: float | None, could: float | None) -> str:
    """Both rates as a sentence's end, empty where either is not known.

    >>> instead(12e9, 24e9)
    '12 GB/s instead of 24 GB/s'
    """
    return "" if now is None or could is None else f"{per_second(now)} instead of {per_second(could)}"


def gibibytes(size: float) -> str:
    """An amount of memory.

    >>> gibibytes(3.2 * 2**30)
    '3.2 GiB'
    """
    return f"{size / 2**30:.1f} GiB"

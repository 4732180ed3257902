"""One machine, one model, one workload, one engine: everything a plan is priced with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from planner.core.engine import EngineTraits
from planner.core.estimate import Estimate
from planner.core.hardware import GpuSpec
from planner.core.model import ModelSpec
from planner.core.plan import EngineLimits, Infeasible, Parallelism, Placement
from planner.core.topology import PEER_LINKS, Topology
from planner.core.workload import Load, Workload
from planner.cost.calibration import Calibration
from planner.cost.collectives import Collectives
from planner.cost.interconnect import Interconnect
from planner.cost.measured_here import MeasuredHere
from planner.cost.placed import Placed
from planner.cost.strategy import Strategy, price_strategy
from planner.cost.traffic import Traffic
from planner.units import Bytes, BytesPerSecond, FlopPerSecond


def weakest(specs: Iterable[GpuSpec]) -> GpuSpec:
    """The GPU that is as slow and small as the slowest and smallest of ``specs`` in every respect."""
    several = list(specs)
    first = several[0]
    if len(several) == 1:
        return first
    dtypes = [dtype for dtype in first.compute if all(dtype in spec.compute for spec in several)]
    capabilities = [spec.compute_capability for spec in several if spec.compute_capability is not None]
    return replace(
        first,
        name=" + ".join(dict.fromkeys(spec.name for spec in several)),
        compute_capability=min(capabilities, default=None),
        memory=Bytes(min(spec.memory for spec in several)),
        memory_bandwidth=BytesPerSecond(min(spec.memory_bandwidth for spec in several)),
        compute={dtype: FlopPerSecond(min(spec.rate(dtype) for spec in several)) for dtype in dtypes or ["fp16"]},
    )


@dataclass(frozen=True)
class Pricer:
    """Prices strategies and placements. Mixed GPUs: every rank is sized and timed as the weakest GPU of the plan."""

    topology: Topology
    specs: Mapping[str, GpuSpec]
    model: ModelSpec
    workload: Workload
    traits: EngineTraits
    calibration: Calibration

    def at(self, concurrency: int, load: Load | None = None) -> Pricer:
        """The same with so many requests in flight, and what it knows of the machine."""
        return self.under(replace(self.workload, concurrency=concurrency, load=load or self.workload.load))

    def under(self, workload: Workload) -> Pricer:
        """The same for another workload, and what it knows of the machine."""
        other = replace(self, workload=workload)
        vars(other).update({name: getattr(self, name) for name in ("wires", "collectives", "traffic", "has_nvlink")})
        return other

    @cached_property
    def wires(self) -> Interconnect:
        """Paths and groups of the topology."""
        return Interconnect(self.topology, self.specs)

    @cached_property
    def collectives(self) -> Collectives:
        """The engine's collectives."""
        return Collectives(self.calibration, self.traits, MeasuredHere(self.wires))

    @cached_property
    def traffic(self) -> Traffic:
        """What groups and sends put on the links of the topology."""
        return Traffic(self.wires, self.calibration.point_to_point)

    @cached_property
    def has_nvlink(self) -> bool:
        """Whether any two GPUs of the machine have NVLink."""
        return any(link.kind in PEER_LINKS for link in self.topology.links)

    def gpu_memory(self, gpu: int) -> Bytes:
        """Memory of one GPU: what was probed, else the data sheet's."""
        return self.topology.gpus[gpu].memory or self.wires.spec(gpu).memory

    def weakest_of(self, gpus: Iterable[int]) -> tuple[GpuSpec, Bytes]:
        """Data sheet and memory that every rank of a plan on these GPUs is priced with."""
        several = sorted(set(gpus))
        names = dict.fromkeys(self.topology.gpus[gpu].hardware or "" for gpu in several)
        return weakest(self.specs[name] for name in names), Bytes(min(self.gpu_memory(gpu) for gpu in several))

    def strategy(
        self, parallelism: Parallelism, partition: tuple[int, ...], limits: EngineLimits, gpus: Iterable[int]
    ) -> Strategy | Infeasible:
        """The strategy on (some of) these GPUs, before placement."""
        spec, capacity = self.weakest_of(gpus)
        return price_strategy(
            self.model,
            self.workload,
            parallelism,
            partition,
            limits,
            spec,
            capacity,
            self.traits,
            self.calibration,
            nvlink=self.has_nvlink,
        )

    def placed(self, strategy: Strategy) -> Placed:
        """A pricer of placements of ``strategy``."""
        return Placed(strategy, self.traffic, self.collectives)

    def estimate(
        self, parallelism: Parallelism, partition: tuple[int, ...], limits: EngineLimits, placement: Placement
    ) -> Estimate | Infeasible:
        """What one fully placed plan costs."""
        used = [gpu for replica in placement for group in replica for gpu in group]
        strategy = self.strategy(parallelism, partition, limits, used)
        return strategy if isinstance(strategy, Infeasible) else self.placed(strategy).estimate(placement)

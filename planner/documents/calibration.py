"""``data/calibration/*.yaml`` → :class:`planner.cost.calibration.Calibration`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field

from planner.cost.calibration import (
    Anchor,
    AttentionFit,
    Calibration,
    CustomAllReduceFit,
    KernelFit,
    NcclFactors,
    OperationFit,
    OverheadFit,
    PointToPointFit,
    TtftFit,
    UncertaintyFit,
)
from planner.documents import strict_yaml
from planner.documents.base import Document, validate
from planner.documents.files import DATA
from planner.documents.hardware import load_gpu
from planner.errors import BadInput
from planner.units import Bytes, Flop, Seconds, parse_time

Time = Annotated[float, BeforeValidator(lambda value: float(parse_time(value)))]
Share = Annotated[float, Field(gt=0, le=1)]
AnyDocument = TypeVar("AnyDocument", bound=Document)


class Roofline(Document):
    """One weight format."""

    launch: Time
    memory: Share
    compute: Share
    sharpness: float = Field(gt=0)
    loop: Time = 0.0
    traffic: float = Field(default=0.0, ge=0)
    fill: float = Field(default=0.0, ge=0)
    rows: int
    systems: int
    left_out_error: float | None
    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)


class Straight(Document):
    """One phase of attention."""

    launch: Time
    efficiency: Share
    context: Time = 0.0
    elements: Time = 0.0
    short: float = Field(default=0.0, ge=0)
    steepness: float = Field(default=0.0, ge=0)
    last: float = Field(default=0.0, ge=0)
    rows: int
    systems: int
    left_out_error: float | None
    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)


class SendsDocument(Straight):
    """One exchange of experts' tokens: an efficiency above 1 says that fewer bytes travel than 16-bit tokens would."""

    efficiency: float = Field(gt=0)


class KernelsDocument(Document):
    """``kernels.yaml``."""

    schema_version: int
    fitted: str
    source: str
    popularity: float = Field(ge=0)
    gemm: dict[str, Roofline]
    moe: dict[str, Roofline]
    attention: dict[str, Straight]
    exchanges: dict[str, SendsDocument] = {}


class AnchorDocument(Document):
    """Measured all-reduces of one stack on one machine."""

    system: str
    gpu: str
    stack: str
    versions: list[str] = Field(min_length=1)
    ranks: int
    bytes: list[int]
    microseconds: list[float]


class FactorsDocument(Document):
    """NCCL's model against measurement, one GPU generation."""

    factors: list[float] = Field(min_length=3, max_length=3)
    rows: int
    error: float


class OperationDocument(Document):
    """One operation on one generation: measured over modelled time by number of ranks, at the sizes of the document."""

    factors: dict[str, list[Annotated[float, Field(gt=0)]]] = Field(min_length=1)
    rows: int
    error: float
    left_out_error: float | None


class CustomDocument(Document):
    """An engine's own kernel by its wire time."""

    floor: Time
    second_barrier: Time
    efficiency: Share
    rows: int
    error: float


class IntervalDocument(Document):
    """Measured over predicted: where nine of ten rows of machines lay that were left out of the fit."""

    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)
    rows: int
    systems: int


class CollectivesDocument(Document):
    """``collectives.yaml``."""

    schema_version: int
    fitted: str
    source: str
    nccl_factors: dict[str, FactorsDocument]
    operation_sizes: list[int] = Field(min_length=1)
    operations: dict[str, dict[str, OperationDocument]]
    eager_floors: dict[str, dict[str, Time]]
    eager_source: str
    kernels: dict[str, CustomDocument]
    intervals: dict[str, IntervalDocument]
    intervals_source: str
    all_reduce_anchors: list[AnchorDocument]


class PointToPointDocument(Document):
    """Sends by kind of path."""

    nvlink: Time
    pcie: Time
    staged: Time
    network: Time
    source: str
    nvlink_efficiency: Share
    pcie_efficiency: Share
    network_efficiency: Share
    efficiency_source: str


class TtftDocument(Document):
    """Time to first token around the prefill, one engine, or older releases of it."""

    runs: int
    base: Time
    latent: Time
    prefill_factor: float = Field(gt=0)
    queue_share: float = Field(ge=0)
    decode_factor: float = Field(ge=0)


class MoeDocument(Document):
    """Routing."""

    imbalance_factor: float
    source: str


class UncertaintyDocument(Document):
    """What widens error bars."""

    pipeline: float
    unmeasured_links: float
    modelled_links: float
    source: str


class OverheadDocument(Document):
    """What an engine adds to its kernels."""

    small_kernel: Time
    step: Time
    sequence: Time
    interference: float = Field(ge=1)


class EngineDocument(Document):
    """What is fitted of one engine."""

    runs: int
    overhead: OverheadDocument


class BarDocument(Document):
    """Measured over predicted: between which ratios nine of ten runs of most groups lay, their model left out of the fit."""

    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)
    runs: int
    groups: int


class VendorDocument(BarDocument):
    """GPUs whose kernels were not timed: ``time`` is how many times as long published runs took as NVIDIA's constants say."""

    time: float = Field(gt=0)


class BarsDocument(Document):
    """Error bars: of TPOT by kind of model, of TTFT by engine, of output tokens a second by load and by vendor."""

    tpot: dict[str, BarDocument]
    ttft: dict[str, BarDocument]
    rates: dict[str, BarDocument]
    vendors: dict[str, VendorDocument]


class EnginesDocument(Document):
    """``engines.yaml``."""

    schema_version: int
    fitted: str
    source: str
    engines: dict[str, EngineDocument]
    first_token: dict[str, TtftDocument]
    uncertainty: BarsDocument


class ServingDocument(Document):
    """``serving.yaml``."""

    schema_version: int
    point_to_point: PointToPointDocument
    moe: MoeDocument
    uncertainty: UncertaintyDocument


def _load(model: type[AnyDocument], name: str) -> AnyDocument:
    path = DATA / "calibration" / name
    return validate(model, strict_yaml.load(path.read_text("utf-8"), name), name)


@cache
def load_calibration() -> Calibration:
    """The constants that ship with the package."""
    kernels = _load(KernelsDocument, "kernels.yaml")
    collectives = _load(CollectivesDocument, "collectives.yaml")
    serving = _load(ServingDocument, "serving.yaml")
    fitted = _load(EnginesDocument, "engines.yaml")
    return Calibration(
        gemm={name: _kernel(item) for name, item in kernels.gemm.items()},
        moe={name: _kernel(item) for name, item in kernels.moe.items()},
        popularity=kernels.popularity,
        attention={name: _straight(item) for name, item in kernels.attention.items()},
        exchanges={name: _straight(item) for name, item in kernels.exchanges.items()},
        anchors=tuple(_anchor(item) for item in collectives.all_reduce_anchors),
        nccl={
            name: NcclFactors((item.factors[0], item.factors[1], item.factors[2]), item.error)
            for name, item in collectives.nccl_factors.items()
        },
        operations={
            name: {generation: _operation(item, collectives.operation_sizes) for generation, item in fits.items()}
            for name, fits in collectives.operations.items()
        },
        eager_floors={
            who: {name: Seconds(floor) for name, floor in floors.items()} for who, floors in collectives.eager_floors.items()
        },
        intervals={name: (item.low, item.high) for name, item in collectives.intervals.items()},
        custom_all_reduce={
            stack: CustomAllReduceFit(Seconds(item.floor), Seconds(item.second_barrier), item.efficiency)
            for stack, item in collectives.kernels.items()
        },
        point_to_point=PointToPointFit(
            nvlink=Seconds(serving.point_to_point.nvlink),
            pcie=Seconds(serving.point_to_point.pcie),
            staged=Seconds(serving.point_to_point.staged),
            network=Seconds(serving.point_to_point.network),
            nvlink_efficiency=serving.point_to_point.nvlink_efficiency,
            pcie_efficiency=serving.point_to_point.pcie_efficiency,
            network_efficiency=serving.point_to_point.network_efficiency,
        ),
        overheads={
            name: OverheadFit(
                Seconds(one.overhead.small_kernel),
                Seconds(one.overhead.step),
                Seconds(one.overhead.sequence),
                name,
                one.overhead.interference,
            )
            for name, one in fitted.engines.items()
        },
        ttft={
            name: TtftFit(Seconds(one.base), one.prefill_factor, one.queue_share, one.decode_factor, Seconds(one.latent))
            for name, one in fitted.first_token.items()
        },
        slower={name: one.time for name, one in fitted.uncertainty.vendors.items()},
        moe_imbalance_factor=serving.moe.imbalance_factor,
        uncertainty=UncertaintyFit(
            tpot=_bars(fitted.uncertainty.tpot),
            ttft=_bars(fitted.uncertainty.ttft),
            rates=_bars(fitted.uncertainty.rates),
            vendors=_bars(fitted.uncertainty.vendors),
            pipeline=serving.uncertainty.pipeline,
            unmeasured_links=serving.uncertainty.unmeasured_links,
            modelled_links=serving.uncertainty.modelled_links,
        ),
    )


def _kernel(item: Roofline) -> KernelFit:
    return KernelFit(
        Seconds(item.launch),
        item.memory,
        item.compute,
        item.left_out_error,
        item.sharpness,
        Seconds(item.loop),
        item.traffic,
        Flop(item.fill * 1e9),
        (item.low, item.high),
    )


def _operation(item: OperationDocument, sizes: list[int]) -> OperationFit:
    if any(len(factors) != len(sizes) for factors in item.factors.values()):
        raise BadInput(f"expected {len(sizes)} factors for every number of ranks", path="collectives.yaml")
    factors = {int(ranks): tuple(row) for ranks, row in item.factors.items()}
    return OperationFit(tuple(Bytes(size) for size in sizes), factors, item.error)


def _straight(item: Straight) -> AttentionFit:
    return AttentionFit(
        Seconds(item.launch),
        item.efficiency,
        item.left_out_error,
        Seconds(item.context),
        Seconds(item.elements),
        item.short,
        item.steepness,
        item.last,
        (item.low, item.high),
    )


def _anchor(item: AnchorDocument) -> Anchor:
    points = tuple((Bytes(size), Seconds(time * 1e-6)) for size, time in zip(item.bytes, item.microseconds, strict=True))
    gpu = load_gpu(item.gpu)
    if gpu.peer_links is None or gpu.compute_capability is None:
        raise BadInput(f"{item.gpu} has no NVLink, so no anchor", path="collectives.yaml")
    return Anchor(
        item.system,
        item.gpu,
        gpu.compute_capability,
        gpu.peer_links.bandwidth,
        item.stack,
        tuple(item.versions),
        item.ranks,
        points,
    )


def _bars(items: Mapping[str, BarDocument]) -> dict[str, tuple[float, float]]:
    return {name: (item.low, item.high) for name, item in items.items()}

"""What the tables of rocm-smi say of each pair of GPUs: Infinity Fabric or PCIe, how far, how many links.

How the numbers come about (Linux ``drivers/gpu/drm/amd/amdkfd/kfd_crat.c``; amd-smi's documentation since ROCm 7): a *weight*
is 15 for every Infinity Fabric step between two GPUs, so 30 leads over a third; over PCIe it is 20 from a GPU to its CPU, the
distance of the CPUs' NUMA nodes (10 to 32) where they differ, and 20 down again. *Hops* are 1 over Infinity Fabric however
many steps it takes, 2 over one CPU, 3 over two. Nothing tells host bridges or PCIe switches apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.core.finding import Finding

STEP = 15
"""Weight of one Infinity Fabric step."""
ONE_CPU = 40
"""Weight of the way over one CPU."""
_AMBIGUOUS = 60  # four steps, or two CPUs at a distance of 20
_SILENT = frozenset({"N/A", "0", "-", "XXXX", "UNKNOWN", "NOT_APPLICABLE"})

Cells = Mapping[tuple[int, int], str]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two GPUs that Infinity Fabric joins directly, by ``count`` links."""

    a: int
    b: int
    count: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """``classes`` are ``NODE`` (one NUMA node; its host bridges are not told) or ``SYS``, by ordered pair."""

    links: tuple[Pair, ...]
    classes: Mapping[tuple[int, int], str]
    findings: tuple[Finding, ...]
    assumptions: tuple[str, ...]


def pairs_of(found: Mapping[str, Cells]) -> Pairs:
    """The pairs of all tables (``type``, ``weight``, ``hops``, ``bandwidth``)."""
    links: list[Pair] = []
    classes: dict[tuple[int, int], str] = {}
    over: list[tuple[int, int]] = []
    silent: list[tuple[int, int]] = []
    uneven: list[tuple[int, int]] = []
    counted = weighed = True
    everything: Cells = next(iter(found.values()), {})
    for a, b in sorted(pair for pair in everything if pair[0] < pair[1]):
        there, back = _Way(found, a, b), _Way(found, b, a)
        if there.kind != back.kind:
            uneven.append((a, b))
        kinds = {there.kind, back.kind}
        if "" in kinds:
            silent.append((a, b))
        elif "PCIE" in kinds:
            classes[a, b] = classes[b, a] = max(there.pcie_class, back.pcie_class)  # SYS after NODE
        elif (there.steps or 1) > 1 or (back.steps or 1) > 1:
            over.append((a, b))
        else:
            weighed = weighed and there.steps is not None
            counted = counted and there.count is not None and back.count is not None
            links.append(Pair(a, b, min(there.count or 1, back.count or 1)))
    assumptions = []
    if links and not counted:
        assumptions.append("rocm-smi does not say how many Infinity Fabric links join two GPUs: counted as one")
    if links and not weighed:
        assumptions.append("the text has no weights: every pair that it calls XGMI is taken as joined directly")
    if "type" not in found and everything:
        assumptions.append("the text has no link types: they are taken from hops and weights")
    return Pairs(
        tuple(links), {pair: word for pair, word in classes.items() if word}, _findings(over, silent, uneven), tuple(assumptions)
    )


class _Way:
    """One direction of a pair."""

    def __init__(self, found: Mapping[str, Cells], a: int, b: int) -> None:
        self._word = _cell(found, "type", a, b)
        self._hops = _number(_cell(found, "hops", a, b))
        self._weight = _number(_cell(found, "weight", a, b))
        self._bandwidth = _cell(found, "bandwidth", a, b)
        self._typed = "type" in found

    @property
    def kind(self) -> str:
        """``XGMI``, ``PCIE`` or, where the text does not tell, nothing."""
        if self._typed:
            return self._word if self._word in {"XGMI", "PCIE"} else ""
        if self._hops:
            return "XGMI" if self._hops == 1 else "PCIE"
        if not self._weight or self._weight == _AMBIGUOUS:
            return ""
        return "XGMI" if self._weight % STEP == 0 else "PCIE"

    @property
    def steps(self) -> int | None:
        """How many Infinity Fabric steps it takes."""
        return max(round(self._weight / STEP), 1) if self._weight else None

    @property
    def pcie_class(self) -> str:
        """``NODE``, ``SYS``, or nothing where neither hops nor weight tell."""
        if self._hops:
            return "SYS" if self._hops > 2 else "NODE"
        if self._weight:
            return "SYS" if self._weight > ONE_CPU else "NODE"
        return ""

    @property
    def count(self) -> int | None:
        """Links side by side: the driver gives the bandwidth of one and of all (``50000-100000``)."""
        low, _, high = self._bandwidth.partition("-")
        one, every = _number(low), _number(high)
        if not one or not every or every % one or every // one > 16:
            return None
        return every // one


def _cell(found: Mapping[str, Cells], question: str, a: int, b: int) -> str:
    word = found.get(question, {}).get((a, b), "")
    return "" if word in _SILENT else word


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _findings(over: list[tuple[int, int]], silent: list[tuple[int, int]], uneven: list[tuple[int, int]]) -> tuple[Finding, ...]:
    findings = []
    if over:
        findings.append(
            Finding(
                "xgmi-partial-mesh",
                f"Infinity Fabric joins {len(over)} pairs of GPUs only over a third GPU ({_some(over)})",
                "groups of GPUs that are joined directly are faster",
                severity="notice",
                evidence=f"a weight of {2 * STEP} or more; {STEP} is one step",
                cost="what they send takes links away from the GPUs between them; planned over PCIe",
                devices=_devices(over),
            )
        )
    if silent:
        findings.append(
            Finding(
                "link-type-unknown",
                f"rocm-smi does not say what joins {len(silent)} pairs of GPUs ({_some(silent)})",
                "virtual functions often hide it; run it on the host, or state the links in the topology",
                evidence="the cell is N/A, XXXX or empty",
                devices=_devices(silent),
            )
        )
    if uneven:
        findings.append(
            Finding(
                "asymmetric",
                f"not the same both ways: {_some(uneven)}",
                "the worse way was taken",
                devices=_devices(uneven),
            )
        )
    return tuple(findings)


def _some(pairs: list[tuple[int, int]]) -> str:
    return ", ".join(f"GPU{a}-GPU{b}" for a, b in pairs[:3]) + (" …" if len(pairs) > 3 else "")


def _devices(pairs: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    return tuple(f"gpu{index}" for index in sorted({end for pair in pairs for end in pair}))

"""``nvidia-smi nvlink -s``: which NVLinks of each GPU are up, and their speed; ``-R`` and ``-p``: where they end.

The speed is of one direction: 14.062 GB/s a link of an A6000, whose four links are 112.5 GB/s both ways together
(data sheet). A GPU whose links are all down has no line of its own; NVML says so on the error stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from planner.core.bus_id import BUS_ID_PATTERN, normal_bus_id
from planner.core.capture import Capture, GpuSight
from planner.core.facts import GpuFacts, NvlinkFacts
from planner.core.finding import Finding
from planner.core.unknown import NOT_STATED, Unknown
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.gpu_sections import ListedGpu, sections
from planner.readers.smi_words import model, refuse_many, uuid
from planner.units import BytesPerSecond

_WHOLE = "paste all lines of 'nvidia-smi nvlink -s'"
_HINTS = re.compile(
    rf"(?<!\w)Link[ \t]{{1,4}}[0-9]{{1,3}}:[ \t]{{0,8}}(?:[0-9.]{{1,12}} ?GB/s|<inactive>|Remote Device |{BUS_ID_PATTERN})"
    r"|all links are in[aA]ctive"
)
_SPEED = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,6})?) ?GB/s\b")
_INACTIVE = re.compile(r"<?inactive>?", re.IGNORECASE)
_REMOTE = re.compile(rf"(?:Remote Device )?({BUS_ID_PATTERN}|[0-9A-Fa-f]{{8}}\S{{0,20}})(?::? ?Link [0-9]{{1,10}})?")


@dataclass(slots=True)
class _Known:
    """What the sections of a text tell of one GPU. ``speeds`` in GB/s, 0 for a link that is down, by link."""

    model: str
    uuid: str | Unknown
    speeds: dict[int, float] | None = None
    remotes: dict[int, str | None] = field(default_factory=dict)
    elided: int | None = None
    inactive: bool = False
    line: int = 0


def _recognises(text: str) -> bool:
    return _HINTS.search(text) is not None and any(_tells(section) for section in sections(text))


def _tells(section: dict[int, ListedGpu]) -> bool:
    """Whether the section is a list of links: error counters, say, are none."""
    return any(gpu.inactive or any(_HINTS.match(f"Link 0: {words}") for _, words, _ in gpu.links) for gpu in section.values())


def _read(text: str, source: str) -> Capture:
    known: dict[int, _Known] = {}
    findings: list[Finding] = []
    for section in sections(text):
        if _tells(section):
            for gpu in section.values():
                one = known.get(gpu.index) or known.setdefault(gpu.index, _Known(gpu.model, uuid(gpu.uuid)))
                if isinstance(one.uuid, Unknown) and gpu.uuid is not None:
                    one.uuid = uuid(gpu.uuid)
                findings.extend(_note(one, gpu))
            refuse_many(len(known), source)
    if not known:
        raise BadInput("holds no list of NVLinks below a line 'GPU 0: …'", path=f"{source}, line 1", hint=_WHOLE)
    listed = any(one.speeds for one in known.values())
    for index, one in known.items():
        findings.extend(_findings(index, one, listed=listed))
    return Capture(
        source=source,
        format="nvidia-smi nvlink -s",
        gpus=tuple(
            GpuSight(index=index, model=model(one.model), facts=GpuFacts(uuid=one.uuid, nvlinks=_nvlinks(one)))
            for index, one in sorted(known.items())
        ),
        findings=tuple(dict.fromkeys(findings)),
    )


def _note(one: _Known, gpu: ListedGpu) -> Iterator[Finding]:
    """Take what one section tells of a GPU; yields a finding where an earlier one told otherwise."""
    speeds: dict[int, float] = {}
    remotes: dict[int, str | None] = {}
    for link, words, _ in gpu.links:
        if speed := _SPEED.match(words):
            speeds.setdefault(link, float(speed[1]))
        elif _INACTIVE.fullmatch(words):
            speeds.setdefault(link, 0.0)
        elif remote := _REMOTE.fullmatch(words):
            remotes.setdefault(link, normal_bus_id(remote[1]))
    for link, bus_id in remotes.items():
        one.remotes.setdefault(link, bus_id)
    if remotes and not speeds:
        return
    if one.speeds is None or (one.elided is not None and gpu.elided is None):
        one.speeds, one.elided, one.inactive, one.line = speeds, gpu.elided, gpu.inactive, gpu.line
    elif gpu.elided is None and speeds != one.speeds:
        yield Finding(
            "several-nvlink-lists",
            f"GPU {gpu.index} is listed twice with different links (lines {one.line} and {gpu.line})",
            "the first list was taken; paste one",
            devices=(f"gpu{gpu.index}",),
        )


def _findings(index: int, one: _Known, *, listed: bool) -> Iterator[Finding]:
    device = (f"gpu{index}",)
    if one.elided is not None:
        yield Finding(
            "nvlink-elided",
            f"the paste leaves out links of GPU {index} (line {one.elided}); how many it has is unknown",
            _WHOLE,
            devices=device,
        )
    elif one.inactive:
        yield Finding(
            "nvlink-inactive",
            f"no NVLink of GPU {index} is up",
            "as it should be without a bridge or switch; else look at the bridge or at the fabric manager",
            "notice",
            evidence="NVML: all links are inactive",
            devices=device,
        )
    elif listed and not one.speeds and not one.remotes:
        yield Finding(
            "nvlink-none-listed",
            f"GPU {index} lists no NVLink, other GPUs do",
            "taken as none; if the paste is cut, paste all of it",
            "notice",
            devices=device,
        )


def _nvlinks(one: _Known) -> tuple[NvlinkFacts, ...] | Unknown:
    if one.elided is not None:
        return Unknown(f"elided in the paste (line {one.elided})")
    numbers = sorted(one.remotes if one.speeds is None else {*one.speeds, *one.remotes})
    return tuple(_nvlink(one, link) for link in numbers)


def _nvlink(one: _Known, link: int) -> NvlinkFacts:
    remote: str | Unknown = NOT_STATED
    if link in one.remotes:
        remote = one.remotes[link] or Unknown("nvidia-smi: the far end has no bus id; is the fabric manager running?")
    if one.speeds is None or link not in one.speeds:
        # Only a link that has been trained knows what it ends at.
        active = True if isinstance(remote, str) else Unknown("nvidia-smi nvlink -s was not run")
        return NvlinkFacts(link=link, active=active, remote_bus_id=remote)
    speed = one.speeds[link]
    bandwidth = BytesPerSecond(speed * 1e9) if speed else NOT_STATED
    return NvlinkFacts(link=link, active=speed > 0, remote_bus_id=remote, bandwidth=bandwidth)


READER = Reader("nvidia-smi nvlink -s", _recognises, _read)

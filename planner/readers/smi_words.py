"""The words of nvidia-smi → values. What it cannot say is unknown, in its own words, and never zero."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from planner.core.bus_id import normal_bus_id
from planner.core.capture import GpuSight
from planner.core.facts import GpuFacts
from planner.core.finding import Finding
from planner.core.unknown import NOT_STATED, Unknown
from planner.errors import BadInput
from planner.units import Bytes

MAX_GPUS = 256
_MAX_MODEL = 120
_SAYS_NOTHING = re.compile(
    r"|N/A|Not Supported|Not Found|Not Available|Unknown Error|Unknown|ERR!|GPU is lost|GPU requires reset"
    r"|Insufficient Permissions|No Permission|Function Not Found|Not Active|Requested functionality has been deprecated",
    re.IGNORECASE,
)
_LOST = re.compile(r"GPU is lost|GPU requires reset|ERR!", re.IGNORECASE)
_NUMBER = re.compile(r"([0-9]{1,10})(?:x|\s|$)")
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([KMG]iB)?")
_SIZES = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_STATE = re.compile(r"P?([0-9]{1,2})")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,40}")
_CAPABILITY = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}")
_HEXADECIMAL = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID = re.compile(rf"GPU-({_HEXADECIMAL})", re.IGNORECASE)
_CLUSTER = re.compile(_HEXADECIMAL, re.IGNORECASE)


def lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a text, counted from 1, one at a time: a text of four million line ends stays small."""
    return enumerate(io.StringIO(text), 1)


def said(word: str | None) -> str | Unknown:
    """The word, or why there is none.

    >>> said("[N/A]")
    Unknown(reason='nvidia-smi: N/A')
    """
    if word is None:
        return NOT_STATED
    word = word.strip()
    bare = word.removeprefix("[").removesuffix("]").strip()
    if _SAYS_NOTHING.fullmatch(bare):
        return Unknown(f"nvidia-smi: {bare or 'nothing'}")
    return word


def _strange(word: str) -> Unknown:
    return Unknown(f"nvidia-smi: {word[:40]!r}")


def number(word: str | None) -> int | Unknown:
    """A whole number, perhaps with what follows it (``16x``).

    >>> number("16x"), number("N/A")
    (16, Unknown(reason='nvidia-smi: N/A'))
    """
    plain = said(word)
    if isinstance(plain, Unknown):
        return plain
    match = _NUMBER.match(plain)
    return int(match[1]) if match else _strange(plain)


def positive(word: str | None) -> int | Unknown:
    """A number that is never truly zero: a PCIe generation or width of 0 is a device that does not answer."""
    value = number(word)
    return Unknown("nvidia-smi: 0") if value == 0 else value


def size(word: str | None) -> Bytes | Unknown:
    """An amount of memory; a bare number counts MiB, as ``nounits`` leaves it.

    >>> size("81559 MiB") == size("81559") == 81559 * 2**20
    True
    """
    plain = said(word)
    if isinstance(plain, Unknown):
        return plain
    match = _SIZE.fullmatch(plain)
    return Bytes(float(match[1]) * _SIZES[match[2] or "MiB"]) if match else _strange(plain)


def matched(pattern: re.Pattern[str], word: str | None) -> str | Unknown:
    """The word where the whole of it is as expected (its first group, where there is one)."""
    plain = said(word)
    if isinstance(plain, Unknown):
        return plain
    match = pattern.fullmatch(plain)
    return match[match.re.groups] if match else _strange(plain)


def version(word: str | None) -> str | Unknown:
    """A version of a driver or of CUDA.

    >>> version("550.54.15"), version("Not Found")
    ('550.54.15', Unknown(reason='nvidia-smi: Not Found'))
    """
    return matched(_VERSION, word)


def uuid(word: str | None) -> str | Unknown:
    """The UUID of a GPU, unless somebody has blotted it out.

    >>> uuid("GPU-xxxxxxxx-...")
    Unknown(reason='redacted in the paste')
    """
    plain = said(word)
    if isinstance(plain, Unknown):
        return plain
    match = _UUID.fullmatch(plain)
    if match is None or len(set(match[1]) - {"-"}) == 1:
        return Unknown("redacted in the paste")
    return f"GPU-{match[1].lower()}"


def _performance_state(word: str | None) -> int | Unknown:
    digits = matched(_STATE, word)
    if isinstance(digits, Unknown):
        return digits
    return int(digits) if int(digits) <= 15 else _strange(str(word))


def _multi_instance(word: str | None) -> Literal["enabled", "disabled"] | Unknown:
    plain = said(word)
    if isinstance(plain, Unknown):
        return plain if plain == NOT_STATED else Unknown(plain.reason.replace("nvidia-smi", "MIG"))
    if plain.lower() == "enabled":
        return "enabled"
    return "disabled" if plain.lower() == "disabled" else _strange(plain)


def _fabric(state: str | None, status: str | None) -> str | Unknown:
    """NVML's fabric states by the words of :class:`planner.core.facts.GpuFacts`."""
    if state is not None and state.strip().lower() == "not supported":
        return "not-supported"
    plain = said(state)
    if isinstance(plain, Unknown):
        return plain
    word = plain.lower().replace(" ", "-")
    if word in {"in-progress", "not-started"}:
        return word
    if word != "completed":
        return _strange(plain)
    outcome = status.strip() if status is not None else "Success"
    return "completed" if outcome.lower() == "success" else f"failed: {outcome[:80]}"


def _cluster(word: str | None) -> str | Unknown:
    plain = matched(_CLUSTER, word)
    if isinstance(plain, str) and not set(plain) - {"0", "-"}:
        return Unknown("nvidia-smi: all zeros, no NVLink domain of several hosts")
    return plain.lower() if isinstance(plain, str) else plain


def model(word: str | None) -> str | None:
    """A GPU's name; ``None`` where it is not said, or cut (``Tesla V100-SXM2...``).

    >>> model(" NVIDIA H100 80GB HBM3 "), model("Tesla V100-SXM2...")
    ('NVIDIA H100 80GB HBM3', None)
    """
    name = said(word)
    if isinstance(name, Unknown) or name.endswith(("...", "…")):
        return None
    return " ".join(name.split())[:_MAX_MODEL]


def sight(index: int, words: Mapping[str, str]) -> GpuSight:
    """What nvidia-smi's words, by our name of the fact, tell of a GPU."""
    memory = size(words.get("memory"))
    return GpuSight(
        index=index,
        model=model(words.get("model")),
        memory=None if isinstance(memory, Unknown) or memory <= 0 else memory,
        bus_id=normal_bus_id(words.get("bus_id", "")),
        c2c=words.get("c2c", "").strip() == "Enabled",
        facts=GpuFacts(
            uuid=uuid(words.get("uuid")),
            compute_capability=matched(_CAPABILITY, words.get("compute_capability")),
            memory_free=size(words.get("memory_free")),
            memory_used=size(words.get("memory_used")),
            performance_state=_performance_state(words.get("performance_state")),
            pcie_generation=positive(words.get("pcie_generation")),
            pcie_generation_possible=positive(words.get("pcie_generation_possible")),
            pcie_generation_gpu=positive(words.get("pcie_generation_gpu")),
            pcie_width=positive(words.get("pcie_width")),
            pcie_width_possible=positive(words.get("pcie_width_possible")),
            multi_instance=_multi_instance(words.get("multi_instance")),
            fabric=_fabric(words.get("fabric"), words.get("fabric_status")),
            fabric_cluster=_cluster(words.get("fabric_cluster")),
            fabric_clique=number(words.get("fabric_clique")),
        ),
    )


def lost(gpus: Mapping[int, Mapping[str, str]]) -> tuple[Finding, ...]:
    """A finding for the GPUs that the driver has lost; words by index."""
    gone = [f"gpu{index}" for index, words in gpus.items() if any(_LOST.search(word) for word in words.values())]
    if not gone:
        return ()
    hint = "look for 'Xid' in the kernel's log; the GPU comes back with a reset or a reboot, or has to be replaced"
    return (Finding("gpu-lost", f"the driver does not reach {', '.join(gone)}", hint, devices=tuple(gone)),)


def refuse_many(count: int, where: str) -> None:
    """Raise ``BadInput`` where a text shows more GPUs than one host has."""
    if count > MAX_GPUS:
        raise BadInput(f"shows more than {MAX_GPUS} GPUs", path=where, hint="pass the capture of one host")

"""``nvidia-smi --query-gpu=… --format=csv``, with its header line; with or without units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from planner.core.capture import Capture
from planner.core.facts import HostFacts
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.smi_words import lines, lost, refuse_many, sight, version

_COLUMNS = {
    "index": "index",
    "name": "model",
    "gpu_name": "model",
    "uuid": "uuid",
    "gpu_uuid": "uuid",
    "pci.bus_id": "bus_id",
    "gpu_bus_id": "bus_id",
    "memory.total": "memory",
    "memory.used": "memory_used",
    "memory.free": "memory_free",
    "pstate": "performance_state",
    "compute_cap": "compute_capability",
    "mig.mode.current": "multi_instance",
    "pcie.link.gen.current": "pcie_generation",
    "pcie.link.gen.gpucurrent": "pcie_generation",
    "pcie.link.gen.max": "pcie_generation_possible",
    "pcie.link.gen.gpumax": "pcie_generation_gpu",
    "pcie.link.width.current": "pcie_width",
    "pcie.link.width.max": "pcie_width_possible",
    "fabric.state": "fabric",
    "fabric.status": "fabric_status",
    "fabric.cluster_uuid": "fabric_cluster",
    "fabric.clique_id": "fabric_clique",
    "driver_version": "driver",
}
_OF_PROCESSES = frozenset({"pid", "process_name", "used_gpu_memory", "used_memory"})
_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_.]{0,60})(?: \[[A-Za-z%/]{1,8}\])?")
_HINT = re.compile(r"memory\.|pcie\.|pci\.bus_id|uuid|compute_cap|driver_version|pstate|name|index|mig\.mode|fabric\.")
_FIRST_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_.]{2,60}(?: \[[A-Za-z%/]{1,8}\])?\s*(?:,|$)")
_INDEX = re.compile(r"[0-9]{1,3}")
_UNSAID = r"\[[A-Za-z/ ]{1,40}\]|N/A"
_NUMBER = re.compile(rf"[0-9]{{1,12}}(?: MiB)?|{_UNSAID}")
_WORDS = re.compile(rf"[A-Za-z0-9][A-Za-z0-9 .:()/+-]{{0,99}}|{_UNSAID}")
_OF_NUMBERS = frozenset({"memory", "memory_used", "memory_free", "fabric_clique"})
_MAX_COLUMNS = 200
_MAX_ROWS = 65_536  # 'nvidia-smi -l' prints the same GPUs again and again
_QUOTED = ' \t\n>|`"'


@lru_cache(maxsize=16)
def _header(line: str, *, after_query: bool) -> list[str] | None:
    """The facts that the columns of a header line hold, empty for a column of no interest; ``None`` for another line.

    >>> _header("index, name, power.draw [W]", after_query=False)
    >>> _header("index, name, memory.total [MiB], power.draw [W]", after_query=False)
    ['index', 'model', 'memory', '']
    """
    fields = line.split(",", _MAX_COLUMNS)
    names = [match[1].lower() if (match := _NAME.fullmatch(field.strip())) else "" for field in fields]
    if "" in names or not _OF_PROCESSES.isdisjoint(names):
        return None
    facts = [_COLUMNS.get(name, "") for name in names]
    known = [name for name in names if name in _COLUMNS]
    own = any("." in name or "_" in name for name in known)  # no other program has such columns
    if known and (after_query or own or known == ["index", "name"] == names):
        return facts
    return None


def _rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and words of each row below a header."""
    facts: list[str] | None = None
    after_query = False
    for number, line in lines(text):
        bare = line.strip(_QUOTED)
        if not bare:
            if facts is not None and "index" not in facts:
                facts = None  # what follows might be anything
            continue
        header = _header(bare, after_query=after_query) if _FIRST_COLUMN.match(bare) else None
        after_query = "--query-gpu" in line
        if header is not None:
            facts = header
        elif facts is not None:
            row = _row(facts, bare)
            if row is None:
                facts = None
            else:
                yield number, row


def _row(facts: list[str], line: str) -> dict[str, str] | None:
    """The words of a row by fact, ``None`` where the line is none."""
    words = [word.strip() for word in line.split(",", _MAX_COLUMNS)]
    if len(words) != len(facts):
        return None
    row = {fact: word for fact, word in zip(facts, words, strict=True) if fact}
    if "index" in row and not _INDEX.fullmatch(row["index"]):
        return None
    fits = all(
        (_NUMBER if fact in _OF_NUMBERS or fact.startswith("pcie_") else _WORDS).fullmatch(word) for fact, word in row.items()
    )
    return row if fits else None


def _recognises(text: str) -> bool:
    return _HINT.search(text) is not None and next(_rows(text), None) is not None


def _read(text: str, source: str) -> Capture:
    gpus: dict[int, dict[str, str]] = {}
    host: dict[str, str] = {}
    counted = False
    for line, row in islice(_rows(text), _MAX_ROWS):
        counted |= "index" not in row
        index = int(row["index"]) if "index" in row else len(gpus)
        gpus.setdefault(index, row)
        host.setdefault("driver", row.get("driver", ""))
        refuse_many(len(gpus), f"{source}, line {line}")
    if not gpus:
        raise BadInput("holds no rows below its header", path=f"{source}, line 1", hint="pass the whole output, with its header")
    return Capture(
        source=source,
        format="nvidia-smi --query-gpu, csv",
        gpus=tuple(sight(index, gpus[index]) for index in sorted(gpus)),
        findings=lost(gpus),
        host=HostFacts(driver=version(host.get("driver") or None)),
        assumptions=("the csv has no column 'index': its rows were counted",) if counted else (),
    )


READER = Reader("nvidia-smi --query-gpu, csv", _recognises, _read)

"""The status table that plain ``nvidia-smi`` prints: models where they are not cut, bus ids, memory, P-state, MIG."""

from __future__ import annotations

import re

from planner.core.bus_id import BUS_ID_PATTERN
from planner.core.capture import Capture
from planner.core.facts import HostFacts
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.smi_words import lines, lost, refuse_many, sight, version

_GPU = re.compile(
    rf"\|[ \t]{{0,9}}([0-9]{{1,3}})[ \t]{{1,9}}([^|\s][^|\n]{{0,80}}?)[ \t]{{1,60}}(?:On|Off|N/A|TCC|WDDM|MCDM|ERR!)[ \t]{{0,9}}"
    rf"\|[ \t]{{0,9}}({BUS_ID_PATTERN})(?![\w.])"
)
_STATE = re.compile(r"(?<!\w)(P[0-9]{1,2})(?!\w)")
_MEMORY = re.compile(r"\|[ \t]{0,20}([0-9]{1,9} ?MiB|N/A|ERR!)[ \t]{0,9}/[ \t]{0,9}([0-9]{1,9} ?MiB|N/A|ERR!)[ \t]{0,9}\|")
_INSTANCES = re.compile(r"\|[ \t]{0,60}(Enabled|Disabled|N/A)\*?[ \t]{0,9}\|[\s]{0,9}$")
_DRIVER = re.compile(r"(?:Driver|KMD) Version:[ \t]{0,9}([^\s|]{1,40})")
_CUDA = re.compile(r"CUDA (?:UMD )?Version:[ \t]{0,9}([^\s|]{1,40})")
_LINES_OF_A_GPU = 4


def _recognises(text: str) -> bool:
    return _GPU.search(text) is not None


def _read(text: str, source: str) -> Capture:
    gpus: dict[int, dict[str, str]] = {}
    words: dict[str, str] = {}
    driver = cuda = None
    left = 0
    for number, line in lines(text):
        if "|" not in line and "+" not in line:
            continue
        if match := _GPU.search(line):
            words = {"model": match[2], "bus_id": match[3]}
            gpus.setdefault(int(match[1]), words)
            refuse_many(len(gpus), f"{source}, line {number}")
            left = _LINES_OF_A_GPU
        elif left and "+--" not in line and "|==" not in line:
            _note(words, line)
            left -= 1
        else:
            left = 0
            if "Version:" in line:
                driver = driver or _DRIVER.search(line)
                cuda = cuda or _CUDA.search(line)
    if not gpus:
        raise BadInput("holds no row of a GPU", path=f"{source}, line 1", hint="pass the whole output of 'nvidia-smi'")
    return Capture(
        source=source,
        format="nvidia-smi",
        gpus=tuple(sight(index, gpus[index]) for index in sorted(gpus)),
        findings=lost(gpus),
        host=HostFacts(driver=version(driver[1] if driver else None), cuda=version(cuda[1] if cuda else None)),
    )


def _note(words: dict[str, str], line: str) -> None:
    """Take the second line of a GPU (temperatures, P-state, memory) or its third (MIG)."""
    if memory := _MEMORY.search(line):
        words["memory_used"], words["memory"] = memory[1], memory[2]
        if state := _STATE.search(line, 0, memory.start()):
            words["performance_state"] = state[1]
    elif "memory" in words and (instances := _INSTANCES.search(line[-120:])):
        words["multi_instance"] = instances[1]


READER = Reader("nvidia-smi", _recognises, _read)

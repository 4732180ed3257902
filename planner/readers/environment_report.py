"""The reports that vLLM, SGLang and PyTorch ask for in a bug report (``collect_env``): models, driver.

Forms fold such a report into one line, so a value ends where the next key begins. What stands in it beside the GPUs, the
processor say, has its own reader.
"""

from __future__ import annotations

import re
from itertools import islice

from planner.core.capture import Capture, GpuSight
from planner.core.facts import GpuFacts, HostFacts
from planner.core.unknown import NOT_STATED, Unknown
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.rocm_names import marketed
from planner.readers.smi_words import model, refuse_many

_LONGEST_LIST = 32_768
_REPORTS = 8
_START = re.compile(r"GPU models and configuration {0,40}:|(?<!Is )CUDA available: {0,9}True|ROCM available: {0,9}True")
_ROCM = "ROCM available:"
_GPU = re.compile(
    r"(?<![\w,])GPU ([0-9]{1,3}(?:, ?[0-9]{1,3}){0,255}):[ \t]{0,9}"
    r"([^\s:](?:(?!GPU [0-9]|Nvidia driver|cuDNN|HIP runtime|[ \t]MIG [0-9]|\(UUID)[^\n:]){0,99})"
)
_CAPABILITY = re.compile(r"(?<![\w,])GPU ([0-9]{1,3}(?:, ?[0-9]{1,3}){0,255}) Compute Capability: ?([0-9]{1,2}\.[0-9])(?!\d)")
_INSTANCES = re.compile(r"(?<!\w)MIG \S{1,40}\s{1,40}Device")
_END = re.compile(r"Nvidia driver version|(?:CUDA|ROCM)_HOME:|CUDA Driver Version:|cuDNN version|\n[ \t>]{0,9}\n[ \t>]{0,9}\n")
_DRIVER = re.compile(r"(?:Nvidia driver version|CUDA Driver Version) {0,40}:[ \t]{0,9}([^\s,]{1,40})")


def _list(text: str) -> str:
    """The part of the first report that lists GPUs, empty where none of the first few does."""
    for start in islice(_START.finditer(text), _REPORTS):
        part = text[start.end() : start.end() + _LONGEST_LIST]
        end = _END.search(part)
        part = part[: end.start()] if end else part
        if _GPU.search(part):
            return part
    return ""


def _recognises(text: str) -> bool:
    return _list(text) != ""


def _read(text: str, source: str) -> Capture:
    models: dict[int, str | None] = {}
    capabilities: dict[int, str] = {}
    instances: set[int] = set()
    part = _list(text)
    found = list(_GPU.finditer(part))
    if not found:
        raise BadInput("names no GPU", path=f"{source}, line 1", hint="run 'nvidia-smi topo -m' and 'nvidia-smi -L'")
    for match, end in zip(found, [*(one.start() for one in found[1:]), len(part)], strict=True):
        indices = [int(index) for index in match[1].split(",")]
        name = model(match[2])
        name = name and marketed(name)
        for index in indices:
            models.setdefault(index, name)
        if _INSTANCES.search(part, match.end(), end):
            instances.update(indices)
        refuse_many(len(models), source)
    # for AMD, PyTorch makes a number of the architecture's name (9.4 of gfx942), which is no CUDA capability
    for match in () if _ROCM in text else _CAPABILITY.finditer(part):
        capabilities |= dict.fromkeys((int(index) for index in match[1].split(",")), match[2])
    return Capture(
        source=source,
        format="environment report",
        gpus=tuple(
            GpuSight(
                index=index,
                model=models[index],
                facts=GpuFacts(
                    compute_capability=capabilities.get(index, NOT_STATED),
                    multi_instance="enabled" if index in instances else NOT_STATED,
                ),
            )
            for index in sorted(models)
        ),
        host=HostFacts(driver=_version(_DRIVER, text)),
    )


def _version(pattern: re.Pattern[str], text: str) -> str | Unknown:
    """The version behind a key. ``Could not collect`` is a reason, not a version."""
    match = pattern.search(text)
    if match is None:
        return NOT_STATED
    word = match[1]
    return word if word[0].isdigit() else Unknown("the environment report could not collect it")


READER = Reader("environment report", _recognises, _read)

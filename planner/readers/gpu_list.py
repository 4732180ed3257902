"""``nvidia-smi -L``: the models and UUIDs of the GPUs, and whether MIG splits them."""

from __future__ import annotations

from dataclasses import replace

from planner.core.capture import Capture, GpuSight
from planner.core.facts import GpuFacts
from planner.errors import BadInput
from planner.readers import Reader
from planner.readers.gpu_sections import ListedGpu, sections
from planner.readers.smi_words import model, refuse_many, uuid


def _is_list(section: dict[int, ListedGpu]) -> bool:
    """Whether a section is a list of GPUs and nothing else; a list of links has its own reader."""
    plain = not any(gpu.links or gpu.others or gpu.inactive for gpu in section.values())
    return plain and all(gpu.uuid is not None for gpu in section.values())


def _recognises(text: str) -> bool:
    return "(UUID:" in text and any(map(_is_list, sections(text)))


def _sight(gpu: ListedGpu) -> GpuSight:
    return GpuSight(index=gpu.index, model=model(gpu.model), facts=GpuFacts(uuid=uuid(gpu.uuid)))


def _read(text: str, source: str) -> Capture:
    gpus: dict[int, GpuSight] = {}
    for section in sections(text):
        if not _is_list(section):
            continue
        for gpu in section.values():
            one = gpus.get(gpu.index) or _sight(gpu)
            if gpu.instances and one.facts.multi_instance != "enabled":
                one = replace(one, facts=replace(one.facts, multi_instance="enabled"))
            gpus[gpu.index] = one
        refuse_many(len(gpus), source)
    if not gpus:
        raise BadInput("holds no list of GPUs", path=f"{source}, line 1", hint="run 'nvidia-smi -L'")
    return Capture(source=source, format="nvidia-smi -L", gpus=tuple(gpus[index] for index in sorted(gpus)))


READER = Reader("nvidia-smi -L", _recognises, _read)

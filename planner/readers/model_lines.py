r"""Lines ``GPU 0: NVIDIA L4`` that stand beside a matrix, outside of a report or a list that has its own reader."""

from __future__ import annotations

import re

from planner.readers import environment_report, gpu_list

_LINE = re.compile(r"(?:^|: {0,4})\W{0,16}GPU ([0-9]{1,3}(?:,[0-9]{1,3}){0,255}): ?(.+?)(?:\s+\(UUID.*)?\s*$")
_LONGEST = 2000
"""Characters of a line that may list GPUs: longer ones are logs, and would take the pattern long."""
_NAME = re.compile(r"[A-Z](?:[^,:=%]{0,60}\d|\S{0,30} [A-Z])[^,:=%]{0,60}")
"""``Tesla T4`` and ``NVIDIA Thor``, not ``12 GiB used`` or ``OOM``."""


def parse_models(text: str) -> dict[int, str]:
    r"""GPU models by index. The first one counts: what follows in a log tells of other things.

    >>> parse_models("GPU 0: Tesla T4 (UUID: GPU-1)\nGPU 1,2: NVIDIA L4")
    {0: 'Tesla T4', 1: 'NVIDIA L4', 2: 'NVIDIA L4'}
    >>> parse_models("INFO: GPU 0: 12 GiB used\nGPU 0: out of memory\nGPU 0: NVIDIA Thor\nGPU 0: NVIDIA L4 is slow")
    {0: 'NVIDIA Thor'}
    """
    models: dict[int, str] = {}
    for line in text.split("\n"):
        if "GPU " in line and len(line) <= _LONGEST and (found := _LINE.search(line)) and _NAME.fullmatch(found[2]):
            for index in map(int, found[1].split(",")):
                models.setdefault(index, found[2])
    return models


def models_beside(text: str, source: str) -> dict[int, str]:
    """Models of the GPUs that no report and no list with UUIDs in the text names. Raises ``BadInput`` as those do."""
    known: set[int] = set()
    for reader in (environment_report.READER, gpu_list.READER):
        if reader.recognises(text):
            known.update(sight.index for sight in reader.read(text, source).gpus)
    return {index: model for index, model in parse_models(text).items() if index not in known}

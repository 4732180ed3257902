"""The lists that ``nvidia-smi -L`` and ``nvidia-smi nvlink`` print: a line a GPU, below it what is its own.

A section is a run of such lines. Anything else ends it, and so does a GPU that is already in it: a paste often holds
several lists of the same GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from planner.readers.smi_words import lines

_GPU = re.compile(r"(?<![\w,.])GPU[ \t]{0,4}([0-9]{1,3}):[ \t]{0,8}(\S.{0,199})")
_UUID = re.compile(r"\(UUID:\s{0,4}([^)\s]{0,80})")
_LINK = re.compile(r"(?<!\w)Link[ \t]{1,4}([0-9]{1,3}):[ \t]{0,8}(.{0,80})")
_OF_LINKS = re.compile(r"(?<!\w)[Ll]inks? {0,2}[(0-9]")
_ELIDED = re.compile(r"[\s>|#*+\[(<-]{0,99}(?:\.{2,9}|…|snip(?:ped)?|truncated)[\s\])>.…-]{0,99}", re.IGNORECASE)
_MIG = re.compile(r"(?<!\w)MIG \S{1,40}\s{1,40}Device")
_NOTHING = frozenset(" \t\n>|`")


@dataclass(slots=True)
class ListedGpu:
    """One GPU of a list: its name, its UUID as written (``None`` where the line has none) and its links.

    ``links`` is (link, words, line) in order. ``elided`` is the line where the paste leaves something out below this
    GPU. ``inactive`` says that NVML calls all its links inactive, ``instances`` that MIG devices are listed below it.
    ``others`` says that lines of links stand below it that are no list of links (error counters summed up).
    """

    index: int
    model: str
    uuid: str | None
    line: int
    links: list[tuple[int, str, int]] = field(default_factory=list)
    elided: int | None = None
    inactive: bool = False
    instances: bool = False
    others: bool = False


def sections(text: str) -> Iterator[dict[int, ListedGpu]]:
    """The sections of a text, GPUs by index."""
    section: dict[int, ListedGpu] = {}
    last: ListedGpu | None = None
    for number, line in lines(text):
        gpu = _GPU.search(line) if "GPU" in line else None
        if gpu is not None:
            last = _listed(int(gpu[1]), gpu[2], number)
            if last.index in section:
                yield section
                section = {}
            section[last.index] = last
        elif last is not None and not _belongs(last, line, number):
            yield section
            section, last = {}, None
    if section:
        yield section


def _listed(index: int, rest: str, line: int) -> ListedGpu:
    uuid = _UUID.search(rest)
    return ListedGpu(index, rest.partition("(UUID")[0].strip(), uuid[1] if uuid else None, line)


def _belongs(gpu: ListedGpu, line: str, number: int) -> bool:
    """Whether the line tells of the GPU above it; if so, what it tells is noted."""
    if set(line[:200]) <= _NOTHING:
        return True
    link = _LINK.search(line) if "Link" in line else None
    if link is not None:
        gpu.links.append((int(link[1]), link[2].strip(), number))
    elif "all links are in" in line:
        gpu.inactive = True
    elif _OF_LINKS.search(line):
        gpu.others = True
    elif _MIG.search(line):
        gpu.instances = True
    elif _ELIDED.fullmatch(line):
        gpu.elided = number
    else:
        return False
    return True

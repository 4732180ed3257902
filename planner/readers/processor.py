"""``lscpu``, alone or inside an environment report: the processor, and whether the machine is a virtual one."""

from __future__ import annotations

import re

from planner.core.capture import Capture
from planner.core.facts import HostFacts
from planner.core.unknown import NOT_STATED, Unknown
from planner.errors import BadInput
from planner.readers import Reader

_SPACE = r"[ \t]{0,60}"
_KEY = r"(?<!BIOS )(?<![\w-])"
_VENDOR = re.compile(rf"{_KEY}Vendor ID:{_SPACE}([A-Za-z][\w+.!-]{{0,40}})")
_NAME = re.compile(rf"{_KEY}Model name:{_SPACE}(\S[^\n]{{0,150}})")
_FAMILY = re.compile(rf"{_KEY}CPU family:{_SPACE}([0-9]{{1,5}})(?!\w)")
_MODEL = re.compile(rf"{_KEY}Model:{_SPACE}([0-9]{{1,5}})(?!\w)")
_HYPERVISOR = re.compile(rf"{_KEY}Hypervisor vendor:{_SPACE}(\S[^\n]{{0,60}})")
_NEXT_KEY = re.compile(
    r"\s+(?:BIOS |CPU |Model:|Thread\(s\)|Core\(s\)|Socket\(s\)|Stepping:|Vendor ID:|Frequency|BogoMIPS:|Flags:|Virtualization|L1d )"
)
_ON_X86 = re.compile(rf"Architecture:{_SPACE}x86_64")
_WHOLE = ("L1d cache:", "NUMA node0 CPU(s):")


def _recognises(text: str) -> bool:
    return _VENDOR.search(text) is not None and _NAME.search(text) is not None


def _read(text: str, source: str) -> Capture:
    vendor, name = _VENDOR.search(text), _NAME.search(text)
    if vendor is None or name is None:
        raise BadInput("names no processor", path=f"{source}, line 1", hint="pass the whole output of 'lscpu'")
    return Capture(
        source=source,
        format="lscpu",
        host=HostFacts(
            cpu_name=_value(name),
            cpu_vendor=vendor[1],
            cpu_family=_number(_FAMILY, text),
            cpu_model=_number(_MODEL, text),
            virtual_machine=_virtual_machine(text),
        ),
    )


def _value(match: re.Match[str]) -> str:
    return " ".join(_NEXT_KEY.split(match[1], maxsplit=1)[0].split())


def _number(pattern: re.Pattern[str], text: str) -> int | Unknown:
    match = pattern.search(text)
    return int(match[1]) if match else NOT_STATED


def _virtual_machine(text: str) -> str | Unknown:
    """The hypervisor's name. ``none`` only of a whole list on x86, whose processors tell a guest that it is one."""
    if match := _HYPERVISOR.search(text):
        return _value(match)
    return "none" if _ON_X86.search(text) and all(key in text for key in _WHOLE) else NOT_STATED


READER = Reader("lscpu", _recognises, _read)

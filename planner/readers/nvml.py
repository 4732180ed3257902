"""NVML of this host, asked through one narrow door: a call by NVML's name, plain values back.

Tests replay recorded answers through the same door. Every call may be refused on its own: what it would have told is then
unknown, with the reason, never zero. Nothing here changes a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from planner.core.unknown import Unknown

NOT_SUPPORTED = 3
INVALID_ARGUMENT = 2
LOST = frozenset({15, 16})
"""NVML's return codes for a GPU that has fallen off the bus, or needs a reset."""

_TWO_GPUS = frozenset({"nvmlDeviceGetP2PStatus"})
_NO_GPU = frozenset({"nvmlDeviceGetCount"})
_FILLED = {
    "nvmlDeviceGetGpuFabricInfo": ("c_nvmlGpuFabricInfo_t",),
    "nvmlDeviceGetGpuFabricInfoV": ("c_nvmlGpuFabricInfo_v2_t", "c_nvmlGpuFabricInfoV_t"),
}
"""Calls that fill a structure of the caller's: its classes in pynvml, the first that is there."""
_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Where ``nvmlValueType_t`` puts a field's value, by its number."""


class Refused(Exception):
    """A call that was not answered: why, in words that name NVML or pynvml, and NVML's return code where it gave one."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Library(Protocol):
    """What answers NVML's calls. A GPU is given by its index, as ``nvidia-smi`` counts."""

    def ask(self, call: str, /, *arguments: int) -> Any:
        """The answer: a number, text, a list, or a mapping for a structure. Raises ``Refused``.

        ``nvmlDeviceGetFieldValues`` takes a GPU, a field and a scope, and answers the value of this one field.
        """


def asked(library: Library, call: str, *arguments: int) -> Any | Unknown:
    """The answer, or why there is none."""
    try:
        return library.ask(call, *arguments)
    except Refused as refusal:
        return Unknown(refusal.reason)


class Driver:
    """The driver of this host through ``pynvml``, which is imported at the first call.

    Works with nvidia-ml-py from 12.535 on: what an older one does not have is refused. ``binding`` stands in for the
    module.
    """

    def __init__(self, binding: Any = None) -> None:
        self._binding = binding
        self._handles: dict[int, Any] = {}

    def ask(self, call: str, /, *arguments: int) -> Any:
        """As :meth:`Library.ask`."""
        try:
            if self._binding is None:
                import pynvml

                self._binding = pynvml
        except ImportError as error:
            raise Refused(f"pynvml cannot be imported: {error}") from None
        function = getattr(self._binding, call, None)
        if function is None:
            raise Refused(f"pynvml too old: it has no {call}")
        try:
            return _plain(self._answer(function, call, arguments))
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 - pynvml raises classes of its own, made at run time
            raise Refused(f"NVML: {error}", getattr(error, "value", None)) from None

    def _answer(self, function: Callable[..., Any], call: str, arguments: tuple[int, ...]) -> Any:
        if not call.startswith("nvmlDevice") or call in _NO_GPU:
            return function(*arguments)
        gpus = 2 if call in _TWO_GPUS else 1
        handles = [self._handle(index) for index in arguments[:gpus]]
        if call == "nvmlDeviceGetFieldValues":
            return self._field(function(handles[0], [arguments[1:]])[0])
        if call in _FILLED:
            return self._filled(function, call, handles[0])
        return function(*handles, *arguments[gpus:])

    def _handle(self, index: int) -> Any:
        if index not in self._handles:
            self._handles[index] = self._binding.nvmlDeviceGetHandleByIndex(index)
        return self._handles[index]

    def _field(self, value: Any) -> Any:
        if value.nvmlReturn:
            raise self._binding.NVMLError(value.nvmlReturn)
        return getattr(value.value, _MEMBERS[value.valueType])

    def _filled(self, function: Callable[..., Any], call: str, handle: Any) -> Any:
        from ctypes import byref

        kind = next((found for name in _FILLED[call] if (found := getattr(self._binding, name, None))), None)
        if kind is None:
            raise Refused(f"pynvml too old: it has no {_FILLED[call][0]}")
        structure = kind()
        function(handle, byref(structure))
        return structure


def _plain(value: Any) -> Any:
    """A ctypes structure as a mapping, an array as a list, bytes as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    fields = getattr(value, "_fields_", None)
    if fields is not None:
        return {name: _plain(getattr(value, name)) for name, *_ in fields}
    if hasattr(value, "_length_"):
        return [_plain(item) for item in value]
    return value


def text(value: Any | Unknown) -> str | Unknown:
    """An answer as text that fits on one line."""
    return value if isinstance(value, Unknown) else " ".join(str(value).split())


def part(value: Any | Unknown, *names: str) -> Any | Unknown:
    """The first of the parts ``names`` that a structure has: pynvml renames some from release to release."""
    if isinstance(value, Unknown):
        return value
    if isinstance(value, Mapping):
        return next((value[name] for name in names if name in value), Unknown(f"NVML: no {names[0]} in its answer"))
    return Unknown("NVML: an answer of another form than expected")

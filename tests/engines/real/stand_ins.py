"""What engines import on the way to a resolved configuration and never call there: compiled kernels, pictures."""

from __future__ import annotations

import sys
import types
from typing import Any

PICTURES = ("", ".transforms", ".transforms.functional", ".transforms.v2", ".transforms.v2.functional", ".io", ".ops")


class Empty(types.ModuleType):
    """A module that is not there: it has every name, and nothing behind."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_options: True


def without_torchvision() -> None:
    """Let imports do without torchvision, of which only a build for the same CUDA as PyTorch's would load."""
    from transformers.utils import is_torchvision_available

    is_torchvision_available()  # remembers that there is none, before there seems to be
    for name in PICTURES:
        sys.modules[f"torchvision{name}"] = Empty(f"torchvision{name}")


def with_triton() -> None:
    """Let Triton believe in a GPU: it is asked for one where kernels are declared, long before any is compiled."""
    from triton.backends import backends

    backends["nvidia"].driver.is_active = staticmethod(lambda: True)

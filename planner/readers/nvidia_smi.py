"""``nvidia-smi`` on this host: it is run, and its text read as saved text is."""

from __future__ import annotations

import shutil
import subprocess

from planner.core.capture import Capture
from planner.errors import Unavailable
from planner.readers import clean
from planner.readers.topo_matrix import read

TOPOLOGY = ("nvidia-smi", "topo", "-m")
TIMEOUT_SECONDS = 60


def matrix() -> Capture:
    """The matrix of this host. Raises ``Unavailable`` where there is no ``nvidia-smi``, or it fails."""
    return read(clean(ask(TOPOLOGY)), " ".join(TOPOLOGY))


def ask(command: tuple[str, ...]) -> str:
    """What a program of the driver prints. Raises ``Unavailable`` where it is not there or fails."""
    if shutil.which(command[0]) is None:
        raise Unavailable(f"no {command[0]} on this host")
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=False)  # noqa: S603 - fixed argv
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"'{' '.join(command)}' did not answer: {error}") from None
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().split("\n")[0]
        raise Unavailable(f"'{' '.join(command)}' failed: {said}")
    return result.stdout

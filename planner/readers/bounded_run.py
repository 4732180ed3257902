"""Programs that measure: run within a bound of time and of output, and ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MOST_BYTES = 1_500_000
"""Of standard output; a program that prints more is ended."""
_LAST_BYTES = 4_000
_TICK_SECONDS = 0.2
_KILL_SECONDS = 5.0
"""How long a program may take to die: one that a driver holds cannot be waited for."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program printed, and what was wrong with how it ended (empty: nothing)."""

    out: str
    problem: str = ""


def run_bounded(
    argv: Sequence[str], seconds: float, environment: Mapping[str, str], tick: Callable[[], None] = lambda: None
) -> Ended:
    """Run ``argv`` for at most ``seconds``, in a session of its own that is killed as a whole in the end; ``tick`` is called meanwhile.

    Never raises for what the program does.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - a program that was looked up, with arguments of ours
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return Ended("", f"cannot be started: {error.strerror or error}")
    out, err = bytearray(), bytearray()
    try:
        problem = _follow(process, out, err, time.monotonic() + seconds, tick)
    finally:
        _kill(process)
    text = out.decode("utf-8", "replace")
    if problem is None:
        limit = f"{seconds:.1f}".removesuffix(".0")
        problem = f"did not finish within {limit} s"
    elif not problem and process.returncode:
        problem = f"ended with {_said(process.returncode)}: {_last_line(err or out)}"
    return Ended(text, problem)


def _follow(process: subprocess.Popen[bytes], out: bytearray, err: bytearray, end: float, tick: Callable[[], None]) -> str | None:
    """Collect what the program prints until it ends: empty, a problem, or ``None`` where the time is up."""
    with selectors.DefaultSelector() as selector:
        for stream, kept in ((process.stdout, out), (process.stderr, err)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, kept)
        while selector.get_map() or process.poll() is None:
            left = end - time.monotonic()
            if left <= 0:
                return None
            ready = selector.select(min(left, _TICK_SECONDS)) if selector.get_map() else []
            if not selector.get_map():
                time.sleep(min(left, _TICK_SECONDS))
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.extend(data)
            tick()
            del err[:-_LAST_BYTES]
            if len(out) > MOST_BYTES:
                return f"printed more than {MOST_BYTES / 1e6:g} MB"
            if not ready and process.poll() is not None:
                break  # something that it left behind holds its output open
    return ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_SECONDS)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _said(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _last_line(data: bytearray) -> str:
    lines = [line.strip() for line in bytes(data[-_LAST_BYTES:]).decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "without a word"

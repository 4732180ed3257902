"""Reading text from the outside with limits, writing it atomically, and finding the data that ships with us."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from planner.errors import BadInput, Unavailable

MAX_TEXT_BYTES = 4_000_000

_SIGNATURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a RIFF file (a WebP picture?)",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x7fELF": "a program",
}

PACKAGE = Path(__file__).resolve().parent.parent
DATA = PACKAGE / "data"


def topology_folder() -> Path:
    """Where the library of machines lies: in the installed package, or beside it in a source tree."""
    installed = PACKAGE / "topologies"
    return installed if installed.is_dir() else PACKAGE.parent / "topologies"


def read_text(path: Path) -> str:
    """The text of a file.

    Raises ``BadInput`` if it is not there, is no regular file or pipe, is too large, is empty or is not text.
    """
    try:
        if path.is_dir():
            raise BadInput("is a directory; expected a file", path=str(path))
        with path.open("rb") as stream:
            return _decode(stream, str(path))
    except FileNotFoundError:
        raise BadInput("no such file", path=str(path)) from None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror or error}", path=str(path)) from None


def read_stdin() -> str:
    """The text on standard input; raises ``BadInput`` as :func:`read_text` does."""
    return _decode(sys.stdin.buffer, "<stdin>")


def _decode(stream: BinaryIO, name: str) -> str:
    data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise BadInput(f"larger than {MAX_TEXT_BYTES // 1_000_000} MB", path=name, hint="pass only the capture or document")
    if not data.strip():
        raise BadInput("is empty", path=name)
    for signature, what in _SIGNATURES.items():
        if data.startswith(signature):
            raise BadInput(f"is {what}; expected text", path=name, hint="paste the text itself")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if b"\x00" in data:
        raise BadInput("is binary; expected text", path=name)
    text = data.decode("utf-8-sig", errors="replace")
    if text.count("\ufffd") > max(16, len(text) // 20):
        raise BadInput("is not text in UTF-8", path=name)
    return text


def write_atomically(path: Path, text: str, *, force: bool = False) -> None:
    """Write ``text`` so that the file is either the old one or the new one, whole. Follows no symbolic link.

    Raises ``BadInput`` where something is there already and ``force`` is not given, ``Unavailable`` where it cannot be written.
    """
    if path.is_symlink():
        raise BadInput("is a symbolic link; not written through it", path=str(path))
    if path.exists() and not force:
        raise BadInput("is there already", path=str(path), hint="name another file, or add --force")
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise Unavailable(f"cannot be written: {error.strerror or error}", path=str(path)) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

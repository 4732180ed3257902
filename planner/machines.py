"""Where topologies come from: this host, saved captures, the library, a short spec, our YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import BadInput, Unavailable, folded, unknown_name

if TYPE_CHECKING:
    from planner.core.capture import Capture
    from planner.core.hardware import GpuSpec
    from planner.core.topology import Device, OriginKind, Topology

STDIN = "-"
HOW_TO_NAME_A_TOPOLOGY = (
    "a machine is a library name (dgx-h100), a short spec (8xH100-SXM5-80GB), "
    "a topology YAML, or the saved text of 'nvidia-smi topo -m'"
)
HOW_TO_PROBE = "pass the saved text of 'nvidia-smi topo -m', or - to read it from standard input"
MAX_CAPTURES = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def refuse_strange(name: str) -> None:
    """Names go into argument vectors and onto terminals: nothing that a terminal would obey. Raises ``BadInput``."""
    if not name.strip():
        raise BadInput("an empty name")
    if _CONTROL.search(name):
        raise BadInput(f"a name with control characters: {name!r}")


def probe(sources: Sequence[str] = (), *, gpu: str | None = None) -> Topology:
    """This host's topology where there are no ``sources``; otherwise what :func:`load_topology` makes of them.

    ``gpu`` names the hardware where the text does not. Raises ``BadInput`` or ``Unavailable``.
    """
    if sources:
        return load_topology(*sources, gpu=gpu)
    try:
        captures = _this_host()
    except Unavailable as error:
        raise Unavailable(error.problem, path=error.path, hint=error.hint or HOW_TO_PROBE) from None
    return _finished(_built(captures, "this-host", "probed"), gpu)


def _this_host() -> list[Capture]:
    """What the driver and the system say: the matrix of ``nvidia-smi``, then NVML and the file system."""
    from planner.readers import live, nvidia_smi

    told = live.capture()
    try:
        return [nvidia_smi.matrix(), told]
    except Unavailable:
        if told.gpus:
            return [told]
        raise


def find_topology(reference: str | None, *, gpu: str | None = None) -> Topology:
    """The topology that is named, or this host's. Raises ``Unavailable``, saying how to name one, where there is no GPU."""
    if reference is not None:
        return load_topology(reference, gpu=gpu)
    try:
        return probe(gpu=gpu)
    except Unavailable as error:
        raise Unavailable(error.problem, path=error.path, hint=f"add --topology; {HOW_TO_NAME_A_TOPOLOGY}") from None


def save_topology(topology: Topology, path: Path, *, force: bool = False) -> None:
    """Write the topology's YAML document, atomically; nothing is overwritten without ``force``."""
    from planner.documents.files import write_atomically
    from planner.documents.topology import dump_topology

    write_atomically(path, dump_topology(topology), force=force)


def load_topology(*references: str, gpu: str | None = None) -> Topology:
    """A topology by a file (YAML or raw capture), ``-``, a library name or alias, or the short spec.

    Several references are captures of one host, which are joined. ``gpu`` names the GPUs of a capture that does not.
    Raises ``BadInput`` with the nearest library names, and where the GPUs have other names already.
    """
    for reference in references:
        refuse_strange(reference)
    if len(references) > 1:
        return _finished(_joined(references), gpu)
    reference = references[0]
    if reference == STDIN or Path(reference).exists():
        return topology_of_text(*_read(reference), gpu=gpu)
    return _finished(_by_name(reference), gpu)


def topology_of_text(text: str, source: str, *, gpu: str | None = None) -> Topology:
    """A topology document, or captures of one host in one text. ``source`` is what messages call it."""
    return _finished(_from_yaml(text, source) if _is_document(text, source) else _captured([(text, source)]), gpu)


def _joined(references: Sequence[str]) -> Topology:
    """One host out of several captures of it."""
    if len(references) > MAX_CAPTURES:
        raise BadInput(f"{len(references)} captures of one host; up to {MAX_CAPTURES} are joined")
    texts = []
    for reference in references:
        text, source = _read(reference)
        if _is_document(text, source):
            raise BadInput(
                "is a topology document; only captures of one host are joined",
                path=source,
                hint="merge several hosts with 'planner topology merge'",
            )
        texts.append((text, source))
    return _captured(texts)


def _captured(texts: Sequence[tuple[str, str]]) -> Topology:
    from planner.readers import clean, read_all
    from planner.readers.refusals import refuse

    captures = [capture for text, source in texts for capture in read_all(text, source)]
    text, source = texts[0]
    if not any(capture.gpus or capture.matrix or capture.peers for capture in captures):
        raise refuse(clean(text), source)
    return _built(captures, "capture" if source == "<stdin>" else Path(source).stem, "capture")


def _built(captures: Sequence[Capture], name: str, kind: OriginKind) -> Topology:
    from planner.graph.assemble import assemble
    from planner.graph.join import join

    return assemble(join([_with_known_names(capture) for capture in captures]), name, kind, _look_up)


def _look_up(name: str) -> GpuSpec | None:
    try:
        return load_gpu(name)
    except BadInput:
        return None


def _with_known_names(capture: Capture) -> Capture:
    """The capture with the names of ``data/gpus`` for GPUs that it names in its own way."""
    gpus = []
    for sight in capture.gpus:
        known = _look_up(sight.model) if sight.model else None
        gpus.append(sight if known is None else replace(sight, model=known.name))
    return replace(capture, gpus=tuple(gpus))


def _finished(topology: Topology, gpu: str | None) -> Topology:
    """The topology with known GPU names, that of ``gpu`` where it names none that is known, and its invariants checked.

    Raises ``BadInput`` where it names all of its GPUs, and one of them otherwise.
    """
    known = {name: spec.name for name in topology.hardware if (spec := _look_up(name)) is not None}
    asked = load_gpu(gpu).name if gpu is not None else None
    others = sorted(set(known.values()) - {asked})
    if asked is not None and others and all(one.hardware in known for one in topology.gpus):
        raise BadInput(
            f"has GPUs of its own: {', '.join(others)}",
            path=topology.name,
            hint=f"leave out --gpu, or name a machine of that GPU, such as 8x{asked}",
        )
    devices = tuple(_named(one, known, asked) for one in topology.devices)
    topology = replace(topology, devices=devices)
    topology.check()
    return topology


def _named(device: Device, known: Mapping[str, str], asked: str | None) -> Device:
    """A GPU by its ``known`` name, else as it is ``asked`` for; a name that we do not know stays readable where nobody asks."""
    from planner.core.topology import DeviceKind

    if device.kind is not DeviceKind.GPU:
        return device
    name = known.get(device.hardware or "") or asked or device.hardware
    return device if name == device.hardware else replace(device, hardware=name)


def _by_name(reference: str) -> Topology:
    """A machine of the library or a short spec. ``8xL40S`` is the spec, though a machine is called ``8x-l40s``."""
    from planner.readers.short_spec import looks_like_spec, read_short_spec

    path = _library().get(folded(reference)) or _by_alias(reference)
    if path is not None and (path.stem == reference.lower() or not looks_like_spec(reference)):
        return _from_yaml(path.read_text("utf-8"), path.name)
    if looks_like_spec(reference):
        return read_short_spec(reference, load_gpu)
    if "/" in reference or reference.endswith((".yaml", ".yml", ".txt", ".xml")):
        raise BadInput("no such file", path=reference, hint=HOW_TO_NAME_A_TOPOLOGY)
    raise unknown_name("topology", reference, [*topology_names(), *topology_aliases()], hint=HOW_TO_NAME_A_TOPOLOGY)


def load_gpu(name: str) -> GpuSpec:
    """The data sheet of a GPU by name or alias. Raises ``BadInput`` with the nearest known names."""
    from planner.documents.hardware import load_gpu as load

    refuse_strange(name)
    return load(name)


@cache
def _library() -> Mapping[str, Path]:
    from planner.documents.files import topology_folder

    return {folded(path.stem): path for path in sorted(topology_folder().glob("*.yaml"))}


_ALIASES = re.compile(r"^aliases: *\[(?P<row>[^\]]*)\]|^aliases:\n(?P<list>(?:- .*\n)+)", re.MULTILINE)


@cache
def topology_aliases() -> Mapping[str, str]:
    """Other names of machines of the library (those of cloud instances), by alias → the machine's name.

    The documents are scanned, not parsed: forty of them would cost more than the whole answer.
    """
    aliases: dict[str, str] = {}
    for path in _library().values():
        if match := _ALIASES.search(path.read_text("utf-8")):
            words = match["row"].split(",") if match["row"] is not None else match["list"].split("\n")
            names = (word.strip().removeprefix("- ").strip().strip("'\"") for word in words)
            aliases |= dict.fromkeys((name for name in names if name), path.stem)
    return aliases


def _by_alias(reference: str) -> Path | None:
    stem = {folded(alias): stem for alias, stem in topology_aliases().items()}.get(folded(reference))
    return None if stem is None else _library()[folded(stem)]


def topology_names() -> list[str]:
    """The names of the library of machines."""
    return [path.stem for path in _library().values()]


def _read(source: str) -> tuple[str, str]:
    """The text of a path or of standard input, and what messages call it."""
    from planner.documents.files import read_stdin, read_text

    return (read_stdin(), "<stdin>") if source == STDIN else (read_text(Path(source)), source)


def document_text(path: str) -> str | None:
    """The text of a topology document, ``None`` where the file is a capture. Raises ``BadInput`` where it cannot be read."""
    text, source = _read(path)
    return text if _is_document(text, source) else None


def _is_document(text: str, source: str) -> bool:
    """Whether the text is a topology document. A capture stays one under the name ``topo.yaml``."""
    if re.search(r"^schema_version\s*:", text, re.MULTILINE):
        return True
    from planner.readers import clean, readers

    return source.endswith((".yaml", ".yml")) and not any(reader.recognises(clean(text)) for reader in readers())


def _from_yaml(text: str, source: str) -> Topology:
    from planner.documents.topology import parse_topology

    return parse_topology(text, source)

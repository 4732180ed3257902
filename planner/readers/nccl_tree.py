"""The text of an NCCL topology file → a tree of elements, within limits.

``xml.etree`` would expand entities and forget lines; expat is driven here directly, so that a document type is refused
before any entity exists, limits hold while parsing, and every message has its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from planner.errors import BadInput

MAX_BYTES = 4 * 2**20
MAX_ELEMENTS = 100_000
"""256 GPUs with a link to every other are 65,000."""
MAX_DEPTH = 64
HOW_TO_DUMP = "run a job with NCCL_TOPO_DUMP_FILE=topo.xml and pass that file, or the text of 'nvidia-smi topo -m'"

_ELEMENTS = frozenset({"system", "cpu", "pci", "gpu", "nvlink", "xgmi", "c2c", "nic", "net"})
_START = re.compile(r"<system(?=[\s/>])")
_END = "</system>"
_DOCUMENT_TYPE = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9]{1,12}")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]{1,8}")


@dataclass(slots=True)
class Element:
    """One element of NCCL's: its attributes as text, its line in the whole text, and what it holds."""

    tag: str
    attributes: Mapping[str, str]
    line: int
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """Children of that name."""
        return (child for child in self.children if child.tag == tag)

    def text(self, name: str) -> str:
        """An attribute, empty where it is not there."""
        return self.attributes.get(name, "").strip()

    def number(self, name: str) -> int | None:
        """A decimal attribute, ``None`` where it is missing or no number."""
        text = self.text(name)
        return int(text) if _NUMBER.fullmatch(text) else None

    def identifier(self, name: str) -> int | None:
        """A hexadecimal attribute (``0x10de``), ``None`` where it is missing or not one."""
        text = self.text(name)
        return int(text, 16) if _HEXADECIMAL.fullmatch(text) else None


def parse_tree(text: str, source: str) -> Element:
    """The ``<system>`` element that ``text`` holds, whatever stands before and behind it.

    Elements that NCCL does not know are passed over with all they hold. Raises ``BadInput`` with the line for anything
    that is not well-formed, has a document type, or is beyond the limits.
    """
    if len(text) > MAX_BYTES:
        raise BadInput(f"has more than {MAX_BYTES} characters", path=source, hint="a topology file has some thousands")
    if found := _DOCUMENT_TYPE.search(text):
        raise BadInput(
            "has a document type or an entity, which NCCL's files never have",
            path=f"{source}, line {_line(text, found.start())}",
            hint=HOW_TO_DUMP,
        )
    start = _START.search(text)
    if start is None:
        place = text.find("<")
        raise BadInput(
            "the <system> element of the NCCL topology is missing",
            path=f"{source}, line {_line(text, max(place, 0))}",
            hint="paste the whole file",
        )
    end = text.rfind(_END)
    stop = len(text) if end < start.start() else end + len(_END)
    return _Parser(source, _line(text, start.start()) - 1).parse(text[start.start() : stop])


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


class _Parser:
    """Builds the tree while expat reads."""

    def __init__(self, source: str, lines_before: int) -> None:
        self._source = source
        self._before = lines_before
        self._open: list[Element] = []
        self._passed_over = 0
        self._count = 0
        self._root: Element | None = None
        self._expat = expat.ParserCreate("UTF-8")
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end

    def parse(self, text: str) -> Element:
        try:
            self._expat.Parse(text.encode("utf-8", "replace"), True)
        except expat.ExpatError as error:
            raise self._refusal(error) from None
        assert self._root is not None
        return self._root

    def _refusal(self, error: expat.ExpatError) -> BadInput:
        reason = expat.errors.messages.get(error.code, "")
        path = f"{self._source}, line {error.lineno + self._before}"
        if reason == expat.errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT:
            return BadInput("a second document follows the first <system>", path=path, hint="pass one dump of one host")
        word = str(error).partition(":")[0]
        inside = f" in <{self._open[-1].tag}> of line {self._open[-1].line}" if self._open else ""
        return BadInput(f"is not well-formed XML: {word}{inside}", path=path, hint="is the file cut or edited? paste it whole")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        line = self._expat.CurrentLineNumber + self._before
        if self._count > MAX_ELEMENTS:
            raise self._limit(f"has more than {MAX_ELEMENTS} elements", line)
        if len(self._open) + self._passed_over >= MAX_DEPTH:
            raise self._limit(f"is nested deeper than {MAX_DEPTH} elements", line)
        if self._passed_over or tag not in _ELEMENTS:
            self._passed_over += 1
            return
        element = Element(tag, attributes, line)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)

    def _end(self, _tag: str) -> None:
        if self._passed_over:
            self._passed_over -= 1
        else:
            self._open.pop()

    def _limit(self, problem: str, line: int) -> BadInput:
        return BadInput(problem, path=f"{self._source}, line {line}", hint="a topology file of one host has some hundreds")

"""Record what this GPU host answers, so that an odd machine becomes a test.

    python scripts/record_nvml.py "what is odd about it" > tests/readers/scenarios/NAME.yaml

Asks what 'planner probe' asks, as an ordinary user, and changes nothing. UUIDs, the host's name, names of processes and what
the kernel was started with are left out; read the file before you send it all the same. 'expected' is for you to fill in by
hand: what somebody who knows the machine would say.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import yaml

from planner.readers import live
from planner.readers.host_files import FileTree, HostFiles
from planner.readers.nvml import Driver, Library, Refused

_TOLD = "KUBERNETES_SERVICE_HOST"
_PROCESSOR = re.compile(r"(?:vendor_id|cpu family|model|model name|CPU (?:implementer|architecture|variant|part))\s*:")
_KERNEL = re.compile(r"(?:intel_|amd_)?iommu(?:\.passthrough)?=\S*")


class RecordedLibrary:
    """Hands every call on, and keeps its answer."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.answers: dict[str, Any] = {}

    def ask(self, call: str, /, *arguments: int) -> Any:
        """As :meth:`planner.readers.nvml.Library.ask`."""
        key = " ".join((call, *map(str, arguments)))
        try:
            answer = self._library.ask(call, *arguments)
        except Refused as refusal:
            self.answers[key] = {"refused": refusal.reason, "code": refusal.code}
            raise
        self.answers[key] = _plain(call, arguments, answer)
        return answer

    def compact(self) -> dict[str, Any]:
        """The answers, the most common one of each call once for all arguments."""
        common: dict[str, Any] = {}
        for call in dict.fromkeys(key.split(" ")[0] for key in self.answers):
            answers = {key: answer for key, answer in self.answers.items() if key.split(" ")[0] == call}
            if len(answers) == 1:
                common |= answers
                continue
            most = Counter(map(repr, answers.values())).most_common(1)[0][0]
            common[f"{call} *"] = next(answer for answer in answers.values() if repr(answer) == most)
            common |= {key: answer for key, answer in answers.items() if repr(answer) != most}
        return common


class RecordedFiles:
    """Hands every path on, and keeps what is there."""

    def __init__(self, files: FileTree) -> None:
        self._files = files
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.bytes: dict[str, dict[Any, Any]] = {}

    def data(self, path: str, /) -> bytes:
        """As :meth:`planner.readers.host_files.FileTree.data`."""
        data = self._files.data(path)
        if path.endswith("/config"):
            rows = {place: data[place : place + 16] for place in range(0, len(data), 16)}
            self.bytes[path] = {"size": len(data), **{place: row.hex() for place, row in rows.items() if any(row)}}
        else:
            text = _redacted(path, data.decode(errors="replace"))
            if text is not None:
                self.files[path] = text
        return data

    def names(self, path: str, /) -> Sequence[str]:
        """As :meth:`planner.readers.host_files.FileTree.names`."""
        names = self._files.names(path)
        if not names:
            self.files[f"{path}/"] = ""
        return names

    def resolve(self, path: str, /) -> str:
        """As :meth:`planner.readers.host_files.FileTree.resolve`."""
        self.links[path] = self._files.resolve(path)
        return self.links[path]


def _plain(call: str, arguments: tuple[int, ...], answer: Any) -> Any:
    """An answer as YAML can hold it, without what tells this machine from all others."""
    if call == "nvmlDeviceGetUUID":
        return f"GPU-00000000-0000-0000-0000-{arguments[0]:012}"
    if isinstance(answer, dict):
        cluster = answer.get("clusterUuid")
        return {**answer, "clusterUuid": [17 * any(cluster)] * 16} if isinstance(cluster, list) else answer
    return list(answer) if isinstance(answer, tuple) else answer


def _redacted(path: str, text: str) -> str | None:
    """A file's text as far as it is read; ``None`` where it says what is nobody's business."""
    if path == "/proc/sys/kernel/hostname":
        return "host"
    if path == "/proc/cmdline":
        return " ".join(match[0] for match in _KERNEL.finditer(text))
    if path == "/proc/cpuinfo":
        lines = [line for line in text.split("\n\n", maxsplit=1)[0].split("\n") if _PROCESSOR.match(line)]
        virtual = re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE)
        flags = "flags : hypervisor" if virtual else "flags : fpu"
        return "\n".join([*lines, flags] if re.search(r"^flags\s*:", text, re.MULTILINE) else lines)
    if path.endswith("/comm") and path != "/proc/1/comm":
        return text.strip() if text.startswith("nv-fabricmanage") else None
    if path == "/proc/1/cgroup":
        return re.sub(r"[0-9a-f]{12,}", "…", text)
    return text.strip()


def record(
    what_is_odd: str, library: Library | None = None, files: FileTree | None = None, environment: Collection[str] | None = None
) -> str:
    """The scenario of a host, this one where nothing else is given."""
    answers = RecordedLibrary(Driver() if library is None else library)
    tree = RecordedFiles(HostFiles() if files is None else files)
    environment = os.environ if environment is None else environment
    capture = live.capture(answers, tree, environment)
    document = {
        "nvml": answers.compact(),
        "environment": [name for name in (_TOLD,) if name in environment],
        "links": tree.links,
        "files": tree.files,
        "bytes": tree.bytes,
        "expected": {"gpus.#": len(capture.gpus)},
        "findings": [finding.code for finding in capture.findings],
    }
    return f"# {what_is_odd}\n" + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('say in one sentence what is odd about this machine: record_nvml.py "one NVLink of GPU 3 is down"')
    sys.stdout.write(record(" ".join(sys.argv[1].split())))

"""Launches in the files that people have: shell lines, systemd units, compose files, Kubernetes manifests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from planner.documents import strict_yaml
from planner.errors import BadInput

MOST_LINE = 100_000
MOST_PROCESSES = 4096
DEVICES = "CUDA_VISIBLE_DEVICES"
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_STEP = re.compile(r"--nodelist \$\{NODE([0-9]{1,4})\}(?: |$)")
"""How a batch job of :mod:`planner.deploy.slurm` names the node of a step."""
_ENDS = frozenset({"&", "&&", "|", "||", ";", ";;", ">", ">>", "<", ")"})
_PROGRAM = re.compile(
    r"(?:^|[\s/;&|\"'\[,(])(?:vllm|sglang|trtllm-serve|text-generation-launcher|tgi-entrypoint\.sh)\b|sglang\.launch_server|vllm\.entrypoints"
)


@dataclass(frozen=True, slots=True)
class Found:
    """One process that a file starts. ``files`` are those that came with it, by name; ``worker`` is its place among the pods of a
    group, ``None`` where the arguments say; ``host`` the number of its node, ``None`` where nothing says.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    worker: int | None = None
    host: int | None = None


def start_of(words: Sequence[str]) -> int | None:
    """Where a server's command begins among words.

    >>> start_of(["srun", "vllm", "serve", "m"]), start_of(["python3", "-m", "sglang.launch_server"]), start_of(["ls"])
    (1, 0, None)
    """
    for place, word in enumerate(words):
        program = word.rpartition("/")[2]
        after = list(words[place + 1 : place + 3])
        if program in {"vllm", "sglang"} and after[:1] == ["serve"]:
            return place
        if program in {"trtllm-serve", *TGI}:
            return place
        if re.fullmatch(r"python[0-9.]*", program) and after[:1] == ["-m"] and len(after) == 2 and after[1] in MODULES:
            return place
    return None


TGI = frozenset({"text-generation-launcher", "tgi-entrypoint.sh"})
"""TGI's launcher, and what starts it in its image."""
MODULES = frozenset({"sglang.launch_server", "vllm.entrypoints.openai.api_server"})


def found_in(text: str, source: str) -> list[Found]:
    """The servers that a text starts. Raises ``BadInput`` where there is none, or where it cannot be read."""
    if re.search(r"^[ \t]*ExecStart[ \t]*=", text, re.MULTILINE):
        several = _systemd(text, source)
    elif re.search(r"^(?:apiVersion|services|kind)[ \t]*:", text, re.MULTILINE):
        several = _yaml(text, source)
    else:
        several = _shell(text, {}, source)
    found = list(islice(several, MOST_PROCESSES + 1))
    if not found:
        hint = "a shell command or script, a systemd unit, a compose file or a Kubernetes manifest"
        raise BadInput("starts no server of vLLM, SGLang, TensorRT-LLM or TGI", path=source, hint=hint)
    if len(found) > MOST_PROCESSES:
        raise BadInput(f"starts more than {MOST_PROCESSES} servers", path=source)
    return found


def found_in_words(words: Sequence[str]) -> Found:
    """The server that a command starts, with the assignments before it. Raises ``BadInput``."""
    found = _command(words, {})
    if found is None:
        raise BadInput("starts no server of vLLM, SGLang, TensorRT-LLM or TGI", path=shlex.join(words)[:80])
    return found


def _command(words: Sequence[str], exported: Mapping[str, str]) -> Found | None:
    start = start_of(words)
    if start is None:
        return None
    before = (_ASSIGNMENT.fullmatch(word) for word in words[:start])
    environment = {**exported, **{match[1]: match[2] for match in before if match}}
    argv = list(words[start:])
    end = next((place for place, word in enumerate(argv) if word in _ENDS), len(argv))
    step = _STEP.search(" ".join(words[:start])) if start and "srun" in words else None
    return Found(tuple(argv[:end]), environment, host=int(step[1]) if step else None)


def _shell(text: str, environment: Mapping[str, str], source: str) -> Iterator[Found]:
    exported = dict(environment)
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        if not _PROGRAM.search(line[:MOST_LINE]) and not line.lstrip().startswith("export "):
            continue
        words = _words(line, source, punctuation="&|;()<>")
        if words[:1] == ["export"]:
            matches = (_ASSIGNMENT.fullmatch(word) for word in words[1:])
            exported |= {match[1]: match[2] for match in matches if match}
            continue
        found = _command(words, exported)
        if found is not None:
            yield found


def _words(line: str, source: str, *, punctuation: str = "") -> list[str]:
    """The words of a line as a shell reads them. Raises ``BadInput``."""
    lexer = shlex.shlex(line[:MOST_LINE], posix=True, punctuation_chars=punctuation)
    lexer.whitespace_split = True
    lexer.commenters = "#" if punctuation else ""
    try:
        return list(lexer)
    except ValueError as error:
        raise BadInput(f"cannot be read as a command: {str(error).lower()}", path=f"{source}: {line[:60]}") from None


def _systemd(text: str, source: str) -> Iterator[Found]:
    environment: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, _, value = line[:MOST_LINE].partition("=")
        if name.strip() not in {"Environment", "ExecStart"}:
            continue
        words = [word.replace("%%", "%") for word in _words(value, source)]
        if name.strip() == "Environment":
            matches = (_ASSIGNMENT.fullmatch(word) for word in words)
            environment |= {match[1]: match[2] for match in matches if match}
        elif found := _command([word.replace("$$", "$") for word in words], environment):
            yield found


def _yaml(text: str, source: str) -> Iterator[Found]:
    files: dict[str, str] = {}
    documents = [strict_yaml.load(part, source) for part in re.split(r"^---[ \t]*$", text, flags=re.MULTILINE) if _holds(part)]
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "ConfigMap":
            files |= {name: value for name, value in _mapping(document.get("data")).items() if isinstance(value, str)}
    for document in documents:
        if isinstance(document, dict):
            services = _mapping(document.get("services"))
            found = _compose(services, source) if services else _kubernetes(document, files, source)
            yield from (replace(one, files={**files, **one.files}) for one in found)


def _holds(part: str) -> bool:
    return any(line.strip() and not line.startswith("#") for line in part.splitlines())


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(value: Any, source: str) -> list[str]:
    """A list of words, or a text that is split into words as a shell does."""
    if isinstance(value, str):
        return _words(value, source)
    return [str(one) for one in value] if isinstance(value, list) else []


def _compose(services: Mapping[str, Any], source: str) -> Iterator[Found]:
    for service in map(_mapping, services.values()):
        words = [
            word.replace("$$", "$")
            for word in _strings(service.get("entrypoint"), source) + _strings(service.get("command"), source)
        ]
        stated = service.get("environment")
        pairs = _mapping(stated) or dict(word.partition("=")[::2] for word in _strings(stated, source))
        environment = {name: str(value).replace("$$", "$") for name, value in pairs.items()}
        for one in _container(words, environment, source):
            yield replace(one, environment=_on_host(one.environment, service, source))


def _on_host(environment: Mapping[str, str], service: Mapping[str, Any], source: str) -> Mapping[str, str]:
    """The environment with the host's numbers of devices: a container counts those it is given from 0."""
    deploy = _mapping(_mapping(_mapping(service.get("deploy")).get("resources")).get("reservations"))
    stated = deploy.get("devices")
    reserved = [_mapping(one) for one in stated] if isinstance(stated, list) else []
    given = [device for one in reserved for device in _strings(one.get("device_ids"), source)]
    if not given:
        return environment
    order = environment.get(DEVICES, ",".join(str(place) for place in range(len(given)))).split(",")
    try:
        return {**environment, DEVICES: ",".join(given[int(place)] for place in order)}
    except (ValueError, IndexError):
        return environment


def _kubernetes(document: Mapping[str, Any], files: Mapping[str, str], source: str) -> Iterator[Found]:
    spec = _mapping(document.get("spec"))
    group = _mapping(spec.get("leaderWorkerTemplate"))
    replicas = spec.get("replicas", 1)
    copies = replicas if isinstance(replicas, int) and 0 < replicas <= MOST_PROCESSES else 1
    if group:
        size = group.get("size", 1)
        workers = range(1, size if isinstance(size, int) and size <= MOST_PROCESSES else 1)
        leader = _pods(group.get("leaderTemplate") or group.get("workerTemplate"), files, source)
        follow = _pods(group.get("workerTemplate"), files, source)
        for _ in range(copies):
            yield from (replace(one, worker=0) for one in leader)
            yield from (replace(one, worker=number) for number in workers for one in follow)
        return
    for one in _pods(spec.get("template") if "template" in spec else document, files, source):
        yield from [one] * copies


def _pods(template: Any, files: Mapping[str, str], source: str) -> list[Found]:
    found: list[Found] = []
    containers = _mapping(_mapping(template).get("spec")).get("containers")
    for container in containers if isinstance(containers, list) else []:
        words = [
            word.replace("$$", "$") for part in ("command", "args") for word in _strings(_mapping(container).get(part), source)
        ]
        stated = _mapping(container).get("env")
        variables = [_mapping(one) for one in stated] if isinstance(stated, list) else []
        environment = {str(one.get("name")): str(one["value"]).replace("$$", "$") for one in variables if "value" in one}
        script = next(
            (files[name] for word in words if (name := word.rpartition("/")[2]) in files and name.endswith(".sh")), None
        )
        found += _container([*words[:1], "-c", script] if script else words, environment, source)
    return found


def _container(words: Sequence[str], environment: Mapping[str, str], source: str) -> list[Found]:
    if "-c" in words and words[0].rpartition("/")[2] in {"sh", "bash"}:
        return list(_shell(words[words.index("-c") + 1], environment, source)) if words[-1] != "-c" else []
    found = _command(words, environment)
    return [] if found is None else [found]

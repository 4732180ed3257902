"""systemd: a unit for every process."""

from __future__ import annotations

from planner.core.engine import LaunchProcess
from planner.deploy.header import header
from planner.deploy.router import router
from planner.deploy.target import Job, Output, Target, by_node, file_stem, label, reachable, servers


def argument(text: str) -> str:
    r"""An argument of ``ExecStart=`` that systemd reads as exactly this text (systemd.service(5), systemd.syntax(7)).

    >>> argument("a b"), argument('$(id) 50% "x"')
    ('"a b"', '"$$(id) 50%% \\"x\\""')
    """
    return _quoted(text.replace("$", "$$"))


def assignment(name: str, value: str) -> str:
    """An ``Environment=`` value: no variables are expanded there.

    >>> assignment("A", "b c")
    '"A=b c"'
    """
    return _quoted(f"{name}={value}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _unit(job: Job, process: LaunchProcess, place: str) -> str:
    lines = [
        "[Unit]",
        f"Description=LLM server {job.name}, replica {process.replica}",
        "Wants=network-online.target",
        "After=network-online.target nvidia-persistenced.service",
        "",
        "[Service]",
        f"# a token for weights from the hub, and PATH where {process.argv[0]} is not in /usr/bin: HF_TOKEN=… PATH=…",
        f"EnvironmentFile=-/etc/{job.name}.env",
        *(f"Environment={assignment(name, value)}" for name, value in process.environment.items()),
        *((f"WorkingDirectory={place}",) if job.launch.files else ()),
        f"ExecStart=/usr/bin/env {' '.join(argument(word) for word in reachable(job, process))}",
        "Restart=on-failure",
        "RestartSec=10",
        "LimitMEMLOCK=infinity",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return header(job) + "\n".join(lines) + "\n"


def _write(job: Job) -> Output:
    places = by_node(job)
    home = f"/etc/{job.name}"
    files: dict[str, str] = {}
    run = []
    for node, processes in places.items():
        units = []
        for process in processes:
            stem = f"{job.name}-{label(job, process)}"
            units.append(f"{stem}.service" if len(places) == 1 else f"{file_stem(node)}-{stem}.service")
            files[units[-1]] = _unit(job, process, home)
        copied = " ".join(units)
        kept = f"mkdir -p {home} && cp {' '.join(job.launch.files)} {home}/ && " if job.launch.files else ""
        line = f"{kept}cp {copied} /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now {copied}"
        run.append(line if len(places) == 1 else f"on {node}: {line}")
    routed = router(job)
    head, port = servers(job)[0]
    host = "127.0.0.1" if len(places) == 1 else head.node
    return Output(
        {**files, **job.launch.files, **routed.files}, (*run, *routed.run), address=routed.address or f"http://{host}:{port}"
    )


TARGET = Target("systemd", "a systemd unit for every process", _write)

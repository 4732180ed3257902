"""A router before independent replicas: nginx, which passes each request to the replica with the fewest in flight."""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.deploy.header import header
from planner.deploy.target import Job, by_node, servers

FILE = "nginx.conf"
FIRST_PORT = 9000


@dataclass(frozen=True, slots=True)
class Routed:
    """The router's file, what starts it and where it listens; all empty where one engine serves alone."""

    files: dict[str, str] = field(default_factory=dict)
    run: tuple[str, ...] = ()
    address: str = ""
    port: int = 0


def router(job: Job, hosts: dict[str, str] | None = None) -> Routed:
    """An nginx configuration where a plan has several independent replicas; ``hosts`` are addresses of nodes, if not their names.

    Paths in it are relative, so that it runs from any folder as any user. nginx without a licence checks health passively: a
    replica that failed is left out for a while. Requests that a replica refused or did not take are given to another.
    """
    heads = servers(job)
    if len(heads) < 2:
        return Routed()
    local = len(by_node(job)) == 1
    addresses = [f"{(hosts or {}).get(process.node, '127.0.0.1' if local else process.node)}:{port}" for process, port in heads]
    taken = {port for _, port in heads}
    port = next(port for port in range(FIRST_PORT, FIRST_PORT + len(taken) + 1) if port not in taken)
    text = "\n".join([*_TOP, *(f"        server {one} max_fails=3 fail_timeout=10s;" for one in addresses), *_bottom(port)])
    notes = ("health checks are passive: active ones ('health_check') need NGINX Plus",)
    return Routed(
        {FILE: f"{header(job, notes)}{text}\n"},
        (f"mkdir -p nginx-temp && nginx -p . -c {FILE} -g 'daemon off;'  # the router: replicas share requests on port {port}",),
        f"http://127.0.0.1:{port}",
        port,
    )


_TOP = (
    "worker_processes auto;",
    "pid nginx.pid;",
    "error_log stderr warn;",
    "events {",
    "    worker_connections 8192;",
    "}",
    "http {",
    "    access_log off;",
    *(f"    {kind}_temp_path nginx-temp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
    "    upstream replicas {",
    "        least_conn;",
    "        keepalive 256;",
)


def _bottom(port: int) -> tuple[str, ...]:
    return (
        "    }",
        "    server {",
        f"        listen {port};",
        "        client_max_body_size 0;",
        "        location = /router-health {",
        '            return 200 "ok\\n";',
        "        }",
        "        location / {",
        "            proxy_pass http://replicas;",
        "            proxy_http_version 1.1;",
        '            proxy_set_header Connection "";',
        "            proxy_buffering off;",
        "            proxy_request_buffering off;",
        "            proxy_connect_timeout 2s;",
        "            proxy_read_timeout 3600s;",
        "            proxy_next_upstream error timeout http_502 http_503;",
        "            proxy_next_upstream_tries 3;",
        "        }",
        "    }",
        "}",
    )

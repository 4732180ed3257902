"""Which GPU is which rank, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from planner import __version__
from planner.deploy.header import header
from planner.deploy.target import Job, Output, Target


def _write(job: Job) -> Output:
    document = {
        "schema_version": 1,
        "kind": "ranks",
        "planner_version": __version__,
        "plan": job.digest,
        "ranks": [asdict(place) for place in job.ranks],
    }
    return Output({"ranks.txt": header(job), "ranks.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"}, ())


TARGET = Target("ranks", "which GPU is which rank, as a table and as JSON", _write)

"""This host, measured by the programs on it: what ``planner probe --measure`` asks."""

from __future__ import annotations

from dataclasses import replace

from planner.core.calibrated import CalibrationAnswer
from planner.core.finding import Finding
from planner.core.topology import Topology
from planner.errors import BadInput
from planner.measuring import calibrate_with
from planner.readers import benchmarks

SOURCE = "planner probe --measure"


def measure(topology: Topology, seconds: float, report: benchmarks.Report) -> tuple[Topology, CalibrationAnswer | None]:
    """This host's ``topology`` calibrated by what programs on it measure within ``seconds``, and what became of that.

    Never raises for what goes wrong with a program or its numbers: it is a finding of the topology, which is otherwise as it
    was. What cannot be of this host is left out, the rest is used. ``report`` is told what runs, how many programs are done and
    how many there are.
    """
    found = benchmarks.measure(len(topology.gpus), seconds, report)
    findings, answer = list(found.findings), None
    usable = list(found.measured)
    while usable and answer is None:
        try:
            answer = calibrate_with(topology, usable, SOURCE)
        except BadInput as error:
            problem = f"what was measured is not used: {error.path}: {error.problem}"
            findings.append(Finding("measure-unused", problem, error.hint))
            others = [one for one in usable if one.source not in error.path]
            usable = others if len(others) < len(usable) else []
    calibrated = topology if answer is None else answer.topology
    return replace(calibrated, findings=(*calibrated.findings, *findings)), answer

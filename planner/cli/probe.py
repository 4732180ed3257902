"""planner probe"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.cluster_options import NetworkSpec, Output, Strict
from planner.cli.deliver import STDOUT, deliver, place_of, refuse_missing
from planner.cli.guard import guarded
from planner.cli.options import Format, FormatOption, Gpu
from planner.errors import BadInput

if TYPE_CHECKING:
    from planner.core.calibrated import CalibrationAnswer
    from planner.core.topology import Topology

MOST_SECONDS = 3600.0
MEASURE_SECONDS = 120.0


@guarded
def probe(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|-]...",
            help="The saved text of 'nvidia-smi topo -m', or several captures of one host (topo -m, topo -p2p, nvlink -s, -q, "
            "NCCL XML, rocm-smi), a topology YAML, a library name or a short spec; - for stdin. Without it: this host.",
            show_default=False,
        ),
    ] = None,
    gpu: Gpu = None,
    hostfile: Annotated[
        str | None,
        typer.Option(
            "--hostfile",
            metavar="FILE",
            help="Ask every host of this file over ssh: one a line, as for mpirun.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Ask every node of the Ray cluster that runs here.")] = False,
    network: NetworkSpec = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", min=0.1, max=MOST_SECONDS, help="Seconds a node has to answer; 60 if not said.", show_default=False
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure this host's links too, and calibrate them: with nccl-tests, p2pBandwidthLatencyTest, nvbandwidth, or "
            "a Python that has torch. Uses all GPUs: not while they serve.",
        ),
    ] = False,
    measure_seconds: Annotated[
        float | None,
        typer.Option(
            "--measure-seconds",
            min=1,
            max=MOST_SECONDS,
            help="Seconds that measuring may take in all; 120 if not said.",
            show_default=False,
        ),
    ] = None,
    output: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file.")] = False,
    strict: Strict = False,
    form: FormatOption = Format.table,
) -> None:
    """Read a machine's links and draw them.

    Reads what 'nvidia-smi topo -m' printed, or runs it where there is one. With --measure, copies and collectives are timed
    on it. With --hostfile or --ray: many machines, and the cluster that they make.
    """
    several = [option for option, asked in (("FILE", files), ("--hostfile", hostfile), ("--ray", ray)) if asked]
    if len(several) > 1:
        raise BadInput(f"{' and '.join(several)} together: one is enough", path="probe")
    if measure and several:
        hint = "measure on each host: 'planner probe --measure -o box.yaml'; or give outputs to 'planner calibrate'"
        raise BadInput(f"measures this host, not {'a file' if files else 'others'}", path="--measure", hint=hint)
    if measure_seconds is not None and not measure:
        raise BadInput("is for --measure", path="--measure-seconds")
    calibrated = None
    if not (hostfile or ray):
        if network is not None or timeout is not None:
            raise BadInput(
                "is for --hostfile and --ray",
                path="--network" if network is not None else "--timeout",
                hint="hosts that are probed already are joined by 'planner topology merge'",
            )
        from planner import api

        topology = api.probe(files or (), gpu=gpu)
        if measure:
            if output is not None and output != STDOUT:
                # kept whatever happens while measuring
                api.save_topology(topology, Path(place_of(topology, output)), force=force)
                force = True
            topology, calibrated = _measured(topology, measure_seconds or MEASURE_SECONDS)
    else:
        name = Path(output).stem if output and output != STDOUT else "cluster"
        topology = _cluster(hostfile, network, timeout, name, gpu)
    deliver(topology, output, force=force, form=form)
    if calibrated is not None and output != STDOUT and form is Format.table:
        from planner.render import calibration

        calibration.show(calibrated, output and place_of(topology, output))
    refuse_missing(topology, strict=strict)


def _measured(topology: Topology, seconds: float) -> tuple[Topology, CalibrationAnswer | None]:
    from planner import api
    from planner.render.progress import progress

    with progress("measuring") as report:
        return api.measure(topology, seconds=seconds, report=report)


def _cluster(hostfile: str | None, network: str | None, timeout: float | None, name: str, gpu: str | None) -> Topology:
    from planner import clusters

    if hostfile is not None:
        return clusters.probe_hostfile(hostfile, network=network, timeout=timeout, name=name, gpu=gpu)
    return clusters.probe_ray(network=network, timeout=timeout, name=name, gpu=gpu)

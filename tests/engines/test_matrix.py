"""The matrix of plans that the engines' own parsers are given (``make test-engines``), without the engines."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine_matrix import ENGINES, Case, cases
from planner import api
from planner.core.plan import tensor_groups
from planner.cost.collectives import Collectives
from planner.cost.interconnect import Interconnect
from planner.cost.measured_here import MeasuredHere
from planner.documents.calibration import load_calibration
from planner.engines import find_engine
from planner.engines.flags import FlagTable
from planner.engines.sglang_flags import SGLANG
from planner.engines.vllm_flags import VLLM

KERNELS = {2, 4, 6, 8}
"""Group sizes both engines have a kernel for."""
TABLES: dict[str, FlagTable] = {"vllm": VLLM, "sglang": SGLANG}


@cache
def every(engine: str) -> tuple[Case, ...]:
    with TemporaryDirectory() as folder:
        return tuple(cases(Path(folder), engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_it_holds_what_goes_wrong_elsewhere(engine: str) -> None:
    found = Counter(kind for case in every(engine) for kind in case.kinds)
    assert len({case.name.rpartition(" [")[0] for case in every(engine)}) >= 40
    for kind in ("experts", "pipeline over hosts", "uneven", "fp8", "fp8-block", "awq", "gptq"):
        assert found[kind], kind


@pytest.mark.parametrize("engine", ENGINES)
def test_the_table_is_of_the_version_that_is_planned_for(engine: str) -> None:
    assert find_engine(engine).traits.version in TABLES[engine].versions


@pytest.mark.parametrize("engine", ENGINES)
def test_no_flag_is_written_that_is_not_in_the_table(engine: str) -> None:
    known = {flag.name for flag in TABLES[engine].flags.values()}
    for case in every(engine):
        written = {word for word in case.process.argv if word.startswith("--")}
        assert written <= known, case.name


@pytest.mark.parametrize("engine", ENGINES)
def test_the_visible_devices_of_all_processes_are_the_placement_in_rank_order(engine: str) -> None:
    found: dict[str, list[tuple[str, int]]] = {}
    wanted: dict[str, list[tuple[str, int | None]]] = {}
    for case in every(engine):
        name, gpus = case.name.rpartition(" [")[0], case.topology.gpus
        devices = case.process.environment["CUDA_VISIBLE_DEVICES"].split(",")
        found.setdefault(name, []).extend((case.process.node, int(device)) for device in devices)
        ranks = [gpu for replica in case.plan.placement for group in replica for gpu in group]
        wanted[name] = [(gpus[gpu].host, gpus[gpu].index) for gpu in ranks]
    assert found == wanted


def priced_with_a_kernel(case: Case) -> bool:
    """Whether the cost model let the engine's own all-reduce run in any group of the plan."""
    wires = Interconnect(case.topology, {name: api.load_gpu(name) for name in case.topology.hardware})
    collectives = Collectives(load_calibration(), find_engine(case.engine).traits, MeasuredHere(wires))
    tensor = case.plan.parallelism.tensor
    stages = [stage for replica in case.plan.placement for stage in replica]
    groups = [wires.group(group) for stage in stages for group in tensor_groups(stage, tensor)]
    return any(collectives._takes(group) and group.ranks in KERNELS for group in groups)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engine_runs_its_own_all_reduce_just_where_it_was_priced(engine: str) -> None:
    for case in every(engine):
        if case.plan.parallelism.tensor > 1:
            assert ("--disable-custom-all-reduce" not in case.process.argv) == priced_with_a_kernel(case), case.name

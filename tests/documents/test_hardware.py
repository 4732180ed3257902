from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from planner.documents import strict_yaml
from planner.documents.files import DATA
from planner.documents.hardware import GpuDocument, gpu_names, load_gpu, load_link_rates
from planner.errors import BadInput, folded

FILES = sorted((DATA / "gpus").glob("*.yaml"))


def test_there_are_at_least_forty_gpus() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_gpu_has_a_source_for_every_number_and_hangs_together(path: Path) -> None:
    data = strict_yaml.load(path.read_text("utf-8"), path.name)
    for section in ("memory", "compute", "nvlink", "pcie"):
        if section in data:
            assert len(data[section]["source"]) > 10, section
    document = GpuDocument.model_validate(data)
    spec = load_gpu(document.name)
    assert spec.name.lower() == path.stem
    assert 4e9 < spec.memory < 1e12
    assert 100e9 < spec.memory_bandwidth < 10e12
    assert 1e12 < spec.half_precision < 1e16
    if spec.peer_links is not None:
        assert 10e9 < spec.peer_links.bandwidth <= 1e12
    # what came with a generation is not there before it
    capability = spec.compute_capability
    if spec.vendor == "NVIDIA" and capability is not None:
        assert ("bf16" in spec.compute) == (capability >= (8, 0))
        assert ("fp8" in spec.compute) == (capability >= (8, 9))
        assert ("fp4" in spec.compute) == (capability >= (10, 0))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_multiprocessor_does_as_much_a_clock_as_its_generation(path: Path) -> None:
    """Dense 16-bit FLOP: 256 without tensor cores to 8,192; a clock or a count of another GPU would be off by more than a tenth."""
    spec = load_gpu(path.stem)
    assert spec.multiprocessors is not None
    if spec.clock is None:
        assert spec.cycle == 1
        return
    each = spec.one_multiprocessor / spec.clock
    assert 200 < each < 8400
    if spec.vendor == "NVIDIA" and spec.compute_capability is not None and "H20-" not in spec.name:
        # tensor cores of Hopper and after run below the highest clock
        assert 2 ** round(math.log2(each)) * 0.85 < each < 2 ** round(math.log2(each)) * 1.05


def test_no_name_means_two_gpus() -> None:
    seen: dict[str, str] = {}
    for path in FILES:
        document = GpuDocument.model_validate(strict_yaml.load(path.read_text("utf-8"), path.name))
        for name in (document.name, *document.aliases):
            assert seen.setdefault(folded(name), document.name) == document.name, name


def test_marketing_numbers_are_stored_one_way_and_dense() -> None:
    h100 = load_gpu("H100-SXM5-80GB")
    assert h100.peer_links is not None
    assert h100.peer_links.bandwidth == 450e9  # sold as 900 GB/s
    assert h100.compute["fp8"] == pytest.approx(1979e12, rel=0.001)  # sold as 3,958 with sparsity
    rtx3090 = load_gpu("RTX-3090")
    assert rtx3090.peer_links is not None
    assert rtx3090.peer_links.bandwidth == 56.25e9  # sold as 112.5 GB/s


@pytest.mark.parametrize(
    ("spoken", "name"),
    [
        ("h100-sxm5-80gb", "H100-SXM5-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM5-80GB"),
        ("nvidia a100-sxm4-80gb", "A100-SXM4-80GB"),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("rtx 4090", "RTX-4090"),
        ("Tesla T4", "T4"),
    ],
)
def test_case_spaces_and_dashes_do_not_matter(spoken: str, name: str) -> None:
    assert load_gpu(spoken).name == name


@pytest.mark.parametrize("name", ["H100", "A100", "RTX 9090", "gpu", ""])
def test_an_ambiguous_or_unknown_gpu_is_refused_with_near_names(name: str) -> None:
    with pytest.raises(BadInput, match="unknown GPU"):
        load_gpu(name)
    if name == "H100":
        with pytest.raises(BadInput, match="H100-SXM5-80GB"):
            load_gpu(name)


def test_nccl_link_rates_grow_with_the_generation() -> None:
    rates = load_link_rates()
    assert [rates.nvlink_link(capability) / 1e9 for capability in ((7, 0), (8, 0), (8, 6), (9, 0), (10, 0))] == [
        20,
        20,
        12,
        20.6,
        40.1,
    ]
    assert 16 * rates.pcie_lane_achieved[4] == 24e9
    assert all(rates.pcie_lane_achieved[generation] < rates.pcie_lane_peak[generation] for generation in rates.pcie_lane_peak)


def test_the_names_of_the_measurements_are_known(shared: Path) -> None:
    with (shared / "data" / "specs.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["gpu"] for row in rows} <= set(gpu_names())
    for row in rows:
        assert load_gpu(row["gpu"]).multiprocessors == int(row["sm_count"]), row["gpu"]

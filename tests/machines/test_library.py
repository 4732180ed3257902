"""The library of machines: each is drawn, priced, says where it comes from, and answers to its cloud names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from planner import api
from planner.core.topology import DeviceKind, LinkKind, Topology
from planner.core.unknown import Unknown
from planner.core.workload import Workload
from planner.documents.files import topology_folder
from planner.documents.hardware import load_gpu, load_link_rates
from planner.documents.topology import dump_topology, parse_topology
from planner.errors import folded
from planner.graph.paths import class_matrix
from planner.readers.short_spec import looks_like_spec

NAMES = api.topology_names()

MATRICES = {
    "4x-rtx-3090-bridged": ["X PHB NV4 NODE", "PHB X NODE NV4", "NV4 NODE X PHB", "NODE NV4 PHB X"],
    "4x-v100-pcie": ["X PIX SYS SYS", "PIX X SYS SYS", "SYS SYS X PXB", "SYS SYS PXB X"],
    "azure-nd40rs-v2": [
        "X NV1 NV1 NV2 NV2 SYS SYS SYS",
        "NV1 X NV2 NV1 SYS NV2 SYS SYS",
        "NV1 NV2 X NV1 SYS SYS NV2 SYS",
        "NV2 NV1 NV1 X SYS SYS SYS NV2",
        "NV2 SYS SYS SYS X NV1 NV1 NV2",
        "SYS NV2 SYS SYS NV1 X NV2 NV1",
        "SYS SYS NV2 SYS NV1 NV2 X NV1",
        "SYS SYS SYS NV2 NV2 NV1 NV1 X",
    ],
    "dgx-1-v100": [
        "X NV1 NV1 NV2 NV2 SYS SYS SYS",
        "NV1 X NV2 NV1 SYS NV2 SYS SYS",
        "NV1 NV2 X NV1 SYS SYS NV2 SYS",
        "NV2 NV1 NV1 X SYS SYS SYS NV2",
        "NV2 SYS SYS SYS X NV1 NV1 NV2",
        "SYS NV2 SYS SYS NV1 X NV2 NV1",
        "SYS SYS NV2 SYS NV1 NV2 X NV1",
        "SYS SYS SYS NV2 NV2 NV1 NV1 X",
    ],
}

CAPTURED = {
    "10x-l40s": "sglang-7903",
    "2x-rtx-3090-bridged": "sglang-6083",
    "2x-rtx-4090": "sglang-1100",
    "4x-a100-pcie-bridged": "vllm-16880",
    "4x-v100-pcie": "vllm-11931",
    "8x-a800-pcie-pairs": "vllm-4313",
    "8x-a800-sxm": "sglang-3368",
    "8x-h20-sxm": "sglang-3695",
    "8x-h800-sxm": "vllm-15199",
    "8x-l40s": "vllm-15762",
    "8x-rtx-2080-ti-pairs": "vllm-4247",
    "8x-rtx-4090": "vllm-15381",
    "8x-rtx-5090": "vllm-15381",
    "aws-p4d-24xlarge": "vllm-17513",
    "azure-nc80adis-h100-v5": "sglang-2874",
    "azure-nd96isr-h100-v5": "sglang-4780",
    "gb200-tray": "vllm-19703",
    "gcp-a3-highgpu-8g": "sglang-1087",
}
"""Machines whose origin names an issue, and the capture of that issue."""

INSTANCES = {
    "p3.16xlarge": "V100-SXM2-16GB",
    "p3dn.24xlarge": "V100-SXM2-32GB",
    "p4d.24xlarge": "A100-SXM4-40GB",
    "p4de.24xlarge": "A100-SXM4-80GB",
    "p5.48xlarge": "H100-SXM5-80GB",
    "p5e.48xlarge": "H200-SXM5-141GB",
    "p5en.48xlarge": "H200-SXM5-141GB",
    "p6-b200.48xlarge": "B200-SXM-180GB",
    "g4dn.12xlarge": "T4",
    "g4dn.metal": "T4",
    "g5.12xlarge": "A10G",
    "g5.48xlarge": "A10G",
    "g6.12xlarge": "L4",
    "g6.48xlarge": "L4",
    "g6e.12xlarge": "L40S",
    "g6e.48xlarge": "L40S",
    "a2-highgpu-8g": "A100-SXM4-40GB",
    "a2-megagpu-16g": "A100-SXM4-40GB",
    "a2-ultragpu-8g": "A100-SXM4-80GB",
    "a3-highgpu-8g": "H100-SXM5-80GB",
    "a3-megagpu-8g": "H100-SXM5-80GB",
    "a3-ultragpu-8g": "H200-SXM5-141GB",
    "a4-highgpu-8g": "B200-SXM-180GB",
    "g2-standard-96": "L4",
    "Standard_ND40rs_v2": "V100-SXM2-32GB",
    "Standard_ND96asr_v4": "A100-SXM4-40GB",
    "Standard_ND96amsr_A100_v4": "A100-SXM4-80GB",
    "Standard_ND96isr_H100_v5": "H100-SXM5-80GB",
    "Standard_ND96isr_H200_v5": "H200-SXM5-141GB",
    "Standard_ND96isr_MI300X_v5": "MI300X",
    "Standard_NC96ads_A100_v4": "A100-PCIe-80GB",
    "Standard_NC80adis_H100_v5": "H100-NVL-94GB",
    "Standard_NC64as_T4_v3": "T4",
    "BM.GPU4.8": "A100-SXM4-40GB",
    "BM.GPU.A100-v2.8": "A100-SXM4-80GB",
    "BM.GPU.H100.8": "H100-SXM5-80GB",
    "BM.GPU.H200.8": "H200-SXM5-141GB",
    "BM.GPU.L40S.4": "L40S",
    "BM.GPU.A10.4": "A10",
    "BM.GPU.MI300X.8": "MI300X",
}


def read(name: str) -> Topology:
    path = topology_folder() / f"{name}.yaml"
    return parse_topology(path.read_text("utf-8"), path.name)


def aliases() -> list[str]:
    return [alias for name in NAMES for alias in read(name).aliases]


def test_the_machines_that_were_promised() -> None:
    assert len(NAMES) >= 38
    assert set(NAMES) >= {
        "dgx-1-v100", "dgx-a100", "dgx-h100", "dgx-h200", "dgx-b200", "gb200-nvl72", "4x-a100-pcie-bridged", "2x-h100-nvl",
        "8x-l40s", "8x-rtx-4090", "4x-rtx-3090-bridged", "4x-a6000-pairs", "8x-a6000", "2x-l4", "8x-t4", "2x-dgx-h100",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_is_named_as_its_file_and_written_as_we_write(name: str) -> None:
    topology = read(name)
    assert topology.name == name
    assert topology.description
    assert dump_topology(topology) == (topology_folder() / f"{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_each_says_where_it_comes_from_and_serves_a_model(name: str) -> None:
    topology = api.load_topology(name)
    assert topology.name == name
    assert topology.origin.kind == "written"
    assert len(topology.origin.source) > 20
    equipped = api.equipped_for_display(topology)
    assert all(not isinstance(link.bandwidth, Unknown) and link.achieved for link in equipped.links)
    answer = api.recommend(api.load_model("llama-3.2-1b"), topology, Workload(), top=1)
    assert answer.plans


@pytest.mark.parametrize("name", NAMES)
def test_every_gpu_is_known_by_the_name_of_its_data_sheet(name: str) -> None:
    hardware = read(name).hardware
    assert hardware
    assert all(load_gpu(gpu).name == gpu for gpu in hardware)


def test_aliases_mean_one_machine_and_nothing_else() -> None:
    counted = Counter(folded(name) for name in [*NAMES, *aliases()])
    assert [name for name, count in counted.items() if count > 1] == []
    assert not [alias for alias in aliases() if looks_like_spec(alias)]


def test_every_instance_of_the_clouds_is_there() -> None:
    assert set(INSTANCES) <= set(aliases())


@pytest.mark.parametrize(("alias", "gpu"), INSTANCES.items())
def test_a_machine_answers_to_its_cloud_name(alias: str, gpu: str) -> None:
    assert api.load_topology(alias).hardware == (gpu,)
    assert api.load_topology(alias.upper()) == api.load_topology(alias)


def test_every_kind_of_machine_that_users_have_is_there() -> None:
    """The classes of 353 matrices out of bug reports of vLLM and SGLang."""
    matrices = [class_matrix(read(name)) for name in NAMES]
    missing = [kind for kind, holds in USERS.items() if not any(holds(*shape(matrix)) for matrix in matrices)]
    assert missing == []


def shape(matrix: list[list[str]]) -> tuple[int, set[str]]:
    """How many GPUs, and which classes stand between them."""
    return len(matrix), {cell for row in matrix for cell in row} - {"X"}


def nvlinks(cells: set[str]) -> set[str]:
    return {cell for cell in cells if cell.startswith("NV")}


USERS: dict[str, Callable[[int, set[str]], bool]] = {
    "NV18 full mesh": lambda gpus, cells: gpus > 2 and cells == {"NV18"},
    "NV12 full mesh": lambda gpus, cells: gpus > 2 and cells == {"NV12"},
    "NV8 full mesh": lambda gpus, cells: gpus > 2 and cells == {"NV8"},
    "NV6 quad": lambda gpus, cells: gpus == 4 and cells == {"NV6"},
    "NV4 quad": lambda gpus, cells: gpus == 4 and cells == {"NV4"},
    "V100 hybrid mesh": lambda gpus, cells: gpus == 8 and nvlinks(cells) == {"NV1", "NV2"},
    "NVLink pairs over PCIe": lambda gpus, cells: gpus > 2 and len(nvlinks(cells)) == 1 and cells > nvlinks(cells),
    "two NVLinked GPUs": lambda gpus, cells: gpus == 2 and len(nvlinks(cells)) == 1,
    "PCIe across sockets": lambda gpus, cells: gpus > 1 and "SYS" in cells and not nvlinks(cells),
    "PCIe within a socket": lambda gpus, cells: gpus > 1 and bool(cells) and cells <= {"PIX", "PXB", "PHB", "NODE"},
    "one GPU": lambda gpus, _: gpus == 1,
}


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_the_matrices_of_the_irregular_ones(name: str) -> None:
    assert class_matrix(api.load_topology(name)) == [row.split() for row in MATRICES[name]]


@pytest.mark.parametrize(("name", "capture"), CAPTURED.items())
def test_a_machine_taken_from_a_capture_has_its_matrix(name: str, capture: str, shared: Path) -> None:
    expected = json.loads((shared / "machines" / "topo-m" / "expected.json").read_text("utf-8"))
    matrix = next(entry["matrix"] for file, entry in expected.items() if file.startswith(f"{capture}-"))
    assert class_matrix(read(name)) == matrix
    repository, number = capture.split("-")
    assert f"{repository} issue {number}" in read(name).origin.source


@pytest.mark.parametrize(
    ("name", "word", "gpus"),
    [
        ("dgx-a100", "NV12", 8),
        ("dgx-h100", "NV18", 8),
        ("dgx-h200", "NV18", 8),
        ("dgx-b200", "NV18", 8),
        ("gb200-nvl72", "NV18", 72),
        ("gb300-nvl72", "NV18", 72),
        ("gcp-a2-megagpu-16g", "NV12", 16),
        ("8x-h800-sxm", "NV8", 8),
        ("4x-a100-sxm-mesh", "NV4", 4),
    ],
)
def test_the_matrices_of_the_switched_ones(name: str, word: str, gpus: int) -> None:
    matrix = class_matrix(api.load_topology(name))
    assert len(matrix) == gpus
    assert {cell for row in matrix for cell in row} == {"X", word}


def test_links_are_shared_resources_of_every_kind() -> None:
    assert {link.kind for name in NAMES for link in read(name).links} == set(LinkKind)


@pytest.mark.parametrize("name", ["1x-gh200", "gb200-tray", "gb200-nvl72", "gb300-tray", "gb300-nvl72"])
def test_a_grace_gpu_hangs_by_its_c2c_link_at_the_rate_of_its_data_sheet(name: str) -> None:
    topology = read(name)
    c2c = [link for link in topology.links if link.kind is LinkKind.C2C]
    assert len(c2c) == len(topology.gpus)
    assert {link.bandwidth for link in c2c} == {load_gpu(topology.hardware[0]).c2c_bandwidth}


@pytest.mark.parametrize("name", NAMES)
def test_no_gpu_has_more_links_than_its_data_sheet(name: str) -> None:
    topology = read(name)
    used: Counter[str] = Counter()
    for link in topology.links:
        if link.kind in {LinkKind.NVLINK, LinkKind.XGMI}:
            used.update({link.a: link.count or 0, link.b: link.count or 0})
    for gpu in topology.gpus:
        spec = load_gpu(gpu.hardware or "")
        assert used[gpu.id] <= (spec.peer_links.links if spec.peer_links else 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_carries_what_its_cable_does(name: str) -> None:
    topology = read(name)
    for link in topology.links:
        if link.kind is LinkKind.NETWORK:
            card = topology.by_id[link.a if topology.by_id[link.a].kind is DeviceKind.NIC else link.b]
            assert card.rate == link.bandwidth


@pytest.mark.parametrize("name", NAMES)
def test_the_way_between_sockets_is_that_of_the_cpu_that_is_named(name: str) -> None:
    topology = read(name)
    rates = load_link_rates()
    for link in topology.links:
        facts = topology.host(topology.by_id[link.a].host).facts if link.kind is LinkKind.SOCKET else None
        if facts is None or isinstance(facts.cpu_vendor, Unknown):
            continue
        family = 0 if isinstance(facts.cpu_family, Unknown) else facts.cpu_family
        model = 0 if isinstance(facts.cpu_model, Unknown) else facts.cpu_model
        assert link.bandwidth == rates.socket(facts.cpu_vendor, family, model)
        assert link.source


def test_a_short_spec_is_no_misspelt_name_of_the_library() -> None:
    assert api.load_topology("8xL40S").origin.kind == "short-spec"
    assert api.load_topology("8x-l40s").origin.kind != "short-spec"
    assert api.load_topology("8X-L40S").name == "8x-l40s"
    assert api.load_topology("dgxh100").name == "dgx-h100"

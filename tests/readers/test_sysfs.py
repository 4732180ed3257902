from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.readers.host_files import HostFiles, names, text
from planner.readers.nics import read_nics
from planner.readers.pci_config import port_type, redirects
from planner.readers.sysfs import NOWHERE, functions, way_to
from replay import ReplayedFiles

ROOT = "/sys/devices/pci0000:17"
DEVICES = "/sys/bus/pci/devices"
PORT, UP, DOWN, UP2, DOWN2 = "0000:17:01.0", "0000:18:00.0", "0000:19:08.0", "0000:1a:00.0", "0000:1b:10.0"
GPU = "0000:1c:00.0"


@pytest.mark.parametrize(
    ("chain", "hops"),
    [
        pytest.param([GPU], [GPU], id="straight at the root, as in some virtual machines"),
        pytest.param([PORT, GPU], [GPU], id="under a root port"),
        pytest.param([PORT, UP, DOWN, GPU], [UP, GPU], id="under a switch"),
        pytest.param([PORT, UP, DOWN, UP2, DOWN2, GPU], [UP, UP2, GPU], id="under two switches"),
        pytest.param([UP, DOWN, GPU], [UP, GPU], id="under a switch whose root port is hidden"),
    ],
)
def test_a_way_has_one_hop_a_switch_and_the_device_itself(chain: list[str], hops: list[str]) -> None:
    files = ReplayedFiles(links={f"{DEVICES}/{GPU}": "/".join((ROOT, *chain))})
    way = way_to(files, GPU)
    assert way.chain == tuple(chain)
    assert [hop.bus_id for hop in way.hops] == hops
    assert way.root == "pci0000:17"
    assert way.numa_node is None


def test_ports_that_say_what_they_are_are_believed() -> None:
    kinds = {PORT: 4, UP: 7}  # a root port, then a bridge to PCI: no switch
    config = {
        f"{DEVICES}/{port}/config": {"size": 256, 6: "10", 0x34: "40", 0x40: f"1000{kind}200"} for port, kind in kinds.items()
    }
    files = ReplayedFiles(links={f"{DEVICES}/{GPU}": f"{ROOT}/{PORT}/{UP}/{GPU}"}, binary=config)
    assert [hop.bus_id for hop in way_to(files, GPU).hops] == [GPU]


def test_what_the_upper_end_cannot_do_the_link_cannot() -> None:
    files = ReplayedFiles(
        {
            f"{DEVICES}/{GPU}/max_link_speed": "16.0 GT/s PCIe",
            f"{DEVICES}/{GPU}/current_link_speed": "8 GT/s",
            f"{DEVICES}/{GPU}/max_link_width": "16",
            f"{DEVICES}/{GPU}/current_link_width": "8",
            f"{DEVICES}/{PORT}/max_link_speed": "8.0 GT/s PCIe",
            f"{DEVICES}/{PORT}/max_link_width": "8",
        },
        links={f"{DEVICES}/{GPU}": f"{ROOT}/{PORT}/{GPU}"},
    )
    hop = way_to(files, GPU).hops[0]
    assert (hop.generation, hop.possible_generation, hop.width, hop.possible_width) == (3, 3, 8, 8)


def test_a_device_that_sys_does_not_show_is_nowhere() -> None:
    assert way_to(ReplayedFiles(), GPU) == NOWHERE


def test_behind_an_inner_host_bridge_that_one_is_the_root() -> None:
    path = "/sys/devices/pci0000:5d/0000:5d:05.5/pci10000:00/10000:00:02.0/10000:01:00.0"
    assert functions(path) == ("pci10000:00", ("10000:00:02.0", "10000:01:00.0"))


@given(st.binary(max_size=4200))
def test_any_configuration_space_is_read(config: bytes) -> None:
    assert port_type(config) in {None, *range(16)}
    assert redirects(config) is None or len(config) >= 4096


@given(st.lists(st.tuples(st.integers(0x40, 0xFC), st.integers(0, 0xFF)), max_size=40))
def test_a_list_of_capabilities_that_runs_in_a_circle_ends(links: list[tuple[int, int]]) -> None:
    config = bytearray(256)
    config[6], config[0x34] = 0x10, 0x40
    for place, following in links:
        config[place + 1] = following
    assert port_type(bytes(config)) in {None, *range(16)}


def card(name: str, state: str, rate: str) -> dict[str, str]:
    folder = f"/sys/class/infiniband/{name}"
    return {f"{folder}/ports/1/state": state, f"{folder}/ports/1/rate": rate}


def test_a_card_without_an_active_port_has_no_rate_and_is_pointed_out() -> None:
    files = ReplayedFiles(
        {
            **card("mlx5_0", "4: ACTIVE", "200 Gb/sec (4X HDR)"),
            **card("mlx5_10", "1: DOWN", "40 Gb/sec (4X QDR)"),
            **card("mlx5_2", "4: ACTIVE", "100 Gb/sec (4X EDR)"),
            "/sys/class/infiniband/mlx5_2/ports/2/state": "4: ACTIVE",
            "/sys/class/infiniband/mlx5_2/ports/2/rate": "100 Gb/sec (4X EDR)",
        }
    )
    cards, findings = read_nics(files)
    assert [(one.label, one.rate) for one in cards] == [("mlx5_0", 25e9), ("mlx5_2", 25e9), ("mlx5_10", None)]
    assert [finding.message for finding in findings] == ["no port is active on mlx5_10"]


def test_a_virtual_function_is_not_a_card_of_its_own() -> None:
    files = ReplayedFiles(
        {
            **card("mlx5_0", "4: ACTIVE", "200 Gb/sec (4X HDR)"),
            **card("mlx5_1", "4: ACTIVE", "200 Gb/sec (4X HDR)"),
        },
        links={"/sys/class/infiniband/mlx5_1/device/physfn": "/sys/devices/pci0000:17/0000:17:01.0/0000:18:00.0"},
    )
    assert [one.label for one in read_nics(files)[0]] == ["mlx5_0"]


def test_files_of_this_host_that_are_not_there_are_unknown_with_their_path() -> None:
    assert "/proc/no/such" in str(text(HostFiles(), "/proc/no/such"))
    assert "/proc/no/such" in str(names(HostFiles(), "/proc/no/such"))

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.capture import Capture, PeerLinkSight
from planner.core.topology import LinkKind
from planner.core.unknown import Unknown
from planner.documents.hardware import load_gpu
from planner.documents.pci_ids import gpu_by_pci_id, load_pci_ids
from planner.errors import BadInput, PlannerError
from planner.readers import clean
from planner.readers.nccl_xml import READER

H100 = 'class="0x030200" vendor="0x10de" device="0x2330"'
X16 = 'link_speed="32.0 GT/s PCIe" link_width="16"'
INTEL = 'arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="143"'


def system(*cpus: str) -> str:
    return '<system version="1">\n' + "\n".join(cpus) + "\n</system>\n"


def cpu(*inside: str, numa: int = 0, more: str = INTEL) -> str:
    return f'<cpu numaid="{numa}" {more}>\n' + "\n".join(inside) + "\n</cpu>"


def gpu(bus: str, dev: int, *inside: str, pci: str = f"{H100} {X16}", more: str = 'sm="90"') -> str:
    return f'<pci busid="{bus}" {pci}>\n<gpu dev="{dev}" {more} rank="{dev}">\n' + "\n".join(inside) + "\n</gpu>\n</pci>"


def bridge(bus: str, *inside: str, ids: str = 'vendor="0x10b5" device="0x9797"', link: str = X16) -> str:
    return f'<pci busid="{bus}" class="0x060400" {ids} {link}>\n' + "\n".join(inside) + "\n</pci>"


def broadcom(subsystem: str, device: str = "0xc030") -> str:
    return f'vendor="0x1000" device="{device}" subsystem_vendor="0x1000" subsystem_device="{subsystem}"'


def read(text: str) -> Capture:
    assert READER.recognises(text)
    return READER.read(text, "topo.xml")


def refused(text: str) -> BadInput:
    with pytest.raises(BadInput) as caught:
        READER.read(text, "topo.xml")
    assert caught.value.path.startswith("topo.xml")
    return caught.value


def test_a_gpu_has_its_place_name_and_capability() -> None:
    capture = read(system(cpu(bridge("0000:08:00.0", gpu("0000:0F:00.0", 0)), numa=1)))
    (found,) = capture.gpus
    assert (found.index, found.bus_id, found.numa_node, found.root) == (0, "0000:0f:00.0", 1, "numa1")
    assert found.model == "H100-SXM5-80GB"
    assert found.facts.compute_capability == "9.0"
    assert [(hop.bus_id, hop.generation, hop.width) for hop in found.hops] == [("0000:08:00.0", 5, 16), ("0000:0f:00.0", 5, 16)]
    assert (capture.host.cpu_vendor, capture.host.cpu_family, capture.host.cpu_model) == ("GenuineIntel", 6, 143)
    assert any("host bridges" in text for text in capture.assumptions)


@pytest.mark.parametrize(
    ("link", "generation", "width"),
    [
        ('link_speed="2.5 GT/s PCIe" link_width="1"', 1, 1),
        ('link_speed="5 GT/s" link_width="8"', 2, 8),
        ('link_speed="8 GT/s" link_width="16"', 3, 16),
        ('link_speed="16 GT/s" link_width="16"', 4, 16),
        ('link_speed="64.0 GT/s PCIe" link_width="2"', 6, 2),
        ('link_speed="" link_width="0"', None, None),
        ('link_speed="Unknown" link_width=""', None, None),
        ("", None, None),
    ],
)
def test_what_is_not_told_of_a_link_is_not_zero(link: str, generation: int | None, width: int | None) -> None:
    (hop,) = read(system(cpu(gpu("0000:01:00.0", 0, pci=f"{H100} {link}")))).gpus[0].hops
    assert (hop.generation, hop.width) == (generation, width)


@pytest.mark.parametrize(
    ("upper", "lower"), [(broadcom("0x0072"), broadcom("0x1003")), (broadcom("0xa096", "0xc010"), broadcom("0xa096", "0xc010"))]
)
def test_a_broadcom_switch_of_two_levels_is_one(upper: str, lower: str) -> None:
    text = system(
        cpu(
            bridge(
                "0000:08:00.0",
                bridge("0000:0a:00.0", gpu("0000:0c:00.0", 0), ids=lower),
                bridge("0000:0d:00.0", gpu("0000:0f:00.0", 1), ids=lower),
                ids=upper,
            )
        )
    )
    assert [[hop.bus_id for hop in found.hops] for found in read(text).gpus] == [
        ["0000:08:00.0", "0000:0c:00.0"],
        ["0000:08:00.0", "0000:0f:00.0"],
    ]


def test_only_the_level_right_below_is_taken_in() -> None:
    ids = broadcom("0xa096", "0xc010")
    inner = bridge("0000:03:00.0", bridge("0000:04:00.0", gpu("0000:05:00.0", 0), ids=ids), ids=ids)
    text = system(cpu(bridge("0000:01:00.0", bridge("0000:02:00.0", inner, ids=ids), ids=ids)))
    assert [hop.bus_id for hop in read(text).gpus[0].hops] == ["0000:01:00.0", "0000:03:00.0", "0000:05:00.0"]


def test_other_switches_in_a_row_stay_two() -> None:
    text = system(cpu(bridge("0000:01:00.0", bridge("0000:02:00.0", gpu("0000:03:00.0", 0)))))
    assert len(read(text).gpus[0].hops) == 3


MI210 = 'class="0x038000" vendor="0x1002" device="0x740f" link_speed="32.0 GT/s PCIe" link_width="16"'
ON_CARD = 'vendor="0x1022" device="0x14c7"'


def test_the_bridge_on_an_amd_card_is_no_switch_and_has_the_cards_speed() -> None:
    card = bridge(
        "0000:21:00.0",
        gpu("0000:23:00.0", 0, pci=MI210, more='sm="104" gcn="910"'),
        ids=ON_CARD,
        link='link_speed="16.0 GT/s PCIe" link_width="8"',
    )
    capture = read(system(cpu(bridge("0000:20:00.0", card))))
    hops = capture.gpus[0].hops
    assert [(hop.bus_id, hop.generation, hop.width) for hop in hops] == [("0000:20:00.0", 5, 16), ("0000:23:00.0", 4, 8)]
    assert capture.gpus[0].model == "MI210"
    assert capture.format == "RCCL topology XML"


@pytest.mark.parametrize(("bus", "hops"), [("0000:23:00.0", 1), ("0000:25:00.0", 2)])
def test_where_no_ids_are_stated_the_bus_number_tells_the_cards_own_bridge(bus: str, hops: int) -> None:
    inside = gpu(bus, 0, pci='class="0x038000"', more='sm="64" gcn="906"')
    assert len(read(system(cpu(bridge("0000:21:00.0", inside, ids="")))).gpus[0].hops) == hops


def test_an_amd_bridge_with_two_devices_behind_it_is_a_switch() -> None:
    pair = (gpu("0000:23:00.0", 0, pci=MI210), gpu("0000:24:00.0", 1, pci=MI210))
    assert len(read(system(cpu(bridge("0000:21:00.0", *pair, ids=ON_CARD)))).gpus[0].hops) == 2


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('sm="120" gcn="908"', "gfx908"),
        ('sm="104" gcn="910"', "gfx90a"),
        ('sm="228" gcn="940"', "gfx942"),
        ('sm="304" gcn="gfx942"', "gfx942"),
        ('sm="104" gcn="gfx90a:sramecc+:xnack-"', "gfx90a"),
        ('sm="96" gcn="1100"', "gfx1100"),
    ],
)
def test_amd_architectures_have_the_compilers_name(more: str, expected: str) -> None:
    assert read(system(cpu(gpu("0000:01:00.0", 0, pci=MI210, more=more)))).gpus[0].facts.compute_capability == expected


def test_an_architecture_nobody_knows_stays_unknown_with_its_reason() -> None:
    capability = read(system(cpu(gpu("0000:01:00.0", 0, pci=MI210, more='gcn="7x"')))).gpus[0].facts.compute_capability
    assert isinstance(capability, Unknown)
    assert "7x" in capability.reason


def test_compute_units_are_no_compute_capability() -> None:
    capability = read(system(cpu(gpu("0000:01:00.0", 0, pci=MI210, more='sm="104"')))).gpus[0].facts.compute_capability
    assert isinstance(capability, Unknown)


def nvlink(target: str, count: int, tclass: str = "0x030200", tag: str = "nvlink") -> str:
    return f'<{tag} target="{target}" count="{count}" tclass="{tclass}"/>'


def test_links_to_all_switches_are_counted_together() -> None:
    switches = [nvlink(f"0000:1{one}:00.0", count, "0x068000") for one, count in zip("abcd", (4, 5, 5, 4), strict=True)]
    assert read(system(cpu(gpu("0000:01:00.0", 0, *switches)))).links == (PeerLinkSight(a=0, b=None, count=18),)


def test_the_switch_of_a_rack_has_a_bus_id_of_its_own() -> None:
    text = system(cpu(gpu("0009:06:00.0", 1, nvlink("fffffff:ff:ff.0", 18, "0x068000"), '<c2c bw="44712" count="5"/>')))
    capture = read(text)
    assert capture.links == (PeerLinkSight(a=1, b=None, count=18),)
    assert capture.gpus[0].c2c
    assert capture.gpus[0].c2c_bandwidth == pytest.approx(223.56e9)


def test_a_pair_is_one_link_and_the_smaller_count_holds() -> None:
    text = system(
        cpu(gpu("0000:01:00.0", 0, nvlink("0000:02:00.0", 4)), gpu("0000:02:00.0", 1, nvlink("0000:01:00.0", 3))),
    )
    capture = read(text)
    assert capture.links == (PeerLinkSight(a=0, b=1, count=3),)
    assert [(finding.code, finding.devices) for finding in capture.findings] == [("link-ends-differ", ("gpu0", "gpu1"))]


def test_infinity_fabric_links_are_their_own_kind() -> None:
    text = system(
        cpu(
            gpu("0000:01:00.0", 0, nvlink("0000:02:00.0", 2, "0x120000", "xgmi"), pci=MI210),
            gpu("0000:02:00.0", 1, nvlink("0000:01:00.0", 2, "0x120000", "xgmi"), pci=MI210),
        )
    )
    assert read(text).links == (PeerLinkSight(a=0, b=1, kind=LinkKind.XGMI, count=2),)


@pytest.mark.parametrize("target", ["0000:01:00.0", "0000:77:00.0", "", "nonsense"])
def test_a_link_to_itself_or_to_nobody_is_a_finding_and_no_link(target: str) -> None:
    capture = read(system(cpu(gpu("0000:01:00.0", 0, nvlink(target, 12)))))
    assert capture.links == ()
    assert [finding.code for finding in capture.findings] == ["nvlink-peers-unknown"]
    assert capture.findings[0].devices == ("gpu0",)


def test_links_to_a_power_cpu_are_not_links_between_gpus() -> None:
    capture = read(system(cpu(gpu("0000:01:00.0", 0, nvlink("0000:77:00.0", 3, "0x068001")), more='arch="ppc64"')))
    assert capture.links == ()
    assert [finding.code for finding in capture.findings] == ["nvlink-to-cpu"]
    assert capture.host.cpu_vendor == "POWER"


def test_network_cards_have_their_place_and_rate() -> None:
    card = '<pci busid="0000:0c:00.0" class="0x020000"><nic><net name="mlx5_0" dev="0" speed="400000" port="1"/></nic></pci>'
    text = system(cpu(bridge("0000:08:00.0", gpu("0000:0f:00.0", 0), card), '<nic><net name="eth0" speed="-1"/></nic>'))
    first, second = read(text).nics
    assert (first.label, first.bus_id, first.rate, len(first.hops)) == ("mlx5_0", "0000:0c:00.0", 50e9, 2)
    assert (second.label, second.bus_id, second.rate, second.hops) == ("eth0", None, None, ())


def test_the_two_ports_of_a_card_are_two_and_a_virtual_card_of_them_is_none() -> None:
    nets = "".join(f'<net name="{name}" speed="200000"/>' for name in ("mlx5_0", "mlx5_1", "mlx5_0+mlx5_1"))
    text = system(cpu(gpu("0000:0f:00.0", 0), f'<pci busid="0000:0c:00.0" class="0x020000"><nic>{nets}</nic></pci>'))
    assert [card.label for card in read(text).nics] == ["mlx5_0", "mlx5_1"]


def test_a_card_of_200_terabits_is_not_believed() -> None:
    text = system(cpu(gpu("0000:0f:00.0", 0), '<nic><net name="cxi0" speed="200000000"/></nic>'))
    capture = read(text)
    assert capture.nics[0].rate is None
    assert [finding.code for finding in capture.findings] == ["nic-rate-implausible"]


def test_a_numa_node_of_minus_one_is_unknown_and_still_one_root() -> None:
    capture = read(system(cpu(gpu("0000:01:00.0", 0), gpu("0000:02:00.0", 1), numa=-1, more='arch="arm64"')))
    assert [found.numa_node for found in capture.gpus] == [None, None]
    assert capture.gpus[0].root == capture.gpus[1].root
    assert capture.host.cpu_vendor == "ARM"


def test_amd_cpus_have_the_family_that_linux_prints() -> None:
    amd = 'arch="x86_64" vendor="AuthenticAMD" familyid="175" modelid="1"'
    assert read(system(cpu(gpu("0000:01:00.0", 0), more=amd))).host.cpu_family == 0x19


@pytest.mark.parametrize(("first", "second"), [('dev="0"', 'dev="0"'), ('dev="3"', ""), ('dev="-1"', 'dev="x"')])
def test_gpus_without_numbers_of_their_own_are_numbered_by_bus_id(first: str, second: str) -> None:
    text = system(
        cpu(
            f'<pci busid="0000:9b:00.0" {H100}><gpu {first} sm="90"/></pci>',
            f'<pci busid="0000:1b:00.0" {H100}><gpu {second} sm="90"/></pci>',
        )
    )
    capture = read(text)
    assert [(found.index, found.bus_id) for found in capture.gpus] == [(0, "0000:1b:00.0"), (1, "0000:9b:00.0")]
    assert [finding.code for finding in capture.findings] == ["gpu-index-unclear"]


def test_several_ranks_on_a_gpu_are_one_gpu() -> None:
    text = system(cpu(f'<pci busid="0002:81:00.0" {H100}><gpu dev="0" sm="90" rank="0"/><gpu dev="0" sm="90" rank="1"/></pci>'))
    capture = read(text)
    assert len(capture.gpus) == 1
    assert [finding.code for finding in capture.findings] == ["gpu-shared"]


def test_two_hosts_in_one_file_are_refused() -> None:
    text = system(
        cpu(gpu("0000:01:00.0", 0), more='host_hash="0x1"'), cpu(gpu("0000:02:00.0", 1), numa=1, more='host_hash="0x2"')
    )
    error = refused(text)
    assert "more than one host" in error.problem
    assert error.path == "topo.xml, line 9"


def test_two_gpus_with_one_bus_id_are_refused() -> None:
    assert "bus id" in refused(system(cpu(gpu("0000:01:00.0", 0), gpu("0000:01:00.0", 1)))).problem


def test_a_skeleton_is_refused_with_what_to_do() -> None:
    error = refused("<!-- for NCCL_TOPO_FILE -->\n" + system(cpu(f'<pci busid="0000:10:1c.0" {H100}/>')))
    assert "skeleton" in error.problem
    assert error.path == "topo.xml, line 2"
    assert "NCCL_TOPO_DUMP_FILE" in error.hint


WHOLE = system(cpu(gpu("0000:01:00.0", 0)))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (WHOLE.replace("</pci>\n", ""), 7),
        (WHOLE.removesuffix("</system>\n"), 9),
        (WHOLE.removeprefix('<system version="1">\n'), 1),
        (WHOLE.replace('dev="0"', 'dev="0'), 4),
        (WHOLE + WHOLE, 10),
        (WHOLE.replace('dev="0"', 'dev="&bomb;"'), 4),
        ('<!DOCTYPE system [<!ENTITY bomb "x">]>\n' + WHOLE, 1),
        (WHOLE.replace("<cpu", '<!entity a "b">\n<cpu', 1), 2),
    ],
    ids=["no end tag", "cut", "head gone", "quote gone", "twice", "entity", "document type", "entity declared"],
)
def test_damage_is_refused_with_its_line(text: str, line: int) -> None:
    assert refused(text).path == f"topo.xml, line {line}"


def test_limits_hold() -> None:
    assert "nested" in refused(system(cpu("<pci>" * 80 + "</pci>" * 80))).problem
    assert "elements" in refused(system("<x/>" * 100_001)).problem
    assert "characters" in refused(system(" " * 5_000_000)).problem
    many = [gpu(f"{one // 256:04x}:{one % 256:02x}:00.0", one) for one in range(257)]
    assert "256 GPUs" in refused(system(cpu(*many))).problem


def test_the_file_may_stand_in_a_log_and_be_quoted() -> None:
    text = "[0] NCCL INFO dump\n" + "\n".join(f"> {line}" for line in WHOLE.split("\n")) + "\nthat was it\n"
    assert read(text).gpus[0].bus_id == "0000:01:00.0"


def test_elements_nobody_knows_are_passed_over() -> None:
    text = system(cpu('<gpus><gpu dev="9"/></gpus>', gpu("0000:01:00.0", 0, "<future><nvlink/></future>")))
    assert [found.index for found in read(text).gpus] == [0]


@pytest.mark.parametrize("text", ["", "<nvidia_smi_log>", "GPU0 GPU1", "<system>", '<topology version="2.0">'])
def test_other_text_is_not_ours(text: str) -> None:
    assert not READER.recognises(text)


def test_every_pci_id_names_a_gpu_that_has_a_data_sheet() -> None:
    for name in load_pci_ids().values():
        assert load_gpu(name).name == name
    assert gpu_by_pci_id(0x1002, 0x740C) is None
    assert gpu_by_pci_id(0x1002, 0x740C, 110) == "MI250X-GCD"
    assert gpu_by_pci_id(0xFFFF, 0xFFFF) is None


PIECES = st.sampled_from(
    [
        '<system version="1">', "</system>", "<cpu", "</cpu>", ' numaid="0"', "<pci", "</pci>", ' busid="0000:01:00.0"', "<gpu", "/>",
        ' dev="0"', ">", "<nvlink", ' target="0000:01:00.0"', ' count="9"', "<!--", "-->", "<nic>", "</nic>", '<net name="a"/>', "&", "\n",
    ]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES).map("".join), st.lists(PIECES).map(lambda parts: system(cpu(*parts)))))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert READER.recognises(text) in {True, False}
    try:
        assert READER.read(text, "any").gpus
    except PlannerError as error:
        assert error.path.startswith("any")


SKELETONS = {"003", "005", "007", "011", "013"}


def test_every_published_file_is_read_or_is_a_skeleton(shared: Path) -> None:
    paths = sorted((shared / "machines" / "nccl-xml").glob("*.xml"))
    assert len(paths) >= 35
    for path in paths:
        text = clean(path.read_text("utf-8"))
        if path.name[:3] in SKELETONS:
            assert "skeleton" in refused(text).problem
            continue
        capture = read(text)
        assert len(capture.gpus) == text.count("<gpu "), path.name
        assert all(found.hops and found.numa_node is not None for found in capture.gpus), path.name
        assert all(link.b is None or link.a < link.b for link in capture.links)
        assert not any(finding.code == "link-ends-differ" for finding in capture.findings), path.name


def test_the_h100_of_a_cloud_reaches_a_card_through_one_switch(shared: Path) -> None:
    (path,) = (shared / "machines" / "nccl-xml").glob("009-*.xml")
    capture = read(clean(path.read_text("utf-8")))
    assert {found.model for found in capture.gpus} == {"H100-SXM5-80GB"}
    assert [link.count for link in capture.links] == [18] * 8
    for found, card in zip(capture.gpus[:1], capture.nics[:1], strict=True):
        assert [hop.bus_id for hop in found.hops[:-1]] == [hop.bus_id for hop in card.hops[:-1]]
        assert len(found.hops) == 2

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.capture import Capture
from planner.core.facts import NvlinkFacts
from planner.core.unknown import Unknown
from planner.errors import BadInput, PlannerError
from planner.readers import clean
from planner.readers.gpu_list import READER as LIST
from planner.readers.nvlink_status import READER
from planner.readers.refusals import refuse
from planner.units import BytesPerSecond

FIRST, SECOND = "GPU-1f0e8a8c-9a5b-4f6e-8f3b-0d9f6c1c2b3a", "GPU-2f0e8a8c-9a5b-4f6e-8f3b-0d9f6c1c2b3a"
PAIR = f"""\
GPU 0: NVIDIA RTX A6000 (UUID: {FIRST})
\t Link 0: 14.062 GB/s
\t Link 1: 14.062 GB/s
\t Link 2: <inactive>
GPU 1: NVIDIA RTX A6000 (UUID: {SECOND})
\t Link 0: 14.062 GB/s
\t Link 1: 14.062 GB/s
\t Link 2: <inactive>
"""
REMOTE = f"""\
GPU 0: NVIDIA RTX A6000 (UUID: {FIRST})
\t Link 0: Remote Device 00000000:D5:00.0: Link 3
\t Link 1: Remote Device FFFFFFFF:FFFF:FF.0: Link 4294967295
"""
ERRORS = f"""\
GPU 0: NVIDIA RTX A6000 (UUID: {FIRST})
\t Link 0: Replay Errors: 0
\t Link 0: Recovery Errors: 0
\t Link 0: CRC Errors: 0
"""


def read(text: str) -> Capture:
    text = clean(text)
    assert READER.recognises(text)
    return READER.read(text, "paste")


def links(capture: Capture, place: int = 0) -> tuple[NvlinkFacts, ...]:
    found = capture.gpus[place].facts.nvlinks
    assert not isinstance(found, Unknown)
    return found


def speeds(capture: Capture) -> list[list[float]]:
    return [
        [link.bandwidth if not isinstance(link.bandwidth, Unknown) else 0 for link in links(capture, place)]
        for place in range(len(capture.gpus))
    ]


DIALECTS = {
    "plain": PAIR,
    "crlf": PAIR.replace("\n", "\r\n"),
    "blanks": PAIR.replace("\t Link", "         Link"),
    "no indentation": PAIR.replace("\t Link", "Link"),
    "quoted": "".join(f"> {line}\n" for line in PAIR.splitlines()),
    "log prefix": "".join(f"2026-03-04 10:26:11,402 INFO worker.py:88 {line}\n" for line in PAIR.splitlines()),
    "double spaced": PAIR.replace("\n", "\n\n"),
    "fenced": f"### nvidia-smi nvlink -s\n```\n{PAIR}```\nthanks!\n",
    "counters follow": f"{PAIR}\n### nvidia-smi nvlink -e\n{ERRORS}",
    "counters follow at once": PAIR + ERRORS,
    "a list of the GPUs comes before": f"$ nvidia-smi -L\nGPU 0: NVIDIA RTX A6000 (UUID: {FIRST})\nGPU 2: NVIDIA L4\n$ nvidia-smi nvlink -s\n{PAIR}",
    "twice": PAIR + PAIR,
    "coloured": PAIR.replace("GPU 0", "\x1b[1mGPU 0\x1b[0m"),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_same_links(name: str) -> None:
    capture = read(DIALECTS[name])
    assert speeds(capture) == [[14.062e9, 14.062e9, 0], [14.062e9, 14.062e9, 0]]
    assert [gpu.index for gpu in capture.gpus] == [0, 1]
    assert {gpu.model for gpu in capture.gpus} == {"NVIDIA RTX A6000"}
    assert [gpu.facts.uuid for gpu in capture.gpus] == [FIRST, SECOND]
    assert [link.active for link in links(capture)] == [True, True, False]
    assert capture.findings == ()


@pytest.mark.parametrize("mark", ["...", "\t ...", "[...]", "…", "> [snip]"])
def test_elided_links_are_unknown_and_not_counted(mark: str) -> None:
    text = f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {FIRST})\n\t Link 0: 26.562 GB/s\n{mark}\n\t Link 17: 26.562 GB/s\n"
    capture = read(text)
    assert isinstance(capture.gpus[0].facts.nvlinks, Unknown)
    assert "elided" in capture.gpus[0].facts.nvlinks.reason
    assert [finding.code for finding in capture.findings] == ["nvlink-elided"]
    whole = read(text + f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {FIRST})\n\t Link 0: 26.562 GB/s\n\t Link 1: 26.562 GB/s\n")
    assert len(links(whole)) == 2


@pytest.mark.parametrize(
    "uuid", ["GPU-xxxxxxxx-...", "GPU-略-332e-08e4-72fe-略", "GPU-00000000-0000-0000-0000-000000000000", "***"]
)
def test_a_redacted_uuid_is_unknown(uuid: str) -> None:
    assert isinstance(read(PAIR.replace(FIRST, uuid)).gpus[0].facts.uuid, Unknown)


def test_a_gpu_without_links_has_none_and_the_reader_says_so() -> None:
    third = "GPU 2: NVIDIA RTX A6000\n"
    silent = read(PAIR + third)
    assert links(silent, 2) == ()
    assert [finding.code for finding in silent.findings] == ["nvlink-none-listed"]
    said = read(PAIR + third + "NVML: Unable to retrieve NVLink information as all links are inActive\n")
    assert links(said, 2) == ()
    assert [finding.code for finding in said.findings] == ["nvlink-inactive"]
    alone = read("GPU 0: NVIDIA A100-PCIE-40GB\nNVML: Unable to retrieve Nvlink information as all links are inActive\n")
    assert links(alone) == ()


def test_the_far_end_of_a_link_is_a_bus_id_where_it_has_one() -> None:
    far = links(read(REMOTE))
    assert [(link.link, link.active) for link in far[:1]] == [(0, True)]
    assert far[0].remote_bus_id == "0000:d5:00.0"
    assert isinstance(far[1].remote_bus_id, Unknown)
    assert isinstance(far[1].active, Unknown)
    both = links(read(PAIR + REMOTE))
    assert (both[0].bandwidth, both[0].remote_bus_id) == (BytesPerSecond(14.062e9), "0000:d5:00.0")
    assert len(both) == 3
    (first,) = links(read(f"GPU 0: NVIDIA H100 (UUID: {FIRST})\n\tLink 0: 00000000:D5:00.0\n"))
    assert first.remote_bus_id == "0000:d5:00.0"


def test_two_lists_that_disagree_are_a_finding() -> None:
    capture = read(PAIR + PAIR.replace("Link 1: 14.062 GB/s", "Link 1: <inactive>"))
    assert {finding.code for finding in capture.findings} == {"several-nvlink-lists"}
    assert speeds(capture)[0] == [14.062e9, 14.062e9, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ERRORS, "error counters"),
        (f"GPU 0: Tesla T4 (UUID: {FIRST})\n\tLinks 0-5: No errors\n", "error counters"),
        ("\tLink 17: 26.562 GB/s\n", "without its lines"),
    ],
)
def test_what_is_no_list_of_links_is_refused_by_its_name(text: str, words: str) -> None:
    assert not READER.recognises(text)
    assert not LIST.recognises(text)
    assert words in refuse(text, "paste").problem


def test_more_gpus_than_a_host_has_are_refused() -> None:
    with pytest.raises(BadInput, match="256"):
        read("".join(f"GPU {index}: A\n\tLink 0: 1 GB/s\n" for index in range(300)))


def test_a_list_without_any_gpu_is_refused_with_a_hint() -> None:
    with pytest.raises(BadInput) as refusal:
        READER.read("", "paste")
    assert refusal.value.hint
    with pytest.raises(BadInput):
        LIST.read("", "paste")


LISTED = f"""\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: {FIRST})
  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: {SECOND})
"""


def test_a_list_of_gpus_gives_models_and_uuids() -> None:
    assert LIST.recognises(LISTED)
    capture = LIST.read(LISTED + "\nGPU 0: x (UUID: y)\n", "paste")
    assert [(gpu.index, gpu.model, gpu.facts.uuid) for gpu in capture.gpus] == [
        (0, "NVIDIA H100 80GB HBM3", FIRST),
        (1, "NVIDIA H100 80GB HBM3", SECOND),
    ]
    assert capture.gpus[0].facts.multi_instance == "enabled"
    assert isinstance(capture.gpus[1].facts.multi_instance, Unknown)
    assert not LIST.recognises(PAIR)
    assert not READER.recognises(LISTED)


def test_shared_captures_are_read_or_refused(shared: Path) -> None:
    expected = {
        "003": [None],
        "004": [4, 4, 0],
        "005": [12],
        "006": [6, 6, 6, 4, 5, 4, 5],
        "007": [4, 4],
        "008": [4, 4],
        "009": [18, 18],
        "010": [4, None],
    }
    for path in sorted((shared / "machines" / "nvlink-s").glob("*.txt")):
        text = clean(path.read_text(encoding="utf-8"))
        if path.name[:3] not in expected:
            assert not READER.recognises(text), path.name
            continue
        counts = [
            None if isinstance(gpu.facts.nvlinks, Unknown) else sum(link.active is True for link in gpu.facts.nvlinks)
            for gpu in read(text).gpus
        ]
        assert counts == expected[path.name[:3]], path.name


def test_other_captures_are_not_taken_for_lists(shared: Path) -> None:
    for folder in ("topo-m", "topo-m-damaged", "p2p-status", "nccl-xml", "p2p-bandwidth", "other-vendor"):
        for path in sorted((shared / "machines" / folder).glob("*.[tx]*")):
            text = clean(path.read_text(encoding="utf-8", errors="replace"))
            assert not READER.recognises(text), path.name
            assert not LIST.recognises(text), path.name


ANYTHING = st.lists(
    st.sampled_from([*PAIR.splitlines(), *REMOTE.splitlines(), *ERRORS.splitlines(), *LISTED.splitlines(), "...", ""])
    | st.text(max_size=30),
    max_size=20,
).map("\n".join)


@given(ANYTHING)
def test_any_text_gives_a_capture_or_a_refusal(text: str) -> None:
    for reader in (READER, LIST):
        if reader.recognises(text):
            try:
                assert reader.read(text, "paste").gpus
            except PlannerError as problem:
                assert problem.path

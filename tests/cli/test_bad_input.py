"""Whatever people give: one clear message on standard error, the place, a hint, exit code 2, no traceback."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from support import Planner, Run

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
NPU = """\
+------------------------------------------------------------------------------------------+
| npu-smi 23.0.rc2                 Version: 23.0.rc2                                        |
+---------------------------+---------------+----------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)    Hugepages-Usage(page) |
| 0     910B3               | OK            | 95.6        41         0    / 0              |
"""


def refused(run: Run, *words: str) -> None:
    assert run.code == 2, run
    assert run.out == ""
    assert run.err.strip()
    assert "Traceback" not in run.err
    assert len(run.err) < 900
    for word in words:
        assert word in run.words, run.err


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)  # noqa: S311 - the same noise every time, no secret


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("is empty",)),
        (b"  \n\n\t", ("is empty",)),
        (PNG, ("PNG picture", "hint")),
        (b"\xff\xd8\xff\xe0JFIF", ("JPEG picture",)),
        (NPU.encode(), ("npu-smi", "hint")),
        (noise(100_000), ("text",)),
        (b"hello there\nhow are you\n", ("hint",)),
        (b"x" * 5_000_000, ("larger than",)),
        (b"\x00" * 1000, ("binary",)),
    ],
    ids=["empty", "blank", "png", "jpeg", "npu-smi", "noise", "prose", "five megabytes", "zeros"],
)
@pytest.mark.parametrize("how", ["probe", "probe -", "recommend"])
def test_what_is_no_topology(planner: Planner, tmp_path: Path, content: bytes, words: tuple[str, ...], how: str) -> None:
    path = tmp_path / "capture.txt"
    path.write_bytes(content)
    if how == "probe":
        refused(planner("probe", str(path)), str(path), *words)
    elif how == "probe -":
        refused(planner("probe", "-", stdin=content), "<stdin>", *words)
    else:
        refused(planner("recommend", "llama-3.1-8b", "--topology", str(path)), *words)


def test_a_hundred_megabytes_are_not_read_to_the_end(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "noise.txt"
    with path.open("wb") as stream:
        for _ in range(100):
            stream.write(noise(1_000_000))
    refused(planner("probe", str(path)), "larger than 4 MB")


def test_a_missing_file_a_directory_and_a_missing_machine(planner: Planner, tmp_path: Path) -> None:
    refused(planner("probe", str(tmp_path / "gone.txt")), "no such file", "gone.txt")
    refused(planner("probe", str(tmp_path)), "directory")
    refused(planner("recommend", "llama-3.1-8b", "-t", "dgx-h10"), "unknown topology", "dgx-h100")
    refused(planner("recommend", "llama-3.1-8b", "-t", "8xH1000"), "unknown GPU", "nearest known")
    refused(planner("recommend", "llama-3.1-8b", "-t", ""), "empty name")


def test_a_typo_in_a_gpu_or_a_model(planner: Planner) -> None:
    refused(planner("probe", "2x-l4", "--gpu", "L4O"), "unknown GPU", "L4")
    refused(planner("recommend", "lama-3.1-8b", "-t", "2x-l4"), "unknown model", "llama-3.1-8b")
    refused(planner("recommend", "llama-3.1-8b", "-t", "2x-l4", "--engine", "vlm"), "unknown engine", "vllm")
    refused(planner("recommend", "llama-3.1-8b", "-t", "2x-l4", "--quant", "fp9"), "unknown quantisation", "fp8")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "", "99999999999"])
@pytest.mark.parametrize("option", ["--input-tokens", "--output-tokens", "--concurrency", "--top"])
def test_counts_are_positive_whole_numbers(planner: Planner, option: str, value: str) -> None:
    refused(planner("recommend", "llama-3.1-8b", "-t", "2x-l4", option, value), option)


@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "fast"])
@pytest.mark.parametrize("option", ["--ttft-ms", "--tpot-ms"])
def test_targets_are_positive_numbers(planner: Planner, option: str, value: str) -> None:
    refused(planner("recommend", "llama-3.1-8b", "-t", "2x-l4", option, value), option)


@pytest.mark.parametrize("option", ["--tp", "--pp", "--dp", "--ep"])
@pytest.mark.parametrize("value", ["0", "-2", "two"])
def test_degrees_are_positive_whole_numbers(planner: Planner, option: str, value: str) -> None:
    refused(planner("estimate", "llama-3.1-8b", "-t", "2x-l4", option, value), option)


def test_a_typo_in_a_command_or_an_option(planner: Planner) -> None:
    refused(planner("recomend", "llama-3.1-8b"), "recommend")
    refused(planner("recommend", "llama-3.1-8b", "--topolgy", "2x-l4"), "--topology")
    refused(planner("recommend", "llama-3.1-8b", "-t", "2x-l4", "--format", "xml"), "table", "json")
    refused(planner("recommend"), "MODEL")


DOCUMENT = """\
schema_version: 1
name: box
origin:
  kind: written
  source: by hand
hosts:
- name: node0
  devices:
  - {id: socket0, kind: socket}
  - {id: gpu0, kind: gpu, index: 0, gpu: L4}
  - {id: gpu1, kind: gpu, index: 1, gpu: L4}
  links:
  - {between: [socket0, gpu0], kind: pcie, bandwidth: 16 GB/s}
  - {between: [socket0, gpu1], kind: pcie}
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("16 GB/s", "16", ("unit", ".links[0].bandwidth")),
        ("16 GB/s", "-16 GB/s", (".links[0].bandwidth",)),
        ("16 GB/s", "16 parsecs", ("parsecs", ".links[0].bandwidth")),
        ("[socket0, gpu0]", "[socket0, gpu9]", ("gpu9",)),
        ("kind: pcie", "kind: wet string", (".links[0].kind",)),
        ("name: box", "name: box\nname: box", ("name", "line")),
        ("name: box", "name: box\ncolour: red", ("colour",)),
        ("schema_version: 1", "schema_version: 7", ("schema_version",)),
        ("index: 1", "index: 0", ("index",)),
        ("links:", "links: &a", ("anchor",)),
        ("name: box", "name: !!python/object:os.system box", ("tag",)),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_topology_document_that_is_wrong(planner: Planner, tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(DOCUMENT)
    good = planner("probe", str(path))
    assert good.code == 0, good.err
    path.write_text(DOCUMENT.replace(old, new, 1))
    refused(planner("probe", str(path)), "box.yaml", *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("is empty",)),
        ("{", ("not valid JSON", "line 1")),
        ("{}", ("architecture",)),
        (json.dumps({"architectures": ["BertModel"]}), ("BertModel", "nearest supported")),
        (json.dumps({"architectures": ["LlamaForCausalLM"]}), ("$.hidden_size", "missing")),
    ],
    ids=["empty", "half", "nothing", "encoder", "bare"],
)
def test_a_config_that_is_wrong(planner: Planner, tmp_path: Path, content: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    refused(planner("recommend", str(path), "-t", "2x-l4"), "config.json", *words)


def test_a_capture_that_does_not_name_its_gpus(planner: Planner) -> None:
    text = "\tGPU0\tGPU1\nGPU0\t X \tPIX\nGPU1\tPIX\t X \n"
    assert planner("probe", "-", stdin=text).code == 0
    refused(planner("recommend", "qwen3-8b", "-t", "-", stdin=text), "--gpu")
    assert planner("recommend", "qwen3-8b", "-t", "-", "--gpu", "L4", stdin=text).code == 0


@pytest.mark.parametrize("machine", ["dgx-h100", "8xH100-SXM5-80GB", "-"])
def test_a_machine_that_names_its_gpus_takes_no_other_name_for_them(planner: Planner, machine: str) -> None:
    listed = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2)\n"
    text = f"{listed}\tGPU0\tGPU1\nGPU0\t X \tNV18\nGPU1\tNV18\t X \n"
    refused(planner("recommend", "qwen3-8b", "-t", machine, "--gpu", "L4", stdin=text), "H100-SXM5-80GB", "leave out --gpu")
    assert planner("recommend", "qwen3-8b", "-t", machine, "--gpu", "h100 sxm5 80gb", stdin=text).code == 0


def test_a_gpu_that_a_capture_names_in_words_nobody_knows_may_be_named(planner: Planner) -> None:
    listed = "GPU 0: NVIDIA Graphics Device (UUID: GPU-1)\nGPU 1: NVIDIA Graphics Device (UUID: GPU-2)\n"
    text = f"{listed}\tGPU0\tGPU1\nGPU0\t X \tPIX\nGPU1\tPIX\t X \n"
    run = planner("probe", "-", "--gpu", "L4", "--format", "json", stdin=text)
    assert {gpu["name"] for gpu in run.document["gpus"]} == {"L4"}


def test_a_broken_matrix_names_its_line(planner: Planner) -> None:
    text = "\tGPU0\tGPU1\tGPU2\nGPU0\t X \tPIX\tWAT\nGPU1\tPIX\t X \tSYS\nGPU2\tWAT\tSYS\t X \n"
    refused(planner("probe", "-", stdin=text), "line 2", "WAT")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--draft-tokens", "4"), ("--draft-tokens", "--speculative mtp|eagle3|ngram")),
        (("--acceptance-rate", "0.7"), ("--acceptance-rate", "--speculative mtp|eagle3|ngram")),
        (("--speculative", "mpt"), ("'mpt'", "mtp, eagle3, ngram")),
        (("--speculative", "ngram"), ("--acceptance-rate", "metrics")),
        (("--speculative", "eagle3", "--acceptance-rate", "0.7"), ("--draft-model", "trained for MODEL")),
        (("--speculative", "ngram", "--acceptance-rate", "0.7", "--draft-model", "x/y"), ("--draft-model", "leave it out")),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("command", ["recommend", "estimate", "explain"])
def test_guesses_that_are_said_by_halves(
    planner: Planner, command: str, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """An option that would do nothing is refused, with the one that it needs or that should go."""
    refused(planner(command, "llama-3.1-70b", "-t", "dgx-h100", *options), *words, "hint")

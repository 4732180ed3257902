"""planner collective: the table, its JSON and CSV, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re

import jsonschema
import pytest

from planner.core.operation import OPERATIONS
from planner.documents.files import DATA
from support import Planner

SCHEMA = json.loads((DATA / "schemas" / "collective.schema.json").read_text("utf-8"))


def test_the_table_is_laid_out_as_nccl_tests_lay_it_out(planner: Planner) -> None:
    run = planner("collective", "all-reduce", "-t", "dgx-h100", "--gpus", "0,1,2,3", "-b", "1M", "-e", "4M", "--impl", "nccl")
    assert (run.code, run.err) == (0, "")
    rows = [line.split() for line in run.out.splitlines() if not line.startswith("#")]
    assert [row[:3] for row in rows] == [
        ["1048576", "262144", "float"],
        ["2097152", "524288", "float"],
        ["4194304", "1048576", "float"],
    ]
    for row in rows:
        size, time, algorithm, bus = float(row[0]), *(float(cell) for cell in row[3:6])
        assert algorithm == pytest.approx(size / time / 1e3, abs=0.01)
        assert bus == pytest.approx(1.5 * algorithm, abs=0.02)
        assert row[6] == "nccl:"
    assert "NVLink gpu0" in run.out
    assert re.search(r"# error bars: \w+ confidence, nine of ten measured from [\d.]+ to [\d.]+ times this", run.out)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("topology", ["dgx-h100", "8x-l40s", "2x-dgx-h100", "4x-rtx-3090-bridged"])
def test_the_document_keeps_its_schema(planner: Planner, operation: str, topology: str) -> None:
    run = planner("collective", operation, "-t", topology, "-e", "1M", "-f", "16", "--format", "json")
    assert (run.code, run.err) == (0, "")
    errors = [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(run.document)]
    assert errors == []
    times = [one["time_s"] for one in run.document["predictions"]]
    assert times == sorted(times)
    for one in run.document["predictions"]:
        assert one["time_low_s"] < one["time_s"] < one["time_high_s"]


def test_csv_holds_the_same_numbers(planner: Planner) -> None:
    question = ("collective", "alltoall", "-t", "8xL40S", "-b", "64K", "-e", "16M", "-f", "4", "--impl", "nccl")
    rows = list(csv.DictReader(io.StringIO(planner(*question, "--format", "csv").out)))
    document = planner(*question, "--format", "json").document
    assert [int(row["size_bytes"]) for row in rows] == [65536 * 4**step for step in range(5)]
    assert [float(row["time_s"]) for row in rows] == [one["time_s"] for one in document["predictions"]]


def test_auto_is_the_fastest(planner: Planner) -> None:
    def times(implementation: str) -> list[float]:
        question = ("collective", "all-reduce", "-t", "dgx-h100", "--impl", implementation, "--format", "json")
        return [one["time_s"] for one in planner(*question).document["predictions"]]

    known = [times(name) for name in ("nccl", "vllm", "tensorrt-llm", "sglang")]
    assert times("auto") == [min(row) for row in zip(*known, strict=True)]


def test_auto_is_no_engine_that_does_not_run_on_these_gpus(planner: Planner) -> None:
    question = ("collective", "all-reduce", "-t", "oci-bm-gpu-mi300x-8", "-b", "8", "-e", "256M", "--format", "json")
    answered = {one["implementation"] for one in planner(*question).document["predictions"]}
    assert answered
    assert answered <= {"nccl", "vllm", "sglang"}
    run = planner(*question, "--impl", "tensorrt-llm")
    assert (run.code, run.out) == (2, "")
    assert "tensorrt-llm does not run on AMD GPUs hint: take auto, nccl, sglang, vllm" in run.words


def test_gpus_are_named_as_tables_print_them(planner: Planner) -> None:
    question = ("collective", "send-recv", "-t", "8x-l40s", "-b", "1M", "-e", "1M", "--format", "json", "--gpus")
    assert planner(*question, "0-2,6").document["gpus"] == [0, 1, 2, 6]
    assert planner(*question, "3-1").document["gpus"] == [3, 2, 1]
    assert planner(*question, "0-2,6").out == planner(*question, "0,1,2,6").out


def test_links_nobody_measured_say_so(planner: Planner) -> None:
    run = planner("collective", "all-reduce", "-t", "8x-l40s", "--impl", "nccl")
    assert "low confidence" in run.words
    assert "measure them" in run.words


def test_one_gpu_takes_no_time_and_says_why(planner: Planner) -> None:
    run = planner("collective", "all-reduce", "-t", "dgx-h100", "--gpus", "3", "-b", "1M", "-e", "1M")
    assert run.code == 0
    assert "one GPU has nobody to talk to" in run.out
    assert run.out.splitlines()[3].split()[3] == "0.00"


def test_without_cuda_graphs_a_launch_has_a_price(planner: Planner) -> None:
    question = ("collective", "all-reduce", "-t", "dgx-h100", "-b", "8", "-e", "8", "--format", "json")
    (graph,), (eager,) = (planner(*question, *more).document["predictions"] for more in ((), ("--eager",)))
    assert graph["time_s"] < eager["time_s"] == pytest.approx(20e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("all-produce",), "unknown operation 'all-produce'"),
        (("all-reduce", "--gpus", "0,9"), "no GPU 9 hint: its GPUs are 0 to 7"),
        (("all-reduce", "--gpus", "-1,2"), "no GPU -1"),
        (("all-reduce", "--gpus", "1,1"), "GPU 1 is named twice"),
        (("all-reduce", "--gpus", "a-b"), "'a-b' does not name GPUs"),
        (("all-reduce", "--gpus", "0-9"), "no GPU 8 hint: its GPUs are 0 to 7"),
        (("all-reduce", "--gpus", "0-3,2"), "GPU 2 is named twice"),
        (("all-reduce", "--gpus", "0-"), "'0-' does not name GPUs"),
        (("all-reduce", "--gpus", "0-" + "9" * 5000), "does not name GPUs"),
        (("all-reduce", "--gpus", "0-999999999"), "'0-999999999' are more than 100000 GPUs"),
        (("all-reduce", "-b", "x"), "-b: 'x' is not a size"),
        (("all-reduce", "-b", "0"), "-b: '0' is not a size"),
        (("all-reduce", "-e", "1e9999"), "-e: '1e9999' is not a size"),
        (("all-reduce", "-e", "9" * 400), "is not a size"),
        (("all-reduce", "-b", "2M", "-e", "1M"), "begins at 2097152 bytes and ends at 1048576"),
        (("all-reduce", "-f", "1"), "a factor of 1 never ends"),
        (("all-reduce", "-f", "nan"), "a factor of nan never ends"),
        (("all-reduce", "-f", "1.0000001"), "more than 1000 sizes"),
        (("all-reduce", "--impl", "gloo"), "unknown implementation 'gloo'"),
        (("all-reduce", "--impl", "vllm-0.24"), "unknown implementation 'vllm-0.24' hint: versions cannot be chosen; take vllm"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_message(planner: Planner, arguments: tuple[str, ...], words: str) -> None:
    run = planner("collective", *arguments, "-t", "dgx-h100")
    assert (run.code, run.out) == (2, "")
    assert words in run.words
    assert run.err.count("planner:") == 1

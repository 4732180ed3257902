"""The guide of traffic: its commands work, and say what it says they do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planner.core.speculation import METHODS
from planner.core.workload import LOADS
from support import Planner


@pytest.fixture(scope="module")
def guide(root: Path) -> str:
    return (root / "docs" / "serving.md").read_text("utf-8")


def test_its_commands_work_and_show_every_load(guide: str, planner: Planner) -> None:
    lines = "".join(re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)).splitlines()
    loads = set()
    for line in lines:
        run = planner(*line.split()[1:], "--format", "json")
        assert (run.code, run.err) == (0, ""), line
        loads.add(run.document["workload"]["load"])
    assert loads == set(LOADS)


def test_a_static_batch_prints_the_output_tokens_that_the_guide_says(guide: str, planner: Planner) -> None:
    paragraph = guide.partition("## All at once")[2].partition("\n## ")[0]
    command = next(line for line in paragraph.splitlines() if line.startswith("planner estimate")).replace(" --tp 4", "")
    said = re.search(r"([\d,]+) output tokens a second, ([\d,]+) with\s`(.*?)` and ([\d,]+) with `(.*?)`", paragraph)
    assert said is not None
    for layout, number in (("--tp 4", said[1]), (said[3], said[2]), (said[5], said[4])):
        (plan,) = planner(*command.split()[1:], *layout.split(), "--format", "json").document["plans"]
        assert plan["estimate"]["output_tokens_per_s"] == pytest.approx(float(number.replace(",", "")), rel=0.02), layout


def test_its_options_are_there(guide: str, planner: Planner) -> None:
    text = planner("recommend", "--help").out
    for option in set(re.findall(r"`(--[a-z-]+)", guide)):
        assert option in text, option
    for method in METHODS:
        assert f"`{method}`" in guide


def test_a_plan_says_what_it_does_at_most(planner: Planner) -> None:
    run = planner("recommend", "llama-3.1-70b", "-t", "dgx-h100", "--format", "json", "--top", "2")
    full = planner(
        "recommend", "llama-3.1-70b", "-t", "dgx-h100", "--format", "json", "--top", "50", "--concurrency", "max"
    ).document
    served = {str(plan["parallelism"]): plan["estimate"]["output_tokens_per_s"] for plan in full["plans"]}
    assert all(plan["maximum"] is None for plan in full["plans"])
    for plan in run.document["plans"]:
        most = plan["maximum"]
        assert most["in_flight"] > 32
        assert most["output_tokens_per_s"] == pytest.approx(served[str(plan["parallelism"])], rel=0.02)
    words = planner("recommend", "llama-3.1-70b", "-t", "dgx-h100", "--tpot-ms", "40").words
    assert re.search(r"at most within the targets: [\d,]+ tok/s with \d+ in flight", words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--concurrency", "many"), ("--concurrency", "'many'", "max")),
        (("--concurrency", "0"), ("--concurrency", "'0'")),
        (("--concurrency", "-3"), ("--concurrency", "'-3'")),
        (("--concurrency", "9" * 5000), ("--concurrency",)),
        (("--concurrency", "4", "--batch", "4"), ("--batch", "another load")),
        (("--request-rate", "nan"), ("--request-rate",)),
        (("--request-rate", "0"), ("--request-rate",)),
        (("--prefix-hit-rate", "1"), ("--prefix-hit-rate",)),
        (("--percentile", "90"), ("--percentile", "--ttft-ms")),
        (("--percentile", "95", "--ttft-ms", "100"), ("--percentile", "50, 90, 99")),
        (("--speculative", "magic", "--acceptance-rate", "0.5"), ("--speculative", "mtp, eagle3, ngram")),
        (("--speculative", "ngram"), ("--acceptance-rate",)),
        (("--speculative", "eagle3", "--acceptance-rate", "0.5"), ("--draft-model",)),
        (("--acceptance-rate", "0.5"), ("--speculative",)),
    ],
)
def test_what_is_no_traffic_is_refused(planner: Planner, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    run = planner("recommend", "llama-3.1-8b", "-t", "2x-l4", *options)
    assert run.code == 2
    assert run.out == ""
    for word in words:
        assert word in run.words

"""The guide of pools: its commands work, its options, ports and engines are those that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planner.cost.disaggregated import DECODE_SHARE, LINK_SHARE, PREFILL_SHARE, UNMEASURED
from planner.engines.pools import DECODE_PORTS, PREFILL_PORTS, ROUTER_PORT, RULES
from support import Planner


@pytest.fixture(scope="module")
def guide(root: Path) -> str:
    return (root / "docs" / "disaggregation.md").read_text("utf-8")


def test_its_commands_work(guide: str, planner: Planner) -> None:
    lines = "".join(re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)).splitlines()
    assert len(lines) >= 6
    for line in lines:
        run = planner(*line.split()[1:])
        assert (run.code, run.err) == (0, ""), line


def test_it_names_every_engine_and_its_options(guide: str, planner: Planner) -> None:
    rows = re.findall(r"^\| `([a-z][a-z-]*)` \|", guide, re.MULTILINE)
    assert set(rows) == set(RULES)
    text = planner("disaggregate", "--help").out
    for option in re.findall(r"`(--[a-z-]+)(?: [a-z]+)?`", guide):
        if option not in {"--kv-transfer-config", "--disaggregation-mode"}:
            assert option in text, option


def test_its_numbers_are_those_of_the_code(guide: str) -> None:
    for share, what in (
        (PREFILL_SHARE, "of the prefill pool's"),
        (DECODE_SHARE, "of the decode pool's"),
        (LINK_SHARE, "of what they"),
    ):
        assert f"{share * 100:.0f} % {what}" in guide
    assert UNMEASURED == 0.25
    assert "wider by a quarter" in guide
    for ports in (PREFILL_PORTS, DECODE_PORTS):
        assert f"{ROUTER_PORT + ports} and on" in guide

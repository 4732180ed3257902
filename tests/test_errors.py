from __future__ import annotations

from planner.errors import BadInput, ExitCode, Unavailable, nearest, unknown_name


def test_a_message_is_where_what_and_a_hint_on_its_own_line() -> None:
    assert str(BadInput("no unit in 450", path="$.x", hint="write '450 GB/s'")) == "$.x: no unit in 450\nhint: write '450 GB/s'"


def test_each_kind_of_problem_has_its_exit_code() -> None:
    assert (BadInput("x").exit_code, Unavailable("x").exit_code) == (ExitCode.BAD_INPUT, ExitCode.ENVIRONMENT) == (2, 3)


def test_an_outer_document_is_named_before_the_inner_place() -> None:
    assert str(BadInput("is missing", path="$.a").within("box.yaml")) == "box.yaml: $.a: is missing"


def test_near_names_ignore_case_and_separators() -> None:
    assert nearest("h100 sxm", ["T4", "H100-SXM5-80GB", "A100-SXM4-80GB"])[0] == "H100-SXM5-80GB"


def test_an_unknown_name_says_the_nearest_known() -> None:
    assert "RTX-3090" in unknown_name("GPU", "RTX 3091", ["RTX-3090", "T4"]).hint

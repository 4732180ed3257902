from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.documents import strict_yaml
from planner.documents.yaml_out import write
from planner.errors import BadInput, PlannerError


def test_plain_values_have_their_plain_types() -> None:
    text = "a: 1\nb: 1.5\nc: true\nd: null\ne: text\nf: [1, two]\ng: {h: '010'}\n"
    assert strict_yaml.load(text, "x") == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": "text",
        "f": [1, "two"],
        "g": {"h": "010"},
    }


@pytest.mark.parametrize(
    "value",
    [
        "450e9",
        "010",
        "1:30",
        "0x1F",
        "1_000",
        ".nan",
        ".inf",
        "-.inf",
        "+1",
        ".5",
        "1.",
        "yes",
        "no",
        "on",
        "off",
        "Y",
        "True",
        "NULL",
        "~x: &a b",
    ],
)
def test_what_yaml_versions_read_differently_is_refused_with_the_line(value: str) -> None:
    with pytest.raises(BadInput) as refusal:
        strict_yaml.load(f"ok: 1\nbad: {value}\n", "box.yaml")
    assert refusal.value.path == "box.yaml, line 2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x 1\nb: 2", "anchors"),
        ("a: [&x 1, *x]", "anchors"),
        ("a: !!python/object:os.system 1", "tag"),
        ("a: !custom 1", "tag"),
        ("a: 1\na: 2", "twice"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("", "no document"),
        ("a: [1", "not valid YAML"),
        ("a:\n\t- 1", "not valid YAML"),
        ("? [1, 2]\n: 3", "key must be text"),
        ("[" * 50 + "]" * 50, "nested deeper"),
    ],
)
def test_dangerous_or_broken_yaml_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        strict_yaml.load(text, "box.yaml")


def test_the_billion_laughs_are_refused_at_the_first_alias() -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"
    with pytest.raises(BadInput, match="line 1"):
        strict_yaml.load(bomb, "bomb.yaml")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", min_size=1, max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(-1000, 1000) | st.text("abc 0:", max_size=6), max_size=4))
def test_what_our_writer_writes_is_read_back(mapping: dict[str, int | str]) -> None:
    text = write(mapping)
    try:
        assert strict_yaml.load(text, "x") == mapping
    except BadInput:
        # the writer leaves some words unquoted that the reader finds ambiguous; it must say so, not misread them
        assert any(isinstance(value, str) and not strict_yaml.is_plain(value) for value in mapping.values())


@given(st.text(max_size=200))
def test_any_text_gives_a_value_or_an_explained_refusal(text: str) -> None:
    try:
        strict_yaml.load(text, "fuzz")
    except PlannerError as error:
        assert error.problem


@given(plain)
def test_a_loaded_document_holds_only_plain_types(value: object) -> None:
    try:
        loaded = strict_yaml.load(write({"value": value}), "x")
    except PlannerError:
        return
    assert isinstance(loaded, dict)

"""Input that means harm: nothing of it is run, obeyed by a terminal, followed, or read without end."""

from __future__ import annotations

import json
import os
import shlex
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import api
from planner.core.workload import Workload
from planner.errors import BadInput, PlannerError
from support import Planner, read_capture

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


def folder(path: Path, **changes: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG | changes))
    return path


def test_a_folder_named_like_a_command(planner: Planner, tmp_path: Path) -> None:
    evil = folder(tmp_path / "$(touch pwned); `id` && '")
    run = planner("recommend", str(evil), "-t", "2x-l4", "--top", "1")
    (line,) = [line for line in run.out.splitlines() if " vllm serve " in line]
    assert str(evil) in shlex.split(line)


def test_a_folder_named_like_an_option(planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "--trust-remote-code")
    monkeypatch.chdir(tmp_path)
    document = planner("recommend", "-t", "2x-l4", "--format", "json", "--", "--trust-remote-code").document
    assert document["plans"][0]["launch"]["processes"][0]["argv"][2] == "./--trust-remote-code"


def test_escape_sequences_in_a_capture_do_not_reach_the_terminal(planner: Planner) -> None:
    text = "\x1b]0;owned\x07\tGPU0\tGPU1\nGPU0\t X \tPIX\nGPU1\tPIX\t X \n\x1b[2J\nNIC0: mlx5_\x1b[31m\n"
    for form in ("table", "json"):
        run = planner("probe", "-", "--format", form, stdin=text)
        assert "\x1b" not in run.out + run.err
        assert "\x07" not in run.out + run.err


def test_escape_sequences_in_a_document_do_not_either(planner: Planner, tmp_path: Path) -> None:
    text = (
        'schema_version: 1\nname: "a\\e[31mb"\norigin: {kind: written, source: "s\\e]0;x\\a"}\n'
        "hosts:\n- name: n\n  devices:\n  - {id: s0, kind: socket}\n  - {id: g0, kind: gpu, index: 0, gpu: L4}\n"
        "  links:\n  - {between: [s0, g0], kind: pcie}\n"
    )
    path = tmp_path / "box.yaml"
    path.write_text(text)
    for command in (("probe", str(path)), ("recommend", "qwen3-8b", "-t", str(path))):
        run = planner(*command)
        assert "\x1b" not in run.out + run.err


def test_a_bomb_of_aliases_is_refused(planner: Planner, tmp_path: Path) -> None:
    lines = ["schema_version: 1", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 9)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines) + "\n")
    run = planner("probe", str(path))
    assert run.code == 2
    assert "anchor" in run.words or "alias" in run.words


def test_deep_nesting_is_refused(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("schema_version: 1\nhosts: " + "[" * 5000 + "]" * 5000 + "\n")
    run = planner("probe", str(path))
    assert run.code == 2
    assert "Traceback" not in run.err


def test_a_pipe_without_end_is_read_only_so_far(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def feed() -> None:
        try:
            with path.open("wb") as stream:
                while True:
                    stream.write(b"x" * 65536)
        except BrokenPipeError:
            pass

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    with pytest.raises(BadInput, match="larger than"):
        api.load_topology(str(path))
    feeder.join(10)
    assert not feeder.is_alive()


def test_nothing_is_written_through_a_symbolic_link(planner: Planner, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "link.yaml").symlink_to(target)
    run = planner("probe", "2x-l4", "-o", str(tmp_path / "link.yaml"), "--force")
    assert run.code == 2
    assert target.read_text() == "precious"


def test_a_model_of_absurd_size_is_answered_soon(tmp_path: Path) -> None:
    huge = folder(tmp_path / "huge", num_hidden_layers=10**9)
    with pytest.raises(BadInput, match="num_hidden_layers"):
        api.load_model(str(huge))
    large = folder(tmp_path / "large", hidden_size=2**20, num_attention_heads=2**10, intermediate_size=2**22)
    answer = api.recommend(api.load_model(str(large)), api.load_topology("2x-l4"), Workload())
    assert not answer.plans


@given(st.text(max_size=300))
def test_any_text_is_a_topology_or_an_explained_refusal(text: str) -> None:

    try:
        read_capture(text).check()
    except PlannerError as error:
        assert error.problem


@given(st.dictionaries(st.sampled_from([*CONFIG, "rope_scaling", "head_dim", "quantization_config", "torch_dtype"]), st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**12), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.floats()), max_size=3),
), max_size=6))  # fmt: skip
def test_any_config_is_a_model_or_an_explained_refusal(changes: dict[str, object]) -> None:
    from planner.models import read_config

    try:
        model = read_config(CONFIG | changes, "m", "config.json")
    except PlannerError as error:
        assert error.problem
    else:
        assert model.parameters > 0

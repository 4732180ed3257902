"""Names that mean harm, on their way into scripts and manifests: started literally, or refused; never run."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launch_support import Bench, emitted, saved
from planner import api
from planner.deploy import targets
from planner.deploy.header import comment
from planner.deploy.shell import Variable, command, quote
from planner.deploy.target import object_name
from planner.documents import strict_yaml
from planner.documents.plan import dump_plan, parse_plan
from planner.errors import BadInput
from support import Planner

EVIL = {
    "command": "/m/$(touch pwned)",
    "backticks": "/m/`touch pwned`",
    "blank": "/m/a b",
    "quotes": '/m/x"; touch pwned; "',
    "quote": "/m/x'; touch pwned; '",
    "variable": "/m/${HOME} $HOME $$ $(LWS_LEADER_ADDRESS)",
    "comment": "/m/# touch pwned",
    "backslash": "/m/\\$(touch pwned)\\",
    "percent": "/m/%i %h 50%",
    "arabic": "/m/نموذج",
    "yaml": "/m/: - {a: b} [c] &d *e !f",
    "node": "node0",
    "glob": "/m/*",
    "tilde": "~/m",
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("target", ["shell", "slurm"])
@pytest.mark.parametrize("model", EVIL.values(), ids=EVIL)
def test_a_real_shell_starts_it_literally(bench: Bench, model: str, target: str) -> None:
    job, output = emitted(saved("bridged", model=model), target)
    home = bench.write(output)
    script = next(file for file in output.files if file.endswith((".sh", ".sbatch")))
    done = bench.run(home / script, NODES="rack7", SLURM_JOB_NODELIST="rack7", SLURM_SUBMIT_DIR=str(home))
    assert (done.returncode, done.stderr) == (0, "")
    (started,) = bench.started("vllm")
    assert started.argv == job.launch.processes[0].argv
    assert started.argv[2] == model
    assert not list(bench.folder.rglob("pwned"))


@pytest.mark.parametrize("target", ["compose", "kubernetes", "systemd"])
@pytest.mark.parametrize("model", EVIL.values(), ids=EVIL)
def test_what_reads_a_manifest_starts_it_literally(model: str, target: str) -> None:
    _, output = emitted(saved("bridged", model=model), target)
    (text,) = output.files.values()
    if target == "systemd":
        line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
        words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r'"((?:[^"\\]|\\.)*)"', line)]
        assert words[2].replace("%%", "%").replace("$$", "$") == model
        return
    first = next(yaml.safe_load_all(text))
    if target == "compose":
        service = first["services"]["replica-0"]
        assert service["entrypoint"][2].replace("$$", "$") == model
        assert "$" not in service["entrypoint"][2].replace("$$", "")
        assert service["volumes"][0]["source"].replace("$$", "$") == model
        return
    pod = first["spec"]["template"]["spec"]
    word = pod["containers"][0]["args"][1]
    assert word.replace("$$", "$") == model
    assert "$" not in word.replace("$$", "")  # every dollar is doubled, so that no variable is left
    assert pod["volumes"][1]["hostPath"]["path"] == model
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", first["metadata"]["name"])


@pytest.mark.parametrize("model", ["-x", "--trust-remote-code", "a\nb", "a\x00b", "a\x1b[31m", "a\rb", "\u202egnp.exe", "", " "])
def test_a_name_that_is_an_option_or_steers_a_terminal_is_refused(tmp_path: Path, model: str) -> None:
    text = dump_plan(saved("bridged", model=model))
    with pytest.raises(BadInput) as refused:
        parse_plan(text, "plan.yaml", api.load_topology)
    assert refused.value.path == "plan.yaml: $.model.name"


@pytest.mark.parametrize("target", sorted(set(targets()) - {"ray"}))
def test_words_of_a_plan_stay_in_their_comments(planner: Planner, tmp_path: Path, target: str) -> None:
    evil = "x\nrm -rf ~\r\u2028kind: Pod\x1b[31m --- \x85y"
    plan = saved("bridged")
    plan = replace(
        plan, assumptions=(evil,), warnings=(evil,), topology=replace(plan.topology, name=evil), topology_reference=None
    )
    (tmp_path / "plan.yaml").write_text(dump_plan(plan))
    run = planner("emit", str(tmp_path / "plan.yaml"), "--target", target, "-o", str(tmp_path / "out"))
    assert run.code == 0, run.err
    for path in (tmp_path / "out").iterdir():
        text = path.read_text("utf-8")
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if "rm -rf" in line and not line.startswith("#")]
        assert "kind: Pod" not in [line.strip() for line in text.splitlines()]


def test_a_saved_name_that_is_a_command_is_only_shown(planner: Planner, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(dump_plan(saved("bridged", model="/m/$(touch pwned)")))
    run = planner("emit", str(tmp_path / "plan.yaml"), "-o", str(tmp_path / "out"))
    assert run.code == 0
    (line,) = [line for line in run.out.splitlines() if line.startswith("vllm bench serve")]
    assert shlex.split(line)[4] == "/m/$(touch pwned)"


def test_nothing_is_written_through_links_or_out_of_the_folder(planner: Planner, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(dump_plan(saved("bridged")))
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "start.sh").symlink_to(target)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for folder in ("out", "link"):
        run = planner("emit", str(plan), "-o", str(tmp_path / folder), "--force")
        assert run.code == 2
    assert target.read_text() == "precious"
    evil = replace(saved("pipeline"), topology_reference=None)
    text = dump_plan(evil).replace("name: node\n", "name: ../../evil\n")
    with pytest.raises(BadInput):
        parse_plan(text, "plan.yaml", api.load_topology)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30), min_size=1, max_size=5))
def test_a_command_is_read_back_as_the_same_words(words: list[str]) -> None:
    assert shlex.split(command(words)) == words


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30))
def test_a_variable_in_a_word_is_the_only_thing_expanded(text: str) -> None:
    assert quote((text, Variable("NODE0"), text)).replace('"${NODE0}"', "") == (shlex.quote(text) * 2 if text else "")


@given(st.text(max_size=40))
def test_a_comment_is_one_line_whatever_is_in_it(text: str) -> None:
    written = comment([text])
    assert written.startswith("#")
    assert len(written.splitlines()) == 1
    assert written.endswith("\n")


@given(st.text(max_size=80))
def test_a_name_of_objects_is_always_valid(text: str) -> None:
    assert re.fullmatch(r"[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?", object_name(text))


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=30))
def test_any_printable_name_goes_through_yaml(name: str) -> None:
    plan = saved("bridged", model=f"/{name}")
    text = dump_plan(plan)
    if not name.isprintable():
        return
    assert parse_plan(text, "plan.yaml", api.load_topology) == plan
    assert strict_yaml.load(text, "plan.yaml")["model"]["name"] == f"/{name}"

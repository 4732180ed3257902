"""A launch that somebody has, read back: what ``emit`` writes gives the same plan; every spelling means the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch_support import CASES, emitted, saved
from planner import api
from planner.core.plan import EngineLimits, Parallelism, Plan
from planner.core.workload import Workload
from planner.deploy.found import found_in, found_in_words, start_of
from planner.deploy.target import Job, by_node
from planner.deploy.understood import Understood, understand
from planner.errors import BadInput, PlannerError
from planner.importing import plan_from, read_launch

DEFAULTS = EngineLimits(1, 1, 0.5)
TARGETS = ("shell", "slurm", "compose", "kubernetes", "systemd")


def plan_of(paths: list[Path], job: Job) -> Plan:
    imported = read_launch([str(path) for path in paths])
    assert (imported.engine, imported.model) == (job.engine, job.saved.model.name)
    return plan_from(imported, job.saved.model, job.saved.topology, DEFAULTS)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "engine"), CASES)
def test_what_is_emitted_is_imported_as_the_same_plan(tmp_path: Path, name: str, engine: str, target: str) -> None:
    try:
        job, output = emitted(saved(name, engine=engine), target)
    except BadInput as refused:
        assert "MPI" in refused.problem  # nothing is emitted
        return
    for file, text in output.files.items():
        (tmp_path / file).write_text(text)
    beside = {"nginx.conf", *job.launch.files}
    plan = plan_of([tmp_path / file for file in output.files if file not in beside], job)
    wanted = job.saved.plan
    assert (plan.parallelism, plan.limits, plan.layer_partition) == (wanted.parallelism, wanted.limits, wanted.layer_partition)
    shared = any(len(processes) > 1 for processes in by_node(job).values())
    if target == "kubernetes" and shared:  # the device plugin chooses
        used = [sorted(gpu for group in replica for gpu in group) for replica in plan.placement]
        assert len({gpu for gpus in used for gpu in gpus}) == wanted.parallelism.gpus
    else:
        assert plan.placement == wanted.placement


def meaning(*words: str) -> Understood:
    return understand(found_in_words(words), "the command")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("vllm serve m --tensor-parallel-size 4", "vllm serve m -tp 4"),
        ("vllm serve m --tensor-parallel-size 4", "vllm serve m --tensor_parallel_size=4"),
        ("vllm serve m --max-model-len 32k", "vllm serve m --max-model-len 32000"),
        ("vllm serve m --max-model-len 32K", "vllm serve m --max-model-len=32768"),
        ("vllm serve m -tp 8 -dcp 2", "vllm serve m -tp 8 --decode-context-parallel-size=2"),
        ("sglang serve --model m --tp 8 --dcp-size 4", "sglang serve --model m --tp 8 --decode-context-parallel-size=4"),
        ("vllm serve m -tp 2 -pcp 2", "vllm serve m -tp 2 --prefill-context-parallel-size=2"),
        ("vllm serve m -tp 2 -pcp 1", "vllm serve m -tp 2"),
        ("vllm serve m -tp 2", "python3 -m vllm.entrypoints.openai.api_server --model m -tp 2"),
        ("python3 -m sglang.launch_server --model-path m --tp 4", "sglang serve --model m --tensor-parallel-size 4"),
        ("python -m sglang.launch_server --model m --tp 8 --dp-size 8 --enable-dp-attention", "sglang serve --model m --tp 8 --attn-dp-size 8"),
        ("trtllm-serve m --tp_size 4", "trtllm-serve m --tensor_parallel_size 4"),
        ("text-generation-launcher --model-id m --num-shard 2", "/tgi-entrypoint.sh --model-id=m --num_shard 2 --sharded true"),
        ("vllm serve m -tp 2", "A=1 exec env B=2 /opt/bin/vllm serve m -tp 2 --unknown 7"),
    ],
)  # fmt: skip
def test_spellings_that_mean_the_same(one: str, other: str) -> None:
    from dataclasses import replace

    first, second = meaning(*one.split()), meaning(*other.split())
    assert replace(first, gone=()) == replace(second, gone=())


def test_options_that_are_gone_are_said() -> None:
    assert "--swap-space" in meaning("vllm", "serve", "m", "--swap-space", "4").gone[0]
    assert (
        "--attn-dp-size" in meaning("sglang", "serve", "--model", "m", "--tp", "2", "--dp", "2", "--enable-dp-attention").gone[0]
    )
    assert "--max-input-tokens" in meaning("text-generation-launcher", "--model-id", "m", "--max-input-length", "9").gone[0]
    assert "pytorch" in meaning("trtllm-serve", "m", "--backend", "tensorrt").gone[0]
    assert not meaning("trtllm-serve", "m", "--backend", "pytorch").gone


@pytest.mark.parametrize(("options", "tensor"), [("", 4), ("--sharded true", 4), ("--sharded false", 1), ("--num-shard 2", 2)])
def test_tgi_splits_a_model_over_all_gpus_it_sees_unless_it_is_told(options: str, tensor: int) -> None:
    command = f"CUDA_VISIBLE_DEVICES=0,1,2,3 text-generation-launcher --model-id m {options}"
    assert meaning(*command.split()).tensor == tensor


def test_tgi_over_two_hosts_is_no_plan() -> None:
    launch = ("text-generation-launcher", "--model-id", "llama-3.1-70b", "--num-shard")
    topology = api.load_topology("2x-dgx-h100")
    assert api.import_launch([*launch, "8"], topology, Workload()).plan.parallelism == Parallelism(8)
    with pytest.raises(BadInput, match="no host with 16 free GPUs") as refused:
        api.import_launch([*launch, "16"], topology, Workload())
    assert "one host" in refused.value.hint


def test_tgi_keeps_a_part_of_its_memory_back() -> None:
    assert meaning("text-generation-launcher", "--model-id", "m").memory == 0.9
    half = ["text-generation-launcher", "--model-id", "m", "--cuda-memory-fraction", "0.5"]
    assert meaning(*half).memory == 0.45
    assert meaning("TGI_WIGGLE_ROOM=0.8", *half).memory == 0.4


FILES = {
    "script": "#!/bin/sh\nexport CUDA_VISIBLE_DEVICES=1,0\nls\nexec vllm serve m \\\n  -tp 2 # two\n",
    "prefix": "CUDA_VISIBLE_DEVICES=1,0 vllm serve m -tp 2 > log 2>&1 &\n",
    "unit": '[Service]\nEnvironment="CUDA_VISIBLE_DEVICES=1,0"\nExecStart=/usr/bin/vllm serve m "-tp" 2\n',
    "compose list": "services:\n  a:\n    command: [vllm, serve, m, -tp, '2']\n    environment: ['CUDA_VISIBLE_DEVICES=1,0']\n",
    "compose text": "services:\n  a:\n    command: vllm serve m -tp 2\n    environment: {CUDA_VISIBLE_DEVICES: '1,0'}\n",
    "compose devices": "services:\n  a:\n    command: vllm serve m -tp 2\n    deploy: {resources: {reservations: {devices: "
    "[{driver: nvidia, device_ids: ['1', '0'], capabilities: [gpu]}]}}}\n",
    "pod": "kind: Pod\nspec:\n  containers:\n  - command: [sh, -c, 'exec vllm serve m -tp 2']\n    env:\n"
    "    - {name: CUDA_VISIBLE_DEVICES, value: '1,0'}\n",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_launches_as_people_have_them(text: str) -> None:
    (found,) = found_in(text, "launch")
    said = understand(found, "launch")
    assert (said.model, said.tensor, said.devices) == ("m", 2, (1, 0))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls -l", "starts no server"),
        ("vllm serve", "names no model"),
        ("vllm serve m -tp x", "not a number"),
        ("vllm serve m --gpu-memory-utilization 92", "share of memory"),
        ("vllm serve m --max-model-len", "has no value"),
        ("sglang serve --model m --tp 8 --attn-dp-size 3", "not divisible"),
        ("sglang serve --model m --tp 8 --attn-cp-size 4", "context parallelism over 4 ranks"),
        ("trtllm-serve m --tp_size 2 --cp_size 2", "context parallelism over 2 ranks"),
        ("CUDA_VISIBLE_DEVICES=0,0 vllm serve m -tp 2", "twice"),
        ("vllm serve llama-3.1-8b -tp 16", "no host with 16 free GPUs"),
        ("CUDA_VISIBLE_DEVICES=8,9 vllm serve llama-3.1-8b -tp 2", "no host with GPUs 8, 9"),
        ("vllm serve llama-3.1-8b -tp 8 --nnodes 2 -pp 2 --node-rank 0", "free GPUs"),
        ("VLLM_PP_LAYER_PARTITION=1,2 vllm serve llama-3.1-8b -pp 2", "cuts the layers"),
        ("vllm serve no/such-model", "unknown model"),
        ("vllm serve -- -x", "names no model"),
    ],
)
def test_what_cannot_be_a_plan_is_explained(command: str, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        api.import_launch(command.split(), api.load_topology("dgx-h100"), Workload())
    assert words in str(refused.value)


def test_servers_that_differ_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("vllm serve a -tp 2 &\nvllm serve b -tp 2\n")
    with pytest.raises(BadInput, match="differ in their model"):
        read_launch([str(tmp_path / "a.sh")])


@given(st.lists(st.sampled_from(["vllm", "serve", "m", "-tp", "2", "=", "--dp", "\\", "'", '"', "&", "#", "\n", "export A=1", "x" * 50]),
                max_size=30))  # fmt: skip
def test_any_words_are_a_launch_or_an_explained_refusal(words: list[str]) -> None:
    try:
        for found in found_in(" ".join(words), "launch"):
            understand(found, "launch")
    except PlannerError as error:
        assert error.problem


@given(st.text(max_size=200), st.sampled_from(["", "kind: Pod\n", "services:\n", "ExecStart=vllm serve m ", "vllm serve "]))
def test_any_text_is_a_launch_or_an_explained_refusal(text: str, before: str) -> None:
    try:
        for found in found_in(before + text, "launch"):
            understand(found, "launch")
    except PlannerError as error:
        assert error.problem


def test_a_word_that_only_sounds_like_a_server_is_none() -> None:
    assert start_of(["echo", "vllm"]) is None
    assert start_of(["python3", "-m", "http.server"]) is None

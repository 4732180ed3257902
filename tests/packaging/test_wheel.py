"""What an installed wheel holds: data and machines travel with the package, and are found from anywhere."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A wheel of this checkout, built without the network: the build backend is among the development requirements."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(root)],
        check=True,
        capture_output=True,
        text=True,
    )
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked where an installer would put it."""
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(installed: Path, tmp_path: Path, code: str) -> list[str]:
    """Lines a program prints that sees the unpacked wheel before anything else, started far from the checkout."""
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"
    result = subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def test_the_wheel_is_called_what_the_index_calls_it(wheel: Path) -> None:
    assert wheel.name.startswith("interconnect_planner-")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "planner/py.typed" in names


def test_every_data_file_and_every_machine_is_in_it(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    machines = {f"planner/topologies/{path.name}" for path in (root / "topologies").glob("*.yaml")}
    data = {path.relative_to(root).as_posix() for path in (root / "planner" / "data").rglob("*") if path.is_file()}
    assert len(machines) >= 15
    assert machines | data <= names


def test_it_is_found_from_anywhere(installed: Path, tmp_path: Path, root: Path) -> None:
    code = (
        "import planner; from planner import api; from planner.documents.hardware import gpu_names; "
        "from planner.documents.catalogue import model_names; "
        "print(planner.__file__); print(len(api.topology_names()), len(gpu_names()), len(model_names()))"
    )
    where, counts = run(installed, tmp_path, code)
    assert Path(where).is_relative_to(installed)
    machines, gpus, models = map(int, counts.split())
    assert machines == len(list((root / "topologies").glob("*.yaml"))) >= 15
    assert gpus >= 40
    assert models >= 20


def test_it_does_the_main_job(installed: Path, tmp_path: Path) -> None:
    code = (
        "sys.argv = ['planner', 'recommend', 'llama-3.1-70b', '-t', '4x-rtx-3090-bridged', '--quant', 'awq']; "
        "from planner.cli import main; sys.exit(main())"
    )
    lines = run(installed, tmp_path, code)
    assert any("CUDA_VISIBLE_DEVICES=0,2,1,3" in line for line in lines)

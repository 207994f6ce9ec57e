"""The distribution: a wheel that holds every tracked file, installs and runs elsewhere; the docs' examples run."""

import doctest
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("offline_rl", "bandits", "envs", "experiments")


def tracked():
    done = subprocess.run(["git", "-C", ROOT, "ls-files", *PACKAGES, "orbs.py"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout: there is no list of tracked files")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build", reason="the extra 'dev' is not installed")
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    for name in [*tracked(), "pyproject.toml", "README.md", "LICENSE"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


def test_wheel_holds_every_tracked_file_of_the_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == tracked()


def test_installed_wheel_runs_outside_the_checkout(wheel, tmp_path):
    """Into an environment of its own that sees the present packages; without index or dependencies."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=False, system_site_packages=False)
    site = next((place / "lib").glob("python*/site-packages"))
    import numpy

    (site / "present.pth").write_text(str(Path(numpy.__file__).parents[1]) + "\n")
    words = ["install", "--no-index", "--no-deps", "--quiet", "--ignore-installed", "--prefix", place, wheel]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"ORBS_CACHE": str(tmp_path / "cache")}
    run = dict(cwd=tmp_path, env=environment, capture_output=True, text=True)
    python = place / "bin" / "python"
    where = subprocess.run([python, "-c", "import envs.datasets; print(envs.datasets.__file__)"], **run)
    assert where.stdout.startswith(str(site)), where.stdout + where.stderr
    script = place / "bin" / "orbs"
    assert subprocess.run([python, script, "--version"], **run).stdout.startswith("orbs ")
    trained = subprocess.run(
        [python, script, "train", "--dataset", "local/pendulum-medium-replay-v0", "--algos", "bc", "--runs", "1",
         "--steps", "3", "--eval-episodes", "1", "--out", "out", "--set", "bc.hidden=8,8"], **run,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "out" / "pendulum-medium-replay-v0" / "bc" / "checkpoint.safetensors").is_file()


def test_no_upper_cap_on_python_and_no_torch_build_pinned():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.11"' in text
    assert '"torch>=2.11"' in text


def test_layers_point_one_way():
    """offline_rl and bandits import neither each other nor envs nor gymnasium; nothing imports experiments."""
    forbidden = {
        "offline_rl": "bandits|envs|experiments|gymnasium|pandas",
        "bandits": "offline_rl|envs|experiments|gymnasium|pandas",
        "envs": "experiments|offline_rl|bandits",
    }
    for package, names in forbidden.items():
        for file in (ROOT / package).rglob("*.py"):
            assert not re.search(rf"^\s*(import|from) ({names})\b", file.read_text(), re.M), file


def test_nothing_that_is_loaded_can_run_code():
    for package in (*PACKAGES, "orbs.py"):
        files = [ROOT / package] if package.endswith(".py") else list((ROOT / package).rglob("*.py"))
        for file in files:
            assert not re.search(r"import pickle|torch\.load\(|allow_pickle=True", file.read_text()), file


def test_import_examples_run(monkeypatch, tmp_path):
    monkeypatch.setenv("ORBS_CACHE", str(tmp_path))
    import experiments.demo

    assert doctest.testmod(experiments.demo).attempted >= 5
    assert doctest.testmod(experiments.demo).failed == 0
    readme = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert readme.attempted >= 5
    assert readme.failed == 0

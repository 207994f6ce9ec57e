"""The `orbs` command: quick and complete help without torch, errors of one line, every command once."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import options
from experiments.cli import main
from experiments.presets import preset, rules
from offline_rl.config import CONFIGS

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
COMMANDS = {"demo": options.Demo, "train": options.Train, "evaluate": options.Evaluate, "report": options.Report,
            "list": options.List, "bench": options.Bench, "published": options.Published}  # fmt: skip


def orbs(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "experiments.cli", *words],
        env=ENVIRONMENT, capture_output=True, text=True, cwd=more.get("cwd", ROOT), check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete(name):
    """Every option is there, and every option has a text of its own."""
    done = orbs(name, "--help")
    assert done.returncode == 0
    for field in dataclasses.fields(COMMANDS[name]):
        placed = field.name in ("folder", "folders", "algorithm", "dataset", "name") and name not in ("train",)
        shown = field.name.upper() if placed else "--" + field.name.replace("_", "-")
        assert shown in done.stdout
    source = Path(options.__file__).read_text()
    body = source.split(f"class {COMMANDS[name].__name__}:")[1].split("@dataclass")[0].split("Command =")[0]
    assert body.count('"""') == 2 * (1 + len(dataclasses.fields(COMMANDS[name])))


def test_help_is_quick_and_imports_no_torch():
    code = (
        "import sys; sys.argv = ['orbs', 'train', '--help']\n"
        "from experiments.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'pandas', 'gymnasium', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    times = []
    for _ in range(2):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT, capture_output=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 2.0


def test_version():
    import orbs as module

    assert orbs("--version").stdout.strip() == f"orbs {module.__version__}"


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--dataset", "nowhere.hdf5"),
        ("train", "--dataset", "local/pendulum-medium-replay-v0", "--set", "prdc.betta=1"),
        ("evaluate", "no-such-folder"),
        ("report", "no-such-folder"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) == 2
    said = capfd.readouterr().err
    assert said.startswith("orbs: error: ")
    assert len(said.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_the_status_of_the_process(tmp_path):
    done = orbs("report", "no-such-folder", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("orbs: error: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_list_names_everything(capsys):
    assert main(["list", "--fields", "--presets"]) == 0
    text = capsys.readouterr().out
    for name, kind in CONFIGS.items():
        assert name in text
        for field in dataclasses.fields(kind):
            line = next(line for line in text.splitlines() if line.strip().startswith(f"{field.name} ="))
            assert len(line.split(": ", 1)[1]) > 5
    assert "local/pendulum-medium-replay-v0" in text
    assert "LAMDA-RL/PRDC README" in text


def test_train_report_evaluate_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ORBS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "runs"
    words = ["train", "--dataset", "local/pendulum-medium-replay-v0", "--runs", "2", "--steps", "20", "--eval-every",
             "10", "--eval-episodes", "1", "--out", str(out), "--algos", "bc", "prdc", "--set", "bc.hidden=8,8",
             "prdc.hidden=8,8"]  # fmt: skip
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "preset" in text
    assert "95 %" in text
    assert (out / "pendulum-medium-replay-v0" / "report" / "curves.png").stat().st_size > 5000
    assert main(["report", str(out), "--checkpoint", "last10", "--metric", "eval/return"]) == 0
    assert "last ten evaluations" in capsys.readouterr().out
    folder = out / "pendulum-medium-replay-v0" / "prdc"
    assert main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert "mean over runs" in capsys.readouterr().out
    assert main(["train", *words[1:]]) == 2
    assert "--resume" in capsys.readouterr().err


def test_video_is_written(tmp_path, monkeypatch):
    pytest.importorskip("pygame", reason="the extra 'video' is not installed")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    words = ["train", "--dataset", "local/pendulum-medium-replay-v0", "--runs", "1", "--steps", "5", "--eval-episodes",
             "1", "--out", str(tmp_path), "--algos", "bc", "--set", "bc.hidden=8,8"]  # fmt: skip
    assert main(words) == 0
    assert main(["evaluate", str(tmp_path / "pendulum-medium-replay-v0" / "bc"), "--episodes", "1", "--video"]) == 0
    (video,) = tmp_path.rglob("*.gif")
    assert video.read_bytes()[:4] == b"GIF8"


def test_presets_by_dataset():
    assert preset("prdc", "halfcheetah-medium-v2").values == {"alpha": 40.0, "beta": 2.0}
    assert preset("prdc", "local/hopper-medium-v0").values["alpha"] == 2.5
    assert preset("prdc", "antmaze-umaze-v2").values["reward_scale"] == 10000.0
    assert preset("prdc", "something-else").pattern == "*"
    for name, kind in CONFIGS.items():
        assert rules(name)[-1].pattern == "*"
        for rule in rules(name):
            kind(**{**({"beta": 2.0} if name == "prdc" else {}), **rule.values})
            assert rule.source

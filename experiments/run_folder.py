"""A run folder: what it says of itself, whose it is while a process trains in it, what a resume must share with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.agents import config_of
from offline_rl.config import CONFIGS
from orbs import Rows, __version__, reject

if TYPE_CHECKING:
    from envs.datasets import Dataset
    from envs.datasets.references import Reference
    from experiments.train import Unit
    from offline_rl import OfflineLearner

__all__ = ["SESSION", "alone", "check_same", "describe", "describe_online", "free", "machine", "session_facts"]

# What a resumed run must share with the checkpoint that it goes on from.
FIXED = (
    "experiment", "algorithm", "base", "problem", "data_checksum", "hyperparameters", "runs", "seed", "env",
    "eval_every", "eval_episodes", "log_every",
)  # fmt: skip


def describe(unit: Unit, dataset: Dataset, transitions: Rows, learner: OfflineLearner, matmul: str) -> dict[str, Any]:
    """The resolved configuration: everything that made the numbers."""
    mean_return = float(dataset.episode_returns().mean())
    data = {"eval/return": mean_return}
    if dataset.min_score is not None:
        data["eval/score"] = float(dataset.normalized_score(mean_return))
    return {
        **_settings(unit, dataset.name, learner.config, matmul),
        "dataset": os.fspath(dataset.path),
        "dataset_sha256": dataset.sha256,
        "clip_actions": unit.options.clip_actions,
        "terminate_on_end": unit.options.terminate_on_end,
        "env": dataset.env_id,
        "env_note": dataset.env_note,
        "score_source": dataset.score_source,
        "score_range": [dataset.min_score, dataset.max_score],
        "data": data,
        "data_rows": len(transitions),
        "data_checksum": transitions.checksum(),
    }


def describe_online(unit: Unit, config: Any, reference: Reference | None, matmul: str) -> dict[str, Any]:
    """The same of agents that interact with an environment, whose id is the problem's name."""
    assert unit.options.env is not None
    return {
        **_settings(unit, unit.options.env, config, matmul),
        "env": unit.options.env,
        "score_source": reference.source if reference else None,
        "score_range": [reference.minimum, reference.maximum] if reference else [None, None],
    }


def _settings(unit: Unit, problem: str, config: Any, matmul: str) -> dict[str, Any]:
    options = unit.options
    return {
        "experiment": options.experiment,
        "algorithm": unit.label,
        "base": unit.algorithm,
        "problem": problem,
        "hyperparameters": json.loads(json.dumps(dataclasses.asdict(config))),
        "runs": unit.run_ids,
        "seed": options.seed,
        "steps": options.steps,
        "eval_every": options.eval_every,
        "eval_episodes": options.eval_episodes,
        "log_every": options.log_every,
        "device": options.device,
        "threads": options.threads,
        "matmul": matmul,
        **session_facts(),
    }


def session_facts() -> dict[str, Any]:
    """What is to be known of the process that writes: versions, machine, commit, command, when it started."""
    return {
        "versions": _versions(),
        "machine": machine(),
        "git_commit": _commit(),
        "command": ["orbs", *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def check_same(saved: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """ValueError that names every setting in which a resume differs from what the folder was started with.

    A hyperparameter that the folder does not know, because it is younger, counts as at its default there; a folder
    older than variants holds no variant.
    """

    def flat(found: dict[str, Any]) -> dict[str, Any]:
        fixed = {key: found.get(key) for key in FIXED if key != "hyperparameters"}
        fixed["base"] = found.get("base", found.get("algorithm"))
        values = {**_defaults(config["base"]), **found.get("hyperparameters", {})}
        return fixed | {f"hyperparameters.{key}": value for key, value in values.items()}

    there, here = flat(saved), flat(config)
    differ = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if differ:
        detail = "; ".join(f"{key}: {there.get(key)} there, {here.get(key)} here" for key in differ)
        reject("--resume", f"the settings that {folder} was started with", detail, "use those, or another --out")


def _defaults(algorithm: str) -> dict[str, Any]:
    """The hyperparameters' defaults as JSON has them; those without one are left out."""
    kind = CONFIGS[algorithm] if algorithm in CONFIGS else config_of(algorithm)
    given = [one for one in dataclasses.fields(kind) if one.default is not dataclasses.MISSING]
    return dict(json.loads(json.dumps({one.name: one.default for one in given})))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder and keep a second process of this machine out of it; the lock goes with the process, however
    that ends. Locks of folders mean nothing between machines: there `experiments.launch` has one of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):  # no such locks on Windows
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                given = f"another process training in {folder}"
                reject("--out", "a folder of its own", given, "wait for it or end it, or name another --out")
            except OSError:
                pass  # a file system without locks
        _remove_leftovers(folder)
        yield


def free(folder: Path) -> bool:
    """Whether no process of this machine works in the folder; one that was killed keeps nothing."""
    if not folder.is_dir():
        return True
    with contextlib.suppress(ImportError):
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a file system without locks
        finally:
            os.close(handle)
    return True


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of a process that was killed while it wrote."""
    for name in ("config.json", "metrics.parquet", "checkpoint.safetensors"):
        for leftover in folder.glob(f".{name}.*"):
            leftover.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    versions = {"orbs": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "gymnasium", "mujoco", "gymnasium-robotics", "stable-baselines3", "dm-control"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def machine() -> str:
    """The processor and how many of its cores there are to use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        found = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        name = found[0] if found else name
    return f"{name}, {os.cpu_count()} cores"


def _commit() -> str | None:
    """The checkout's commit, with a + where files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():
        return None
    try:
        git = ("git", "-C", os.fspath(here))
        commit = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True, check=True).stdout.strip()
        state = subprocess.run((*git, "status", "--porcelain", "-uno"), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if state.stdout.strip() else "")


# What may differ between the sessions that a run is resumed in.
SESSION = (
    "command", "versions", "machine", "git_commit", "started", "steps", "device", "threads", "matmul", "simulator",
    "eval_workers", "seconds", "evaluation_seconds",
)  # fmt: skip

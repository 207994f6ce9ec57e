"""Writing a dataset as a Minari dataset, for others to use (the extra `minari`)."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.datasets.dataset import Dataset
from envs.datasets.minari import folder, installed
from orbs import __version__, reject

__all__ = ["export"]


def export(
    dataset: Dataset,
    dataset_id: str,
    *,
    overwrite: bool = False,
    author: str | None = None,
    author_email: str | None = None,
    code_permalink: str | None = None,
    algorithm: str | None = None,
    description: str | None = None,
    requirements: Sequence[str] = (),
) -> str:
    """Write a dataset where Minari keeps its own, whole or not at all, so that Minari's users can load it.

    Reading it back gives the rows of `dataset.transitions()`, and after them the last step if it is a terminal.
    Minari wants the observation after each step. Where a dataset does not hold the last ones (`final_obs` is None),
    an episode that timed out loses its last step, whose observation then closes the episode, and a terminal's last
    observation is repeated, which no bootstrap uses. The description says so. An unfinished last episode is closed
    the same way, with neither flag set. `terminate_on_end` is a view, and not exported.

    Args:
        dataset_id: `(namespace/)name-vN`.
        overwrite: replace a dataset of this id.
        author, author_email, code_permalink, algorithm: Minari's metadata.
        description: a text of yours, before what is said about the source.
        requirements: packages that the environment needs, such as `mujoco>=3`.

    Returns:
        The id, for `minari.load_dataset` and `minari:ID`.

    Raises:
        ValueError: a malformed id, a taken one, or an episode of which no step is left.
        ImportError: Minari is not installed.
    """
    minari = installed()
    from gymnasium import spaces

    final = folder(dataset_id)
    if final.exists() and not (overwrite and (final / "data").is_dir()):
        fix = "choose another id" + (", or pass overwrite=True" if (final / "data").is_dir() else "")
        reject("dataset_id", "an id that is free", f"'{dataset_id}', which is at {final}", fix)
    source = f"Exported by orbs {__version__} from {dataset.name} (SHA-256 {dataset.sha256})."
    if dataset.final_obs is None:
        source += (
            " The source holds no observation after an episode's last step: episodes that timed out are one step "
            "shorter here, and terminated ones repeat their last observation."
        )
    metadata: dict[str, Any] = {
        "dataset_id": dataset_id,
        "minari_version": minari.__version__,
        "description": f"{description} {source}" if description else source,
    }
    stated: dict[str, Any] = {
        "code_permalink": code_permalink,
        "algorithm_name": algorithm,
        "requirements": list(requirements),
    }
    stated |= {key: {value} for key, value in (("author", author), ("author_email", author_email)) if value}
    if dataset.min_score is not None and dataset.max_score is not None:
        stated |= {"ref_min_score": float(dataset.min_score), "ref_max_score": float(dataset.max_score)}
    metadata |= {key: value for key, value in stated.items() if value not in (None, [])}
    # The storage that minari.create_dataset_from_buffers writes through. That function builds the environment to store
    # reference scores, holds all episodes at once and writes in place; a storage takes a folder, to be renamed.
    storages = importlib.import_module("minari.dataset.minari_storage")
    buffer = importlib.import_module("minari.data_collector").EpisodeBuffer
    temporary = Path(tempfile.mkdtemp(dir=folder(), prefix=".export-"))  # Minari lists no hidden folders
    try:
        (temporary / "new").mkdir()
        storage = storages.MinariStorage.new(
            temporary / "new" / "data",
            observation_space=spaces.Box(-np.inf, np.inf, (dataset.obs_dim,), np.float32),
            action_space=spaces.Box(dataset.action_low, dataset.action_high, dtype=np.float32),
            env_spec=_env_spec(dataset.env_id),
        )
        storage.update_metadata(metadata)
        storage.update_episodes(buffer(**episode) for episode in _split(dataset))
        _name_namespace(dataset_id)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            os.replace(final, temporary / "old")
        try:
            os.replace(temporary / "new", final)
        except OSError:
            if (temporary / "old").exists():
                os.replace(temporary / "old", final)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dataset_id


def _split(dataset: Dataset) -> Iterator[dict[str, np.ndarray]]:
    """The fields of each episode's buffer; the rules are those of `export`."""
    ends = np.flatnonzero(dataset.terminal | dataset.timeout)
    lasts = ends if len(ends) and ends[-1] == len(dataset) - 1 else np.append(ends, len(dataset) - 1)
    start = 0
    for index, last in enumerate(map(int, lasts)):
        stop, obs = last + 1, dataset.obs[start : last + 1]
        if dataset.final_obs is not None and index < len(ends):
            obs = np.concatenate((obs, dataset.final_obs[index : index + 1]))
        elif dataset.terminal[last]:
            obs = np.concatenate((obs, obs[-1:]))
        else:
            stop = last
        if stop > start:
            truncated = np.zeros(stop - start, np.bool_)
            truncated[-1] = dataset.timeout[last]
            yield {
                "observations": obs,
                "actions": dataset.action[start:stop],
                "rewards": dataset.reward[start:stop],
                "terminations": dataset.terminal[start:stop],
                "truncations": truncated,
            }
        elif index < len(ends):
            given = f"one step in row {last}, whose next observation is unknown"
            reject("dataset", "episodes of at least two steps where they time out", given, "drop that row")
        start = last + 1


def _env_spec(env_id: str | None) -> Any:
    """The registered specification, as data; the id alone where there is none or it cannot be written as JSON."""
    if env_id is None:
        return None
    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec

    spec = gym.registry.get(env_id)
    if spec is not None:
        with contextlib.suppress(TypeError, ValueError):
            spec.to_json()
            return spec
    return EnvSpec(id=env_id)


def _name_namespace(dataset_id: str) -> None:
    namespaces = importlib.import_module("minari.namespace")
    namespace = dataset_id.rpartition("/")[0]
    if namespace and namespace not in namespaces.list_local_namespaces():
        namespaces.create_namespace(namespace)

"""Minari datasets by id: every episode as rows (the extra `minari`). Writing them: `envs.datasets.minari_export`.

Minari (https://minari.farama.org) keeps episodes apart, each with one observation more than it has steps, so no
transition is lost: the observation after an episode's last step is read into `final_obs`.

Reading runs nothing that a dataset names. Its environment is taken as an id, out of the metadata; metadata without
spaces are refused, because Minari would build that environment to learn them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.datasets import validate
from envs.datasets.hdf5 import RawFile
from orbs import reject

__all__ = ["folder", "installed", "location", "parse", "read"]

_ID = re.compile(r"([-\w][-\w/]*[-\w]/)?[-\w]+-v\d+")
_EXTRA = 'install the extra: pip install "orbs[minari]"'
# What Minari's readers, h5py, pyarrow and json raise over damaged files.
_DAMAGE = (OSError, RuntimeError, LookupError, TypeError, AttributeError, AssertionError, ValueError, MemoryError)


def parse(name: str) -> str | None:
    """The Minari id in `minari:ID` or `minari/ID`, or None if `name` is neither (such as the path of a file)."""
    if name.startswith("minari:"):
        return name.removeprefix("minari:")
    rest = name.removeprefix("minari/")
    return rest if rest != name and "." not in rest else None  # no id holds a dot, a file's name does


def location(dataset_id: str, download: bool = True) -> Path:
    """The folder with a dataset's data, downloaded first if it is not there and `download`.

    Raises:
        ValueError: a malformed or unknown id, or one that is neither local nor to be had.
        ImportError: Minari, or what it downloads with, is not installed.
    """
    minari = installed()
    place = folder(dataset_id)
    data = place / "data"
    if data.is_dir():
        return data
    root = folder()
    local = sorted(path.parents[1].relative_to(root).as_posix() for path in root.rglob("data/metadata.json"))
    near = difflib.get_close_matches(dataset_id, local, n=1)
    hint = f"did you mean '{near[0]}', which is there? " if near else ""
    ways = (
        f"put the dataset's folder at {place}, or set MINARI_DATASETS_PATH to the folder that has it as {dataset_id}; "
        "on a machine with a network 'minari download' fetches it"
    )
    if not download:
        fix = f"{hint}'minari list local' shows what is there; {ways}"
        reject("dataset", f"a Minari dataset in {root}", f"'{dataset_id}', which is not there", fix)
    existed = place.exists()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Minari prints, and standard output may be a table
            minari.download_dataset(dataset_id)
        if not data.is_dir():
            raise FileNotFoundError(f"the download left nothing at {data}")
    except BaseException as error:
        if not existed:
            shutil.rmtree(place, ignore_errors=True)  # or the next call would take a part for the whole
        if isinstance(error, ImportError):
            raise ImportError(
                f"dataset: expected what Minari downloads with, got {error}. Fix: "
                f'pip install "orbs[minari]", or {ways}.'
            ) from error
        if isinstance(error, ValueError) and not isinstance(error, OSError):  # huggingface_hub has errors that are both
            fix = f"{hint}'minari list remote' and 'minari list local' show what there is"
            expected = "the id of a Minari dataset that the installed Minari can read"
            raise ValueError(f"dataset: expected {expected}, got '{dataset_id}' ({error}). Fix: {fix}.") from error
        if isinstance(error, Exception):
            raise ValueError(
                f"dataset: expected a Minari dataset in {root} or a network to fetch it, got '{dataset_id}' "
                f"({type(error).__name__}: {error}). Fix: {hint}{ways}."
            ) from error
        raise
    return data


def read(dataset_id: str, download: bool = True, progress: bool = True) -> RawFile:
    """All episodes of a Minari dataset, in its order, as rows.

    Row t of an episode of T steps is (observation t, action t, reward t); its final observation, T, goes to
    `final_obs`. A termination is a terminal, a truncation a time-out; both at once count as a terminal, and an
    episode whose last row has neither flag was cut there: a time-out. Dict and tuple observations, nested or not,
    are flattened in the order of `gymnasium.spaces.flatten` on the environment's own space.

    Args:
        dataset_id: such as `mujoco/hopper/medium-v0`.
        download: fetch it if it is not local.
        progress: show a bar on a terminal.

    Returns:
        The arrays as float32. `sha256` is that of main_data.hdf5 (of all data files, for the other formats).
        `attributes` may hold, besides those of an HDF5 file, ref_min_score and ref_max_score (the returns that
        Minari counts as 0 and 1) and env_note (a sentence, if evaluation by the id alone may differ).

    Raises:
        ValueError: as `location`; a damaged dataset; one that another version of Minari wrote; observations that are
            not boxes of numbers (images, text, graphs, discrete values), or actions that are not one box.
        ImportError: as `location`.
    """
    data = location(dataset_id, download)
    metadata = _metadata(dataset_id, data)
    space = metadata["action_space"]
    if space["type"] != "Box" or not np.issubdtype(np.dtype(space["dtype"]), np.floating):
        given = f"the space {space['type']} of {space.get('dtype', 'several values')}: discrete actions are unsupported"
        reject("actions", "continuous actions in one box", given, "choose a dataset with continuous actions")
    action_leaf = _leaves(space, ())[0]
    leaves = _leaves(metadata["observation_space"], ())
    rows, dim = metadata["total_steps"], sum(leaf.size for leaf in leaves)
    try:
        obs, action = np.empty((rows, dim), np.float32), np.empty((rows, action_leaf.size), np.float32)
        reward, terminal, timeout = np.empty(rows, np.float32), np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    except (MemoryError, ValueError) as error:
        raise _damaged(dataset_id, f"its metadata say {rows} steps of {dim} values") from error
    finals, start = [], 0
    for index, episode in enumerate(_episodes(dataset_id, data, metadata["total_episodes"], progress)):
        steps = len(episode["rewards"])
        end = start + steps
        if not steps:
            reject("episodes", "at least one step in each", f"none in episode {index}", "drop it from the dataset")
        if end > rows:
            raise _damaged(dataset_id, f"more than the {rows} steps of its metadata")
        where = f"episode {index} of '{dataset_id}'"
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which the finiteness check names
            whole = _columns(leaves, episode["observations"], steps + 1, f"observations in {where}")
            action[start:end] = _columns([action_leaf], episode["actions"], steps, f"actions in {where}")
            reward[start:end] = _vector(episode["rewards"], steps, f"rewards in {where}")
        ended = validate.flags("terminations", _vector(episode["terminations"], steps, f"terminations in {where}"))
        cut = validate.flags("truncations", _vector(episode["truncations"], steps, f"truncations in {where}")) & ~ended
        cut[-1] |= not ended[-1]
        obs[start:end], terminal[start:end], timeout[start:end] = whole[:-1], ended, cut
        finals.append(whole[1:][ended | cut])  # flags inside an episode end one there: its next observation is known
        start = end
    if start != rows:
        raise _damaged(dataset_id, f"{start} steps where its metadata say {rows}")
    low, high = (np.asarray(space[key], np.float32).reshape(-1) for key in ("low", "high"))
    attributes = {"action_low": low, "action_high": high, **_facts(metadata)}
    return RawFile(
        obs=obs,
        action=action,
        reward=reward,
        terminal=terminal,
        timeout=timeout,
        attributes=attributes,
        sha256=_sha256(data),
        final_obs=np.concatenate(finals),
    )


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One box inside an observation space: the keys that lead to it, its shape, its number of values."""

    keys: tuple[str | int, ...]
    shape: tuple[int, ...]
    size: int


def _leaves(space: Mapping[str, Any], keys: tuple[str | int, ...]) -> list[_Leaf]:
    """The boxes of a serialised space in the order of the environment's space, which is that of its `flatten`.

    (The space that Minari makes of this sorts the keys of dicts, also of those that the environment keeps unsorted.)
    """
    kind, parts = space["type"], space.get("subspaces", {})
    if kind in ("Dict", "Tuple"):
        named = parts.items() if kind == "Dict" else enumerate(parts)
        return [leaf for key, part in named for leaf in _leaves(part, (*keys, key))]
    what = "".join(f"[{key!r}]" for key in keys)
    if kind != "Box":
        fix = "choose a dataset whose observations are boxes, dicts or tuples of numbers"
        reject(f"observations{what}", "a box of numbers", f"the space {kind}, which is unsupported", fix)
    shape = tuple(int(length) for length in space["shape"])
    if len(shape) > 1 and space["dtype"] == "uint8":
        fix = "choose a dataset of states; images are unsupported"
        reject(f"observations{what}", "a box of numbers", f"images of shape {shape}", fix)
    return [_Leaf(keys, shape, math.prod(shape))]


def _columns(leaves: Sequence[_Leaf], values: Any, rows: int, field: str) -> np.ndarray:
    """(rows, sum of sizes) float32: the leaves of one episode side by side."""
    columns = np.empty((rows, sum(leaf.size for leaf in leaves)), np.float32)
    start = 0
    for leaf in leaves:
        part = values
        try:
            for key in leaf.keys:
                part = part[key]
        except (LookupError, TypeError):
            reject(field, f"a value at {list(leaf.keys)}, as its space says", "none", "fetch or make the dataset again")
        array = np.asarray(part)
        if array.shape != (rows, *leaf.shape) or array.dtype.kind not in "fiub":
            wanted = f"numbers of shape {(rows, *leaf.shape)}"
            fix = "the dataset is damaged, or its space is wrong; fetch or make it again"
            reject(field, wanted, f"{array.dtype} of shape {array.shape}", fix)
        columns[:, start : start + leaf.size] = array.reshape(rows, leaf.size)
        start += leaf.size
    return columns


def _vector(values: Any, rows: int, field: str) -> np.ndarray:
    array = np.asarray(values)
    if array.shape not in ((rows,), (rows, 1)) or array.dtype.kind not in "fiub":
        given = f"{array.dtype} of shape {array.shape}"
        reject(field, f"numbers of shape ({rows},)", given, "the dataset is damaged; fetch or make it again")
    return array.reshape(rows)


def _episodes(dataset_id: str, data: Path, count: int, progress: bool) -> Iterator[dict[str, Any]]:
    """Each episode as Minari's storage gives it; what it raises becomes the error of a damaged dataset."""
    from tqdm import tqdm

    storages = importlib.import_module("minari.dataset.minari_storage")
    try:
        episodes = iter(storages.MinariStorage.read(data).get_episodes(range(count)))
    except _DAMAGE as error:
        raise _damaged(dataset_id, str(error)) from error
    for index in tqdm(range(count), desc=dataset_id, unit="episode", disable=None if progress else True):
        try:
            episode = next(episodes, None)
        except _DAMAGE as error:
            raise _damaged(dataset_id, f"episode {index}: {error}") from error
        if episode is None:
            raise _damaged(dataset_id, f"{index} episodes where its metadata say {count}")
        yield episode


def _metadata(dataset_id: str, data: Path) -> dict[str, Any]:
    """The metadata, with spaces and the environment's specification parsed; raises unless they suffice."""
    minari = installed()
    try:
        metadata = json.loads((data / "metadata.json").read_text())
        for key in ("observation_space", "action_space", "env_spec", "eval_env_spec"):
            if metadata.get(key) is not None:
                metadata[key] = json.loads(metadata[key])
        counts = [metadata["total_steps"], metadata["total_episodes"]]
        version = metadata["minari_version"]
    except _DAMAGE as error:
        raise _damaged(dataset_id, f"{type(error).__name__} in metadata.json: {error}") from error
    if version not in minari.supported_dataset_versions:
        fix = "fetch a version of the dataset that fits, or install the Minari that wrote it"
        reject("dataset", f"data that Minari {minari.__version__} can read", f"data of Minari {version}", fix)
    if not all(isinstance(count, int) and count > 0 for count in counts):
        reject("dataset", "at least one episode of one step", f"{counts[0]} steps in {counts[1]}", "choose another one")
    for key in ("observation_space", "action_space"):
        if not isinstance(metadata.get(key), dict) or "type" not in metadata[key]:
            fix = "add the space to its metadata.json; the environment that the data name is not built to learn it"
            reject(key, "a space in the dataset's metadata", "none", fix)
    return dict(metadata)


def _facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """env_id, max_episode_steps, env_note, ref_min_score and ref_max_score, those that the metadata state."""
    facts: dict[str, Any] = {}
    made, evaluated = (
        spec if isinstance(spec, dict) else {} for spec in map(metadata.get, ("env_spec", "eval_env_spec"))
    )
    spec = evaluated or made
    if isinstance(spec.get("id"), str):
        facts["env_id"] = spec["id"]
        if spec.get("kwargs") or spec.get("additional_wrappers"):
            facts["env_note"] = f"{spec['id']} is evaluated by its id; the data name arguments or wrappers besides"
    if isinstance(made.get("max_episode_steps"), int):
        facts["max_episode_steps"] = made["max_episode_steps"]
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if isinstance(low, int | float) and isinstance(high, int | float) and math.isfinite(low) and math.isfinite(high):
        facts |= {"ref_min_score": float(low), "ref_max_score": float(high)}
    return facts


def installed() -> Any:
    try:
        return importlib.import_module("minari")
    except ImportError as error:
        raise ImportError(f"dataset: expected Minari, got {error}. Fix: {_EXTRA}.") from error


def folder(dataset_id: str | None = None) -> Path:
    """Where Minari keeps a dataset, or all of them."""
    if dataset_id is not None and not _ID.fullmatch(dataset_id):
        fix = "give it as Minari lists it ('minari list remote'), such as mujoco/hopper/medium-v0"
        reject("dataset", "a Minari id, (namespace/)name-vN", f"'{dataset_id}'", fix)
    try:
        return Path(importlib.import_module("minari.storage").get_dataset_path(dataset_id))
    except OSError as error:
        raise ValueError(
            f"dataset: expected a folder for Minari's datasets, got '{error.filename}' ({error.strerror}). Fix: set "
            "MINARI_DATASETS_PATH to a folder that can be written."
        ) from error


def _damaged(dataset_id: str, found: str) -> ValueError:
    return ValueError(
        f"dataset: expected a whole Minari dataset, got '{dataset_id}' with {found}. Fix: it is truncated or corrupt; "
        "delete it ('minari delete') and fetch or make it again."
    )


def _sha256(data: Path) -> str:
    main = data / "main_data.hdf5"
    if main.is_file():
        with open(main, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for path in sorted(path for path in data.rglob("*") if path.is_file() and path.name != "metadata.json"):
        with open(path, "rb") as file:
            digest.update(path.relative_to(data).as_posix().encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

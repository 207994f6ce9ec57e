"""Reading and writing HDF5 files in D4RL layout.

Keys: observations (N, d), actions (N, k), rewards (N,), terminals (N,) and timeouts (N,); the last alone may be
missing. Everything else in a file (next_observations, infos, metadata) is ignored. Layout as in D4RL
(https://github.com/Farama-Foundation/D4RL, `offline_env.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from envs.datasets import validate
from orbs import atomic_path, reject

__all__ = ["KEYS", "RawFile", "check_layout", "from_arrays", "read", "write"]

KEYS = {"observations": 2, "actions": 2, "rewards": 1, "terminals": 1, "timeouts": 1}  # key -> rank
_OPTIONAL = {"timeouts"}
_ATTRIBUTES = ("env_id", "max_episode_steps", "action_low", "action_high")


@dataclasses.dataclass(frozen=True)
class RawFile:
    """The arrays of one file, whole, cast to float32 (flags to bool), in the file's order.

    Attributes:
        obs (N, obs_dim), action (N, action_dim), reward (N,), terminal (N,); timeout (N,) or None.
        attributes: those of env_id, max_episode_steps, action_low, action_high that the file states.
        sha256: of the file's bytes.
        final_obs: (episodes, obs_dim), the observation after the last row of each ended episode, or None: this
            layout has no place for it.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray
    timeout: np.ndarray | None
    attributes: dict[str, Any]
    sha256: str
    final_obs: np.ndarray | None = None


def read(path: Path) -> RawFile:
    """Read a file in D4RL layout. Shapes and types are checked before any row is read.

    Raises:
        ValueError: the file is missing, truncated, corrupt or not HDF5, or a key is missing or has the wrong rank,
            length or type.
    """
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob("*.hdf5"))[:5] if path.parent.is_dir() else []
        fix = "check the path" + (f"; that folder holds {', '.join(near)}" if near else "")
        reject("dataset", "an existing HDF5 file", f"'{path}'", fix)
    if not h5py.is_hdf5(path):
        fix = "it is truncated at the front, compressed or of another kind; fetch it again, or unpack or convert it"
        reject("dataset", "an HDF5 file", f"'{path}' ({path.stat().st_size} bytes, no HDF5 signature)", fix)
    try:
        with h5py.File(path, "r") as file:
            found = {key: file.get(key) for key in KEYS}
            _check_stored_here(file, found)
            rows = check_layout(path.name, found, sorted(file.keys()))
            arrays = {key: _values(data) for key, data in found.items() if data is not None}
            attributes = {key: _attribute(file.attrs[key]) for key in _ATTRIBUTES if key in file.attrs}
    except (OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        raise ValueError(
            f"dataset: expected a whole HDF5 file, got '{path}' which cannot be read ({error}). Fix: the file is "
            "truncated or corrupt; fetch or make it again."
        ) from error
    flat = {key: arrays[key].reshape(rows) for key in KEYS if KEYS[key] == 1 and key in arrays}
    return RawFile(
        obs=arrays["observations"],
        action=arrays["actions"],
        reward=flat["rewards"],
        terminal=validate.flags("terminals", flat["terminals"]),
        timeout=validate.flags("timeouts", flat["timeouts"]) if "timeouts" in flat else None,
        attributes=attributes,
        sha256=_sha256(path),
    )


def _values(data: h5py.Dataset) -> np.ndarray:
    """All values; numbers as float32, converted as they are read (a whole float64 copy would double the memory).

    A float64 beyond float32 becomes inf, which the finiteness check names. Flags keep their type.
    """
    if data.name.rpartition("/")[2] in ("terminals", "timeouts") or not data.size:
        return np.asarray(data[()])
    values = np.empty(data.shape, np.float32)
    data.read_direct(values)
    return values


def write(
    path: str | Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any], compress: bool = True
) -> None:
    """Write a file in D4RL layout, whole or not at all; the same arrays give the same bytes.

    Args:
        compress: by gzip; a million rows then take a minute to write and seconds to read, for a tenth of the space.
    """
    how: dict[str, Any] = {"compression": "gzip", "compression_opts": 9, "shuffle": True} if compress else {}
    with atomic_path(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, track_times=False, **how)
        for name, value in attributes.items():
            file.attrs[name] = value


def _check_stored_here(file: h5py.File, found: Mapping[str, Any]) -> None:
    """Each key must be an array of its own, with its values in this file: a link could read any file of the user's."""
    places: dict[Any, str] = {}
    for key, data in found.items():
        if data is None:
            continue
        if not isinstance(data, h5py.Dataset):
            reject(key, "an array", f"a {type(data).__name__}", "store it as a dataset (D4RL layout)")
        if data.is_virtual or data.external or isinstance(file.get(key, getlink=True), h5py.ExternalLink):
            reject(key, "values in this file", "links to other files", "copy them in (h5repack, or h5py)")
        other = places.setdefault(h5py.h5o.get_info(data.id).addr, key)
        if other != key:
            reject(key, "an array of its own", f"the same array as '{other}' (two keys for one)", "store each alone")


def from_arrays(arrays: Mapping[str, Any], where: str) -> RawFile:
    """The same from arrays in memory, d4rl's `env.get_dataset()` for one; other keys are ignored.

    Args:
        where: what the arrays are called in errors.

    Raises:
        ValueError: as `read`.
    """
    found = {key: np.asarray(arrays[key]) if arrays.get(key) is not None else None for key in KEYS}
    rows = check_layout(where, found, sorted(map(str, arrays)))
    flags = {"terminals", "timeouts"}
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which the finiteness check names
        flat = {
            key: array.reshape(rows) if key in flags else np.array(array, np.float32, order="C")
            for key, array in found.items()
            if array is not None
        }
    digest = hashlib.sha256()
    for key, array in flat.items():
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return RawFile(
        obs=flat["observations"],
        action=flat["actions"],
        reward=flat["rewards"].reshape(rows),
        terminal=validate.flags("terminals", flat["terminals"]).copy(),
        timeout=validate.flags("timeouts", flat["timeouts"]).copy() if "timeouts" in flat else None,
        attributes={},
        sha256=digest.hexdigest(),
    )


def check_layout(where: str, found: Mapping[str, Any], keys: list[str]) -> int:
    """The number of rows; raises unless every key is there with the right rank, length and type.

    Args:
        where: the file's name.
        found: key -> something with `dtype` and `shape`, or None.
        keys: all keys that there are, for the error.
    """
    for key, rank in KEYS.items():
        data = found[key]
        if data is None:
            if key in _OPTIONAL:
                continue
            reject(key, f"the key '{key}' in {where}", f"keys {keys}", "rename or add it (D4RL layout)")
        if data.dtype.kind not in "fiub":
            reject(key, "numbers", f"type {data.dtype}", "store it as float32 (flags as bool)")
        if key == "actions" and data.dtype.kind != "f":
            reject(
                key,
                "continuous actions (floating point)",
                f"type {data.dtype}: discrete actions are unsupported",
                "use a dataset with continuous actions; if they are continuous, store them as float32",
            )
        column = rank == 1 and len(data.shape) == 2 and data.shape[1] == 1
        if len(data.shape) != rank and not column:
            wanted = "shape (N, dim)" if rank == 2 else "shape (N,)"
            reject(key, wanted, f"shape {data.shape}", "reshape it, one row a step")
        if rank == 2 and data.shape[1] == 0:
            reject(key, "at least one column", f"shape {data.shape}", "give the values of each step")
    rows = int(found["observations"].shape[0])
    if rows < 2:
        reject("observations", "at least two rows", f"{rows}", "give a file with transitions")
    for key, data in found.items():
        if data is not None and data.shape[0] != rows:
            reject(key, f"{rows} rows, as observations has", f"{data.shape[0]}", "align all keys row by row")
    return rows


def _attribute(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

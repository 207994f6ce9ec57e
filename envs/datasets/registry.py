"""From a name or a path to a checked `Dataset`."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from envs.datasets import hdf5, local, validate
from envs.datasets.dataset import Dataset
from envs.datasets.references import reference_scores
from orbs import reject

__all__ = ["load", "names"]

_SUFFIXES = {".hdf5", ".h5", ".hdf"}


def names() -> list[str]:
    """The names of the built-in datasets, sorted."""
    return sorted(local.ENTRIES)


def load(
    name_or_path: str | Path,
    *,
    env: str | None = None,
    clip_actions: bool = False,
    step_limit: int | None = None,
    terminate_on_end: bool = False,
) -> Dataset:
    """Load a dataset, whole and checked, or raise.

    Args:
        name_or_path: a name of `names()`, or the path of an HDF5 file in D4RL layout.
        env: Gymnasium id for evaluation; gives the action space, the step limit and (if known) reference returns.
            A built-in name has its own. Without one, the file's attributes action_low, action_high and
            max_episode_steps count if it has them, else actions are taken to lie in [-1, 1].
        clip_actions: clip actions that lie outside the action space instead of rejecting the file.
        step_limit: steps after which an episode is cut, for files without `timeouts`; default: the environment's.
        terminate_on_end: keep time-out rows as terminals in `transitions()`, rather than drop them.

    Raises:
        ValueError: an unknown name, a file that is missing, damaged or fails a check; each names the field, what
            was expected, what was given and the fix.
        ImportError: the environment needs a package that is not installed; names the extra.

    Warns:
        UserWarning: observation columns that never change.
    """
    name, path, entry = _resolve(name_or_path)
    if step_limit is not None and step_limit < 2:
        reject("step_limit", "at least 2 steps", step_limit, "give the environment's episode length")
    raw = hdf5.read(path)
    for field, array in (("observations", raw.obs), ("actions", raw.action), ("rewards", raw.reward)):
        validate.finite(field, array)
    low, high, limit, known = _bounds(raw, env)
    action = validate.actions_inside(raw.action, low, high, clip_actions, known)
    if raw.timeout is None:
        limit = step_limit if step_limit is not None else limit
        if limit is None:
            fix = "name the environment with --env (env=...), whose step limit counts then, or pass step_limit"
            reject("timeouts", f"the key 'timeouts' in {path.name}, or a known step limit", "neither", fix)
        timeout = validate.step_limit_timeouts(raw.terminal, limit)
    else:
        timeout = raw.timeout
    validate.episodes(raw.terminal, timeout, timeouts_kept=terminate_on_end)
    validate.warn_constant_columns(raw.obs)
    env_id = env or (entry.env_id if entry else _stated_env(raw))
    reference = entry.reference if entry and env_id == entry.env_id else reference_scores(env_id)
    return Dataset(
        name=name,
        obs=raw.obs,
        action=action,
        reward=raw.reward,
        terminal=raw.terminal,
        timeout=timeout,
        action_low=low,
        action_high=high,
        path=path,
        sha256=raw.sha256,
        env_id=env_id,
        min_score=reference.minimum if reference else None,
        max_score=reference.maximum if reference else None,
        score_source=reference.source if reference else None,
        terminate_on_end=terminate_on_end,
    )


def _resolve(name_or_path: str | Path) -> tuple[str, Path, local.LocalEntry | None]:
    """(name, path, entry) of a built-in name, or of a path (which has no entry)."""
    text = str(name_or_path)
    entry = local.ENTRIES.get(text)
    if entry is not None:
        return text, entry.path, entry
    path = Path(text)
    if path.is_dir():
        reject("dataset", "a name or a file", f"the folder '{text}'", "give the path of one HDF5 file in it")
    if not path.exists() and path.suffix.lower() not in _SUFFIXES:
        _reject_name(text)
    return path.stem, path, None


def _reject_name(text: str) -> NoReturn:
    near = difflib.get_close_matches(text, names(), n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    fix = f"{hint}names are {', '.join(names())}; the path of an HDF5 file in D4RL layout is possible too"
    reject("dataset", "the name of a dataset or the path of a file", f"'{text}'", fix)


def _bounds(raw: hdf5.RawFile, env: str | None) -> tuple[np.ndarray, np.ndarray, int | None, bool]:
    """Action bounds (k,) each, step limit, and whether they are known rather than assumed.

    From the environment if the caller named one, else from the file's attributes. An id that stands in a file
    never makes an environment: loading data runs nothing that the data chose.
    """
    width = raw.action.shape[1]
    if env is not None:
        from envs.make import env_facts

        facts = env_facts(env)
        for field, given, expected in (
            ("observations", raw.obs.shape[1], facts.obs_dim),
            ("actions", width, len(facts.action_low)),
        ):
            if given != expected:
                fix = "name the environment that the file was made in"
                reject(field, f"{expected} columns, as {env} has", f"{given}", fix)
        return facts.action_low, facts.action_high, facts.max_episode_steps, True
    low, high = raw.attributes.get("action_low"), raw.attributes.get("action_high")
    limit = raw.attributes.get("max_episode_steps")
    if low is None or high is None:
        return np.full(width, -1.0, np.float32), np.full(width, 1.0, np.float32), _limit(limit), False
    return _bound("action_low", low, width), _bound("action_high", high, width), _limit(limit), True


def _stated_env(raw: hdf5.RawFile) -> str | None:
    """The environment that a file names. "module:Name-v0" is refused: Gymnasium would import that module."""
    stated = raw.attributes.get("env_id")
    if stated is None:
        return None
    if not isinstance(stated, str) or not re.fullmatch(r"[\w./-]+", stated):
        reject("attribute env_id", "a Gymnasium id without a module", f"{stated!r}", "pass --env (env=...)")
    return stated


def _bound(field: str, value: Any, width: int) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.shape not in ((), (1,), (width,)) or not np.isfinite(array).all():
        reject(f"attribute {field}", f"{width} finite numbers", f"{value!r}", "mend the attribute or pass --env")
    return np.array(np.broadcast_to(array.astype(np.float32), (width,)))


def _limit(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, np.integer)) and value >= 2 else None

"""From a name, a path or arrays to a checked `Dataset`.

Names: `local/...` (made here or shipped), D4RL's own such as `hopper-medium-v2` (downloaded on first use),
`minari:<id>`; anything else is the path of an HDF5 file in D4RL layout.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from envs.datasets import d4rl, generate, hdf5, local, minari, records, validate
from envs.datasets.dataset import Dataset
from envs.datasets.references import Reference, reference_scores
from orbs import reject

__all__ = ["from_arrays", "load", "names"]

_SUFFIXES = {".hdf5", ".h5", ".hdf"}


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where rows come from, and what is known about them besides.

    Attributes:
        name: of the dataset.
        read: gives the rows.
        path: the file, or where it would lie.
        env_id: for evaluation, and `note` on it, as `Dataset.env_note`.
        reference: returns that count as 0 and 100.
        box: action bounds (low, high), if known without making an environment.
        limit: steps after which its episodes are cut.
        widths: of observations and actions, if known.
        from_d4rl: D4RL's own data, taken as the d4rl package takes them.
    """

    name: str
    read: Callable[[], hdf5.RawFile]
    path: Path
    env_id: str | None = None
    note: str | None = None
    reference: Reference | None = None
    box: tuple[float, float] | None = None
    limit: int | None = None
    widths: tuple[int | None, int | None] = (None, None)
    from_d4rl: bool = False


def names() -> list[str]:
    """The names of the local datasets, sorted; D4RL's are `envs.datasets.d4rl.names()`."""
    return sorted(local.ENTRIES)


def canonical_name(name_or_path: str | Path) -> str:
    """The name that `load` gives the dataset; loads, makes and downloads nothing.

    Raises:
        ValueError: no dataset is known by that name.
    """
    return _resolve(name_or_path, False).name


def load(
    name_or_path: str | Path,
    *,
    env: str | None = None,
    clip_actions: bool = False,
    step_limit: int | None = None,
    terminate_on_end: bool = False,
    progress: bool = True,
) -> Dataset:
    """Load a dataset, whole and checked, or raise.

    A local set is made, and a D4RL one downloaded, the first time that it is loaded.

    Args:
        name_or_path: a name of `names()` or of D4RL, "minari:<id>", or the path of an HDF5 file in D4RL layout.
        env: Gymnasium id for evaluation; gives the action space, the step limit and (if known) reference returns.
            A known name has its own. Without one, the file's attributes action_low, action_high and
            max_episode_steps count if it has them, else actions are taken to lie in [-1, 1].
        clip_actions: clip actions that lie outside the action space instead of rejecting the file.
        step_limit: steps after which an episode is cut, for files without `timeouts`; default: the environment's.
        terminate_on_end: keep time-out rows in `transitions()`, as the d4rl package's option of that name does.
        progress: show a bar while rows are made, downloaded or read.

    Raises:
        ValueError: an unknown name, a file that is missing, damaged or fails a check; each names the field, what
            was expected, what was given and the fix.
        OSError: a download that failed.
        ImportError: a package that is not installed; names the extra.

    Warns:
        UserWarning: observation columns that never change.
    """
    return _checked(_resolve(name_or_path, progress), env, clip_actions, step_limit, terminate_on_end)


def from_arrays(
    arrays: Mapping[str, Any],
    *,
    name: str = "arrays",
    env: str | None = None,
    clip_actions: bool = False,
    step_limit: int | None = None,
    terminate_on_end: bool = False,
) -> Dataset:
    """A dataset from arrays in memory: the dictionary that d4rl's `env.get_dataset()` returns, for one.

    Args:
        arrays: observations (N, d), actions (N, k), rewards (N,), terminals (N,), and timeouts (N,) if known; other
            keys are ignored. Copied.
        name: what the data are called; D4RL's own name brings its reference returns and environment.
        env, clip_actions, step_limit, terminate_on_end: as in `load`.

    Raises:
        ValueError, ImportError: as `load`.
    """
    if not isinstance(arrays, Mapping):
        reject("arrays", "a dictionary of arrays", type(arrays).__name__, "pass what env.get_dataset() returned")
    path = Path(f"<{name}>")
    if name in d4rl.ENTRIES:
        source = _d4rl_source(name, lambda: hdf5.from_arrays(arrays, name), path)
    else:
        source = _Source(name, lambda: hdf5.from_arrays(arrays, name), path)
    return _checked(source, env, clip_actions, step_limit, terminate_on_end)


def _checked(
    source: _Source, env: str | None, clip_actions: bool, step_limit: int | None, terminate_on_end: bool
) -> Dataset:
    if step_limit is not None and step_limit < 2:
        reject("step_limit", "at least 2 steps", step_limit, "give the environment's episode length")
    raw = source.read()
    for field, array in (("observations", raw.obs), ("actions", raw.action), ("rewards", raw.reward)):
        validate.finite(field, array)
    if raw.final_obs is not None:
        validate.finite("final observations", raw.final_obs)
    low, high, limit, known = _bounds(raw, env, source)
    action = validate.actions_inside(raw.action, low, high, clip_actions, known)
    terminal, timeout = raw.terminal, raw.timeout
    counted = None
    if timeout is None:
        limit = step_limit if step_limit is not None else limit
        if limit is None:
            fix = "name the environment with --env (env=...), whose step limit counts then, or pass step_limit"
            reject("timeouts", f"the key 'timeouts' in {source.path.name}, or a known step limit", "neither", fix)
        timeout, counted = validate.step_limit_timeouts(terminal, limit), limit
    # Where final observations are known nothing is lost, so that no episode is empty.
    whole = source.from_d4rl or raw.final_obs is not None
    validate.episodes(terminal, timeout, timeouts_kept=terminate_on_end, lenient=whole)
    validate.warn_constant_columns(raw.obs)
    env_id, reference, note = _scored_on(raw, env, source)
    return Dataset(
        name=source.name,
        obs=raw.obs,
        action=action,
        reward=raw.reward,
        terminal=terminal,
        timeout=timeout,
        action_low=low,
        action_high=high,
        path=source.path,
        sha256=raw.sha256,
        env_id=env_id,
        min_score=reference.minimum if reference else None,
        max_score=reference.maximum if reference else None,
        score_source=reference.source if reference else None,
        env_note=note,
        terminate_on_end=terminate_on_end,
        counted_limit=counted,
        final_obs=raw.final_obs,
    )


def _scored_on(raw: hdf5.RawFile, env: str | None, source: _Source) -> tuple[str | None, Reference | None, str | None]:
    """The environment for evaluation, the reference returns, and a sentence on the environment."""
    if env is not None and env != source.env_id:
        return env, reference_scores(env), f"{env}, as asked"
    if source.env_id is not None or source.reference is not None:
        return source.env_id, source.reference, source.note
    stated = _stated_env(raw)
    # A dataset's own statement goes before what is known of its environment: the latter's are D4RL's for v2.
    low, high = raw.attributes.get("ref_min_score"), raw.attributes.get("ref_max_score")
    if isinstance(low, float) and isinstance(high, float) and low < high:
        reference: Reference | None = Reference(low, high, f"stated by {source.name}")
    else:
        reference = reference_scores(stated)
    return stated, reference, raw.attributes.get("env_note")


def _resolve(name_or_path: str | Path, progress: bool) -> _Source:
    text = str(name_or_path)
    if text in local.ENTRIES:
        entry = local.ENTRIES[text]
        path = local.place(text)
        note = f"{entry.env_id} of Gymnasium, where it was made"
        if entry.shipped:
            return _Source(text, lambda: hdf5.read(path), path, entry.env_id, note, entry.reference)
        read = functools.partial(_read_recorded, lambda: generate.fetch(text, progress))
        return _Source(text, read, path, entry.env_id, note, entry.reference)
    if text in d4rl.ENTRIES:
        return _d4rl_source(text, lambda: _read_recorded(lambda: d4rl.fetch(text, progress)), d4rl.place(text))
    minari_id = minari.parse(text)
    if minari_id is not None:
        return _Source(f"minari:{minari_id}", lambda: minari.read(minari_id, progress=progress), Path(minari_id))
    path = Path(text)
    if path.is_dir():
        reject("dataset", "a name or a file", f"the folder '{text}'", "give the path of one HDF5 file in it")
    if not path.exists() and path.suffix.lower() not in _SUFFIXES:
        _reject_name(text)
    return _Source(path.stem, lambda: hdf5.read(path), path)


def _read_recorded(fetch: Callable[[], Path]) -> hdf5.RawFile:
    """A fetched file, whose digest is computed as it is read: compared with the recorded one at no cost."""
    path = fetch()
    raw = hdf5.read(path)
    records.confirm(path, raw.sha256)
    return raw


def _d4rl_source(name: str, read: Callable[[], hdf5.RawFile], path: Path) -> _Source:
    from envs.d4rl_tasks import task

    entry, found = d4rl.ENTRIES[name], task(name)
    reference = None
    if entry.minimum is not None and entry.maximum is not None:
        where = f"; scored on {found.env_id}" if found.env_id else ""
        reference = Reference(entry.minimum, entry.maximum, f"D4RL's reference returns of {name}{where}")
    box = None  # no bounds are known where actions are discrete
    if found.action_low is not None and found.action_high is not None:
        box = (found.action_low, found.action_high)
    widths = (found.obs_dim, found.action_dim)
    return _Source(name, read, path, found.env_id, found.note, reference, box, entry.step_limit, widths, True)


def _reject_name(text: str) -> NoReturn:
    strong = text.replace("expert", "strong")
    if strong in local.ENTRIES:
        fix = f"load '{strong}'"
        reject("dataset", "a set that there is", f"'{text}': the task's best policy here is no expert", fix)
    known = [*names(), *d4rl.names()]
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    fix = f"{hint}orbs data list shows all names; the path of an HDF5 file in D4RL layout and minari:<id> are possible"
    reject("dataset", "the name of a dataset or the path of a file", f"'{text}'", fix)


def _bounds(raw: hdf5.RawFile, env: str | None, source: _Source) -> tuple[np.ndarray, np.ndarray, int | None, bool]:
    """Action bounds (k,) each, step limit, and whether they are known rather than assumed.

    From the environment if the caller named one, else from what is known of the name, else from the file's
    attributes. An id that stands in a file never makes an environment: loading data runs nothing that the data chose.
    """
    width = raw.action.shape[1]
    if env is not None:
        from envs.make import env_facts

        facts = env_facts(env)
        _check_widths(
            raw, (facts.obs_dim, len(facts.action_low)), env, "name the environment that the file was made in"
        )
        return facts.action_low, facts.action_high, facts.max_episode_steps, True
    _check_widths(raw, source.widths, source.name, "these are other data; load the file by its path")
    if source.box is not None:
        low, high = (np.full(width, bound, np.float32) for bound in source.box)
        return low, high, source.limit, True
    stated_low, stated_high = raw.attributes.get("action_low"), raw.attributes.get("action_high")
    limit = raw.attributes.get("max_episode_steps")
    if stated_low is None or stated_high is None:
        return np.full(width, -1.0, np.float32), np.full(width, 1.0, np.float32), _limit(limit), False
    return _bound("action_low", stated_low, width), _bound("action_high", stated_high, width), _limit(limit), True


def _check_widths(raw: hdf5.RawFile, widths: tuple[int | None, int | None], whose: str, fix: str) -> None:
    for field, array, expected in (("observations", raw.obs, widths[0]), ("actions", raw.action, widths[1])):
        if expected is not None and array.shape[1] != expected:
            reject(field, f"{expected} columns, as {whose} has", f"{array.shape[1]}", fix)


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

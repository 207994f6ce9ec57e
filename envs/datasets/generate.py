"""Makes the local sets: episodes of the shipped behaviour policies from a fixed seed, checked against `sets.json`.

Bit for bit the same on one platform (operating system, C library, CPU family, package versions, number of parallel
environments; see `envs.platform_facts`); medium-replay by training again with the recipe of the medium policy, up to
that policy (minutes; shipping it would take megabytes). Elsewhere the checksum differs, which is said; such a set is
accepted only if its mean return and the mean and deviation of every column lie within the stated bounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from envs import behaviours
from envs.datasets import fingerprint, hdf5, local, records
from envs.datasets.local import LocalSet
from envs.make import env_facts
from envs.platform_facts import platform_facts
from orbs import checked_fields, reject, write_atomically

__all__ = ["NUM_ENVS", "attributes", "collect", "fetch", "judge", "make", "state", "verify"]

NUM_ENVS = 16  # parallel environments of the recorded checksums
_KEYS = ("observations", "actions", "rewards", "terminals", "timeouts")


def fetch(name: str, progress: bool = True) -> Path:
    """The file of a local set, made first if it is not there.

    Raises:
        ValueError: what was made lies outside the stated bounds; a file that other policies made, or that changed
            since it was written.
    """
    entry, path = local.ENTRIES[name], local.place(name)
    if entry.shipped:
        return path
    if not path.is_file():
        with _lock(path):
            if not path.is_file():  # another process may have made it meanwhile
                _make(entry, path, NUM_ENVS, progress)
    _check_maker(entry, path)
    return path


def make(name: str, out: Path | None = None, num_envs: int = NUM_ENVS, progress: bool = True) -> str:
    """Make a set, judge it, write it to `out` (default: its place); returns the verdict in a sentence.

    Raises:
        ValueError: as `fetch`, or a folder as `out`; nothing is written then.
        OSError: a folder that cannot be written to.
    """
    path = out or local.place(name)
    with _lock(path):
        return _make(local.ENTRIES[name], path, num_envs, progress)


def _make(entry: LocalSet, path: Path, num_envs: int, progress: bool) -> str:
    if entry.quality == "medium-replay":
        arrays = _medium_replay(entry, path.parent, progress)
    elif entry.halves and num_envs == NUM_ENVS:  # its two parts are kept, and not made twice
        halves = [_arrays(fetch(half, progress)) for half in entry.halves]
        arrays = {key: np.concatenate([half[key] for half in halves]) for key in _KEYS}
    else:
        arrays = collect(entry, num_envs, progress)
    verdict = judge(entry.name, arrays, num_envs)
    stated = {**attributes(entry, num_envs), "content_sha256": fingerprint.checksum(arrays), "verdict": verdict}
    hdf5.write(path, arrays, stated, compress=False)
    records.record(path, records.digest(path), None)
    return verdict


def attributes(entry: LocalSet, num_envs: int, seed: int | None = None) -> dict[str, Any]:
    """What a file says about itself; `seed` where it is not the set's own."""
    facts = env_facts(entry.env_id)
    seed = entry.seed if seed is None else seed
    policies = {policy: behaviours.digest(policy) for policy in entry.behaviours}
    how = {"set": entry.name, "seed": seed, "num_envs": num_envs, "policies": policies}
    return {
        "env_id": entry.env_id,
        "action_low": facts.action_low,
        "action_high": facts.action_high,
        "max_episode_steps": facts.max_episode_steps,
        "made_by": json.dumps(how),
        "platform": json.dumps(platform_facts()),
    }


def _made_by(path: Path) -> dict[str, Any]:
    """The attributes of a file as plain values; {} where they are not ours."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = {key: file.attrs[key] for key in ("made_by", "platform", "content_sha256") if key in file.attrs}
        return {key: str(value) if key == "content_sha256" else json.loads(str(value)) for key, value in found.items()}
    except (OSError, ValueError):
        return {}


def _check_maker(entry: LocalSet, path: Path) -> None:
    """ValueError unless the file says that this set's own policies made it."""
    wanted = {policy: behaviours.digest(policy) for policy in entry.behaviours}
    stated = _made_by(path).get("made_by")
    if not isinstance(stated, dict) or stated.get("set") != entry.name or stated.get("policies") != wanted:
        fix = f"remove it; it is made again when '{entry.name}' is loaded"
        reject(entry.name, f"a file made by this version's policies at {path}", "a file made otherwise", fix)


def verify(name: str) -> str:
    """Compare the values in a set's file with `sets.json` (as `judge`) and with the checksum stored beside them.

    Raises:
        ValueError: there is no file; its values are not those that were written; figures outside their bounds.
    """
    path, entry = local.place(name), local.ENTRIES[name]
    if not path.is_file():
        reject(name, f"a file at {path}", "none", f"orbs data download {name} makes it")
    arrays, made = _arrays(path), _made_by(path)
    found, written = fingerprint.checksum(arrays), made.get("content_sha256")
    if entry.shipped:
        written = (local.expected(name) or {}).get("checksum", written)
    if written is not None and written != found:
        fix = "install the suite again" if entry.shipped else f"remove the file, then orbs data download {name}"
        reject(name, f"values of checksum {written[:16]}..., as written", f"{found[:16]}...: damaged", fix)
    if entry.shipped:
        return f"comes with the suite, checksum {found[:16]}..., as stated"
    _check_maker(entry, path)
    return judge(name, arrays, made.get("made_by", {}).get("num_envs", NUM_ENVS))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    raw = hdf5.read(path)
    assert raw.timeout is not None
    return dict(zip(_KEYS, (raw.obs, raw.action, raw.reward, raw.terminal, raw.timeout), strict=True))


def state(names: Sequence[str]) -> None:
    """Write what the sets on this machine look like into `sets.json`: for maintainers, after a policy was replaced.

    Raises:
        ValueError: a name that is no local set's, or of which there is no file, or that this version did not make.
    """
    for name in names:
        if name not in local.ENTRIES or not local.place(name).is_file():
            reject("NAME", "a local dataset with a file on this machine", f"'{name}'", "see orbs data list local")
    path = Path(__file__).parent / "data" / "sets.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    for name in names:
        entry, arrays = local.ENTRIES[name], _arrays(local.place(name))
        table[name] = {"checksum": fingerprint.checksum(arrays)}
        if entry.shipped:
            continue
        _check_maker(entry, local.place(name))
        made = _made_by(local.place(name))
        table[name] |= {
            "num_envs": made["made_by"]["num_envs"],
            "platform": made["platform"],
            **fingerprint.describe(arrays, retrained=entry.quality == "medium-replay"),
        }
    write_atomically(path, json.dumps(dict(sorted(table.items())), indent=1) + "\n")


def collect(
    entry: LocalSet, num_envs: int = NUM_ENVS, progress: bool = True, rows: int | None = None, seed: int | None = None
) -> dict[str, np.ndarray]:
    """The rows of a set in D4RL layout; medium-expert (or -strong) is medium's followed by expert's.

    Args:
        rows, seed: others than the set's own.

    Raises:
        ValueError: fewer than two rows; medium-replay, which no policy alone can make.
    """
    from envs.rollouts import uniform_policy

    if entry.quality == "medium-replay":
        reject("quality", "a quality that a policy makes", "medium-replay", "call make, which trains")
    if entry.halves:
        parts = [local.ENTRIES[half] for half in entry.halves]
        halves = [collect(part, num_envs, progress, rows and rows // 2, seed) for part in parts]
        return {key: np.concatenate([half[key] for half in halves]) for key in _KEYS}
    uniform = entry.quality == "random"
    policy = uniform_policy(entry.env_id) if uniform else behaviours.load(entry.behaviours[0]).act
    wanted = rows if rows is not None else entry.rows
    assert wanted is not None
    return _record(entry, policy, uniform, wanted, entry.seed if seed is None else seed, num_envs, progress)


def _record(
    entry: LocalSet, policy: Any, uniform: bool, rows: int, seed: int, num_envs: int, progress: bool
) -> dict[str, np.ndarray]:
    from envs.rollouts import episodes

    if rows < 2:
        reject("rows", "at least 2", rows, "ask for more rows")
    facts = env_facts(entry.env_id)
    arrays = {
        "observations": np.empty((rows, facts.obs_dim), np.float32),
        "actions": np.empty((rows, len(facts.action_low)), np.float32),
        "rewards": np.empty(rows, np.float32),
        "terminals": np.zeros(rows, np.bool_),
        "timeouts": np.zeros(rows, np.bool_),
    }
    size = 0
    with tqdm(total=rows, desc=entry.name, unit="row", unit_scale=True, disable=None if progress else True) as bar:
        for episode in episodes(entry.env_id, policy, seed, num_envs, uniform=uniform):
            count = min(len(episode), rows - size)
            if count == 1 < len(episode):
                break  # one row of an episode that is cut there would be no transition
            part = slice(size, size + count)
            arrays["observations"][part] = episode.obs[:count]
            arrays["actions"][part] = episode.action[:count]
            arrays["rewards"][part] = episode.reward[:count]
            terminal = episode.terminal and count == len(episode)
            arrays["terminals" if terminal else "timeouts"][size + count - 1] = True
            size += count
            bar.update(count)
            if size == rows:
                break
    return {key: array[:size] for key, array in arrays.items()}


def _medium_replay(entry: LocalSet, parent: Path, progress: bool) -> dict[str, np.ndarray]:
    """Train again, from the recipe of the shipped medium policy, until a medium policy is reached.

    Always from the start, in a folder that is thrown away: the rows of a training that was stopped and resumed are
    not those of one that went through.
    """
    from envs.train_behaviour import Recipe, train

    stated = behaviours.load(entry.behaviours[0]).meta
    recipe = Recipe(**checked_fields(Recipe, stated["recipe"], "recipe"))
    recipe = dataclasses.replace(recipe, checkpoint_every=2 * recipe.steps)
    parent.mkdir(parents=True, exist_ok=True)
    hidden = None if progress else True
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix=".training-") as folder,
        tqdm(total=stated["step"], desc=entry.name, unit="step", unit_scale=True, disable=hidden) as bar,
    ):

        def report(step: int, figures: dict[str, float]) -> None:
            bar.set_postfix(score=f"{figures['score']:.1f}")
            bar.update(step - bar.n)

        found = train(recipe, folder, until_medium=True, keep_replay=False, report=report)
        if found["medium_step"] is None:
            best = f"none in {found['steps']} steps, best score {found['best_score']:.1f}"
            fix = "this platform trains otherwise than the stated one; report it"
            reject(entry.name, "a training that passes through medium", best, fix)
        return _arrays(Path(folder) / "medium-replay.hdf5")


def judge(name: str, arrays: dict[str, np.ndarray], num_envs: int = NUM_ENVS) -> str:
    """Compare what was made, by `num_envs` parallel environments, with `sets.json`.

    Returns:
        A sentence: the same bits, or which checksum differs and that all figures lie within their bounds.

    Raises:
        ValueError: a figure outside its bounds; names them.
    """
    wanted = local.expected(name)
    found = fingerprint.checksum(arrays)
    if wanted is None:
        return f"checksum {found[:16]}...: no checksum is stated for this set"
    if found == wanted["checksum"]:
        return f"checksum {found[:16]}...: bit for bit the stated set"
    here = {**platform_facts(), "parallel environments": str(num_envs)}
    there = {**wanted["platform"], "parallel environments": str(wanted.get("num_envs", NUM_ENVS))}
    changed = [f"{key} {here.get(key)} (there {there[key]})" for key in there if here.get(key) != there[key]]
    why = f"this platform differs in {', '.join(changed)}" if changed else "on what looks like the same platform"
    outside = _outside(local.ENTRIES[name], arrays, wanted)
    if outside:
        more = f" and {len(outside) - 5} more" if len(outside) > 5 else ""
        reject(
            name,
            f"checksum {wanted['checksum'][:16]}... or figures within their bounds",
            f"checksum {found[:16]}... ({why}) and {'; '.join(outside[:5])}{more}",
            "use the pinned versions of constraints.txt; if they are in place, report this",
        )
    return (
        f"checksum {found[:16]}... differs from the stated {wanted['checksum'][:16]}... ({why}); mean return and all "
        "columns' means and deviations lie within their bounds"
    )


def _outside(entry: LocalSet, arrays: dict[str, np.ndarray], wanted: Mapping[str, Any]) -> list[str]:
    """What lies outside its bounds; each half of a set of two policies is compared with what is stated of it."""
    stated = [local.expected(half) for half in entry.halves]
    if all(stated) and stated:
        cut = stated[0]["rows"]  # type: ignore[index]
        parts = [
            {key: array[:cut] for key, array in arrays.items()},
            {key: array[cut:] for key, array in arrays.items()},
        ]
        halves = zip(parts, stated, strict=True)
        return [text for part, one in halves for text in fingerprint.differences(fingerprint.describe(part), one or {})]
    retrained = entry.quality == "medium-replay"
    return fingerprint.differences(fingerprint.describe(arrays, retrained), wanted)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process makes a set; others wait for it (where the file system has locks)."""
    if path.is_dir():
        reject("out", "a file", f"the folder '{path}'", "name a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as file:
        with contextlib.suppress(ImportError, OSError):  # Windows, some network file systems
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield

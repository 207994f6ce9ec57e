"""Local sets: what is recorded, and how a set that was made again is judged."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from envs import behaviours
from envs.datasets import fingerprint, generate, load, local
from envs.datasets.local import ENTRIES
from envs.platform_facts import platform_facts

NAME = "local/pendulum-medium-v0"
Arrays = dict[str, np.ndarray]

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date.*:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORBS_DATASET_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return generate.collect(ENTRIES[NAME], rows=10_000, progress=False)


def stated(monkeypatch: pytest.MonkeyPatch, arrays: Arrays, **changes: Any) -> None:
    """Let sets.json state these arrays."""
    table = {"checksum": fingerprint.checksum(arrays), "platform": platform_facts(), **fingerprint.describe(arrays)}
    monkeypatch.setattr(local, "_table", lambda: {NAME: {**table, **changes}})


def short(monkeypatch: pytest.MonkeyPatch, seed: int | None = None) -> None:
    """Make 10,000 rows rather than 100,000."""
    collect = generate.collect
    monkeypatch.setattr(generate, "collect", lambda entry, n, progress: collect(entry, n, False, 10_000, seed))


def test_rows_are_whole_episodes_and_a_cut_last_one() -> None:
    made = generate.collect(ENTRIES[NAME], rows=450, progress=False)
    assert np.flatnonzero(made["timeouts"]).tolist() == [199, 399, 449]
    assert not made["terminals"].any()
    # One row more would be an episode of one row, which is no transition: it is left out.
    assert len(generate.collect(ENTRIES[NAME], rows=401, progress=False)["rewards"]) == 400
    longer = generate.collect(ENTRIES[NAME], rows=600, progress=False)
    np.testing.assert_array_equal(made["observations"][:400], longer["observations"][:400])


def test_qualities_are_ordered_and_medium_expert_is_both() -> None:
    means = {}
    for quality in ("random", "medium", "expert"):
        made = generate.collect(ENTRIES[f"local/pendulum-{quality}-v0"], rows=8000, progress=False)
        means[quality] = made["rewards"].mean()
        if quality != "random":
            both = generate.collect(ENTRIES["local/pendulum-medium-expert-v0"], rows=16_000, progress=False)
            part = slice(0, 8000) if quality == "medium" else slice(8000, 16_000)
            for key, array in made.items():
                np.testing.assert_array_equal(both[key][part], array)
    assert means["random"] < means["medium"] < means["expert"]


def test_terminals_of_a_task_that_ends() -> None:
    made = generate.collect(ENTRIES["local/hopper-random-v0"], rows=500, progress=False)
    ends = np.flatnonzero(made["terminals"])
    assert len(ends) > 5
    assert made["timeouts"].sum() == 1  # the last episode, cut by the number of rows
    # A hopper's torso starts at a height of about 1.25 in each episode.
    np.testing.assert_allclose(made["observations"][ends[:-1] + 1, 0], 1.25, atol=0.01)


def test_made_on_first_load_then_kept(folder: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> None:
    short(monkeypatch)
    stated(monkeypatch, arrays)
    data = load(NAME, progress=False)
    np.testing.assert_array_equal(data.obs, arrays["observations"])
    assert data.env_id == "Pendulum-v1"
    assert data.action_high.tolist() == [2.0]
    path = folder / "pendulum-medium-v0.hdf5"
    assert data.path == path
    with h5py.File(path) as file:
        assert "bit for bit the stated set" in str(file.attrs["verdict"])
        assert json.loads(str(file.attrs["platform"])) == platform_facts()
        assert json.loads(str(file.attrs["made_by"]))["num_envs"] == generate.NUM_ENVS
    before = path.stat().st_mtime_ns
    load(NAME, progress=False)
    assert path.stat().st_mtime_ns == before
    assert "bit for bit" in generate.verify(NAME)


def test_another_checksum_within_the_bounds_is_named_and_accepted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays
) -> None:
    """Another seed is what another platform's rounding amounts to: other episodes of the same policy."""
    short(monkeypatch, seed=5)
    stated(monkeypatch, arrays, platform={**platform_facts(), "cpu": "another"})
    verdict = generate.make(NAME, progress=False)
    assert f"differs from the stated {fingerprint.checksum(arrays)[:16]}" in verdict
    assert f"this platform differs in cpu {platform_facts()['cpu']} (there another)" in verdict
    assert "within their bounds" in verdict
    assert (folder / "pendulum-medium-v0.hdf5").exists()


@pytest.mark.parametrize("other", ["local/pendulum-expert-v0", "local/pendulum-random-v0"])
def test_another_policy_is_refused_and_nothing_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays, other: str
) -> None:
    wrong = generate.collect(ENTRIES[other], rows=10_000, progress=False)
    stated(monkeypatch, arrays)
    monkeypatch.setattr(generate, "collect", lambda *_: wrong)
    with pytest.raises(ValueError, match=r"looks like the same platform.*, column 0: .*expected .* within"):
        generate.make(NAME, progress=False)
    assert not list(folder.glob("*.hdf5"))


def test_small_errors_in_one_column_are_found(monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> None:
    stated(monkeypatch, arrays)
    for key, change in (("rewards", lambda x: 0.5 * x), ("actions", lambda x: np.clip(x, -1, 1))):
        wrong = {**arrays, key: change(arrays[key])}
        with pytest.raises(ValueError, match=rf"{key} deviation"):
            generate.judge(NAME, wrong)


def test_damaged_values_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> None:
    short(monkeypatch)
    stated(monkeypatch, arrays)
    generate.make(NAME, progress=False)
    with h5py.File(folder / "pendulum-medium-v0.hdf5", "a") as file:
        file["rewards"][17] += 1.0
    with pytest.raises(ValueError, match=r"damaged\. Fix: remove the file"):
        generate.verify(NAME)


def test_bounds_cover_repetitions(arrays: Arrays) -> None:
    """Six standard errors of a difference: other seeds all lie within, and nearer than half the bound."""
    wanted = fingerprint.describe(arrays)
    for seed in range(4):
        found = fingerprint.describe(generate.collect(ENTRIES[NAME], rows=10_000, progress=False, seed=seed))
        assert fingerprint.differences(found, wanted) == []
        gap = abs(found["return"]["value"] - wanted["return"]["value"])
        assert gap < 0.6 * wanted["return"]["bound"]


def test_checksum_depends_on_every_value_and_not_on_the_file(tmp_path: Path, arrays: Arrays) -> None:
    from envs.datasets import hdf5

    sums = {fingerprint.checksum(arrays)}
    for key in arrays:
        changed = {**arrays, key: arrays[key].copy()}
        changed[key][-1] = 1 - changed[key][-1] if changed[key].dtype != np.bool_ else ~changed[key][-1]
        sums.add(fingerprint.checksum(changed))
    assert len(sums) == 6
    for compress in (False, True):
        hdf5.write(tmp_path / "a.hdf5", arrays, {}, compress=compress)
        assert fingerprint.checksum(generate._arrays(tmp_path / "a.hdf5")) in sums


def test_medium_replay_is_trained_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe of the shipped medium policy, cut short, gives the file that its training wrote."""
    from envs import train_behaviour
    from envs.train_behaviour import Recipe, train

    recipe = Recipe("Pendulum-v1", steps=600, num_envs=2, width=8, batch_size=8, learning_starts=100, eval_every=200)
    monkeypatch.setattr(train_behaviour, "MEDIUM_SCORES", (-1e9, 1e9))
    monkeypatch.setattr(train_behaviour, "EVAL_EPISODES", 2)
    train(recipe, folder / "first", until_medium=True)
    policy = train_behaviour.BehaviourPolicy.read(folder / "first" / "medium.safetensors")
    monkeypatch.setattr("envs.behaviours.load", lambda name: policy)
    made = generate._medium_replay(ENTRIES["local/hopper-medium-replay-v0"], folder / "new", progress=False)
    assert list((folder / "new").iterdir()) == []  # the training's folder is thrown away
    with h5py.File(folder / "first" / "medium-replay.hdf5") as file:
        np.testing.assert_array_equal(made["observations"], file["observations"][()])
    assert len(made["rewards"]) == 200


def test_medium_replay_that_never_gets_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from envs import train_behaviour
    from envs.train_behaviour import Recipe

    recipe = Recipe("Pendulum-v1", steps=200, num_envs=2, width=8, batch_size=8, learning_starts=100, eval_every=200)
    policy = dataclasses.replace(behaviours.load("pendulum-medium"), meta={"recipe": vars(recipe), "step": 200})
    monkeypatch.setattr(train_behaviour, "EVAL_EPISODES", 2)
    monkeypatch.setattr("envs.behaviours.load", lambda name: policy)
    with pytest.raises(ValueError, match=r"expected a training that passes through medium, got none in 200 steps"):
        generate._medium_replay(ENTRIES["local/hopper-medium-replay-v0"], folder, progress=False)


def test_a_file_of_other_policies_or_of_another_set_is_not_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays
) -> None:
    short(monkeypatch)
    stated(monkeypatch, arrays)
    generate.make(NAME, progress=False)
    shutil.copy(folder / "pendulum-medium-v0.hdf5", folder / "pendulum-expert-v0.hdf5")
    with pytest.raises(ValueError, match=r"a file made by this version's policies at .*Fix: remove it"):
        load("local/pendulum-expert-v0", progress=False)
    digest = behaviours.digest
    monkeypatch.setattr(behaviours, "digest", lambda name: digest(name)[::-1])
    with pytest.raises(ValueError, match=r"a file made by this version's policies at .*Fix: remove it"):
        load(NAME, progress=False)


def test_a_changed_file_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> None:
    short(monkeypatch)
    stated(monkeypatch, arrays)
    generate.make(NAME, progress=False)
    with h5py.File(folder / "pendulum-medium-v0.hdf5", "a") as file:
        file["rewards"][3] = 7
    with pytest.raises(ValueError, match=r"pendulum-medium-v0\.hdf5"):
        load(NAME, progress=False)


def test_wrong_rows_flags_and_alignments_are_found(monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> None:
    stated(monkeypatch, arrays)
    shuffled = np.random.default_rng(0).permutation(len(arrays["rewards"]))
    wrong = {
        "rows, expected": {key: np.concatenate([array, array[:200]]) for key, array in arrays.items()},
        "share of terminals": {**arrays, "terminals": arrays["timeouts"], "timeouts": arrays["terminals"]},
        "actions with rewards": {**arrays, "actions": arrays["actions"][shuffled]},
        "observations with rewards": {**arrays, "observations": arrays["observations"][shuffled]},
    }
    for text, values in wrong.items():
        with pytest.raises(ValueError, match=text):
            generate.judge(NAME, values)
    rewards = {**arrays, "rewards": arrays["rewards"] - 10}
    found = fingerprint.differences(fingerprint.describe(rewards), local._table()[NAME])
    assert any(text.startswith("return: ") for text in found)


def test_a_retrained_set_has_wide_bounds(arrays: Arrays) -> None:
    narrow, wide = fingerprint.describe(arrays), fingerprint.describe(arrays, retrained=True)
    deviation = arrays["observations"].std(0, dtype=np.float64)
    np.testing.assert_allclose(wide["observations mean"]["bound"], deviation, rtol=0.01)
    assert wide["observations mean"]["bound"][0] > narrow["observations mean"]["bound"][0]
    assert wide["return"]["bound"] == pytest.approx(0.75 * 450, rel=0.2)
    few = {key: array[:800] for key, array in arrays.items()}  # four episodes, which may be all that a training saw
    assert fingerprint.describe(few, retrained=True)["episodes"] == 4


def test_own_seed_is_used() -> None:
    """Each set has a seed of its own: medium's and expert's episodes do not start alike."""
    medium = generate.collect(ENTRIES[NAME], rows=400, progress=False)
    again = generate.collect(ENTRIES[NAME], rows=400, progress=False, seed=ENTRIES[NAME].seed)
    other = generate.collect(ENTRIES["local/pendulum-expert-v0"], rows=400, progress=False)
    np.testing.assert_array_equal(medium["observations"], again["observations"])
    assert not np.array_equal(medium["observations"][0], other["observations"][0])


def test_threads_change_no_bit(tmp_path: Path) -> None:
    """Two BLAS threads split a product of 256 columns otherwise than one; sets must not depend on that."""
    name = "local/halfcheetah-medium-v0"
    program = (
        "from envs.datasets import fingerprint, generate, local; "
        f"made = generate.collect(local.ENTRIES[{name!r}], rows=2000, progress=False); "
        "print(fingerprint.checksum(made))"
    )
    variables = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=variables, capture_output=True, text=True, check=True
    )
    with threadpool_limits(1):
        made = generate.collect(ENTRIES[name], rows=2000, progress=False)
    assert done.stdout.strip() == fingerprint.checksum(made)


def test_every_stated_set_is_an_entry_with_its_policies() -> None:
    assert set(local._table()) <= set(ENTRIES)
    for name in local._table():
        assert set(ENTRIES[name].behaviours) <= set(behaviours.names()), name


def test_bad_input(folder: Path) -> None:
    with pytest.raises(ValueError, match="rows: expected at least 2"):
        generate.collect(ENTRIES[NAME], rows=1, progress=False)
    with pytest.raises(ValueError, match="quality: expected a quality that a policy makes"):
        generate.collect(ENTRIES["local/hopper-medium-replay-v0"], progress=False)
    with pytest.raises(ValueError, match="local/hopper-expert-v0: expected a file at"):
        generate.verify("local/hopper-expert-v0")
    with pytest.raises(ValueError, match="at least 40 episodes"):
        fingerprint.describe(generate.collect(ENTRIES[NAME], rows=400, progress=False))

"""Properties over random episode structures: the view, the normaliser, files and memory all tell one story."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.datasets import Dataset, from_arrays, load
from envs.datasets.hdf5 import write
from offline_rl import BC
from orbs import ROW_FIELDS

torch.set_num_threads(1)

# An episode: how many rows, and how it ends.
EPISODES = st.lists(st.tuples(st.integers(2, 9), st.sampled_from(["terminal", "timeout"])), min_size=1, max_size=8)
TAIL = st.integers(0, 5)  # rows of an unfinished last episode
SEED = st.integers(0, 2**16)


def build(episodes: list[tuple[int, str]], tail: int, seed: int) -> dict[str, np.ndarray]:
    rows = sum(length for length, _ in episodes) + tail
    rng = np.random.default_rng(seed)
    ends = np.cumsum([length for length, _ in episodes]) - 1
    flags = {kind: np.zeros(rows, np.bool_) for kind in ("terminal", "timeout")}
    for end, (_, kind) in zip(ends, episodes, strict=True):
        flags[kind][end] = True
    return {
        "observations": rng.normal(3.0, 2.0, (rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": flags["terminal"],
        "timeouts": flags["timeout"],
    }


@settings(deadline=None, max_examples=60)
@given(EPISODES, TAIL, SEED)
def test_every_transition_stays_within_its_episode(episodes: list[tuple[int, str]], tail: int, seed: int) -> None:
    """Rows that bootstrap lead to the next row of the same episode; a count says that none is missing."""
    arrays = build(episodes, tail, seed)
    data = from_arrays(arrays)
    view = data.transitions()
    episode = np.searchsorted(data.episode_ends(), np.arange(len(data)))
    rows = {tuple(row): index for index, row in enumerate(arrays["observations"].tolist())}
    here = np.array([rows[tuple(row)] for row in view.obs.tolist()])
    there = np.array([rows[tuple(row)] for row in view.next_obs.tolist()])
    assert (there == here + 1).all()
    going = view.terminal == 0
    assert (episode[here] == episode[there])[going].all()
    lost = sum(kind == "timeout" for _, kind in episodes) + 1  # each time-out row, and the file's last row
    if tail == 0 and episodes[-1][1] == "timeout":
        lost -= 1  # which is one row
    assert len(view) == len(data) - lost
    assert view.timeout is not None
    assert not (view.timeout.astype(bool) & view.terminal.astype(bool)).any()


@settings(deadline=None, max_examples=60)
@given(EPISODES, TAIL, SEED)
def test_known_final_observations_keep_every_row(episodes: list[tuple[int, str]], tail: int, seed: int) -> None:
    arrays = build(episodes, tail, seed)
    plain = from_arrays(arrays)
    final = np.random.default_rng(seed + 1).normal(size=(len(episodes), 3)).astype(np.float32)
    columns = (arrays[key].copy() for key in ("observations", "actions", "rewards", "terminals", "timeouts"))
    data = Dataset("x", *columns, -np.ones(2, np.float32), np.ones(2, np.float32), Path(), "", final_obs=final)
    view = data.transitions()
    assert len(view) == len(data) - (1 if tail else 0)
    ends = data.episode_ends()
    following = np.append(arrays["observations"][1:], np.zeros((1, 3), np.float32), axis=0)
    following[ends] = final
    np.testing.assert_array_equal(view.next_obs, following[: len(view)])
    np.testing.assert_array_equal(view.terminal, arrays["terminals"][: len(view)].astype(np.float32))
    np.testing.assert_array_equal(view.timeout, arrays["timeouts"][: len(view)].astype(np.float32))
    # What D4RL's view keeps is among these rows, with the same next observation.
    kept = plain.view()
    np.testing.assert_array_equal(kept.part("obs", 0, len(kept)), view.obs[kept.rows])
    inner = ~(plain.terminal | plain.timeout)[kept.rows]
    np.testing.assert_array_equal(kept.part("next_obs", 0, len(kept))[inner], view.next_obs[kept.rows][inner])


@settings(deadline=None, max_examples=40)
@given(EPISODES, TAIL, SEED, st.booleans(), st.booleans())
def test_file_round_trip(episodes: list[tuple[int, str]], tail: int, seed: int, compress: bool, late: bool) -> None:
    arrays = build(episodes, tail, seed)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "arrays.hdf5", arrays, {}, compress=compress)
        data = load(Path(folder) / "arrays.hdf5", terminate_on_end=late)
    again = from_arrays(arrays, terminate_on_end=late)
    assert data.transitions().checksum() == again.transitions().checksum()
    np.testing.assert_array_equal(data.episode_returns(), again.episode_returns())


@settings(deadline=None, max_examples=40)
@given(EPISODES, TAIL, SEED, st.lists(st.integers(0, 60), max_size=3), st.booleans())
def test_view_by_parts_is_the_view(
    episodes: list[tuple[int, str]], tail: int, seed: int, cuts: list[int], late: bool
) -> None:
    data = from_arrays(build(episodes, tail, seed), terminate_on_end=late)
    whole, view = data.transitions(), data.view()
    edges = sorted({0, len(view), *(cut for cut in cuts if cut < len(view))})
    for field in (*ROW_FIELDS, "next_action"):
        parts = [view.part(field, a, b) for a, b in itertools.pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, field))
    assert view.checksum() == whole.checksum()
    some = np.random.default_rng(seed).permutation(len(view))[: max(1, len(view) // 2)]
    assert view.select(some).checksum() == whole.select(some).checksum()


@settings(deadline=None, max_examples=25)
@given(EPISODES, TAIL, SEED, st.booleans())
def test_normaliser_and_its_inverse(episodes: list[tuple[int, str]], tail: int, seed: int, single: bool) -> None:
    """Packed rows are the transitions with observations by mean and deviation + 1e-3 of the kept rows alone."""
    data = from_arrays(build(episodes, tail, seed))
    view = data.transitions()
    kind = "float32" if single else "float64"
    learner = BC(3, 2, runs=1, seed=0, hidden=(4,), batch_size=4, normalise_obs=True, stats_dtype=kind)
    learner.attach(data)
    mean, std = view.obs.mean(0, dtype=np.float64), view.obs.std(0, dtype=np.float64) + 1e-3
    packed = learner._data
    assert packed is not None
    for columns, wanted in ((slice(0, 3), view.obs), (slice(7, 10), view.next_obs)):
        normal = packed[:, columns].numpy().astype(np.float64)
        np.testing.assert_allclose(normal, (wanted - mean) / std, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(normal * std + mean, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(packed[:, 3:5].numpy(), view.action)
    np.testing.assert_array_equal(packed[:, 5].numpy(), view.reward)
    np.testing.assert_array_equal(packed[:, 6].numpy(), view.terminal)
    other = BC(3, 2, runs=1, seed=0, hidden=(4,), batch_size=4, normalise_obs=True, stats_dtype=kind)
    other.attach(view)
    assert other.data_checksum == learner.data_checksum
    assert torch.equal(other._data, packed)  # type: ignore[arg-type]

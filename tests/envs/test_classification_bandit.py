"""Classification data as bandits: reading, standardising, orders of rows, rewards, regret; the real sets."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from envs.classification_bandit import ClassificationBandit, shuffled
from envs.classification_data import SETS, contexts_of, load
from experiments.problems import find
from orbs import Philox


@pytest.fixture
def small(tmp_path: Path) -> str:
    """Eleven rows, three features of which one is constant, classes 3, 5 and 8."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=11), np.full(11, 7.0), rng.integers(0, 9, 11)])
    np.savez(tmp_path / "small.npz", X=x, y=np.array([8, 3, 5, 3, 3, 8, 5, 5, 3, 8, 3], np.int16))
    return str(tmp_path / "small.npz")


def test_npz_files(small: str) -> None:
    x, y = load(small)
    assert x.shape == (11, 3)
    assert y.tolist() == [2, 0, 1, 0, 0, 2, 1, 1, 0, 2, 0]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_csv_files(tmp_path: Path, name: str) -> None:
    text = "kind,size,colour\np,1.5,red\ne,2,NA\np,-3,blue\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    x, y = load(str(path))
    assert y.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(x, [[1.5, 0, 0, 1], [2, 1, 0, 0], [-3, 0, 1, 0]])  # NA, blue, red


def test_contexts_are_standardised(small: str) -> None:
    x, _ = load(small)
    found = contexts_of(x, unit=False)
    assert found.shape == (11, 3)
    np.testing.assert_allclose(found.mean(0), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(found.std(0), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found[:, 1], (x[:, 2] - x[:, 2].mean()) / x[:, 2].std(), atol=1e-12)
    unit = contexts_of(x, unit=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(unit / unit[:, 2:], found, atol=1e-12)
    np.testing.assert_array_equal(contexts_of(np.ones((4, 2)), unit=False), np.ones((4, 1)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("k,a,b\np,1,2\ne,,3\np,4,5\n", r"a value in every cell.*got '' in column a, row 1"),
        ("k,a,b\np,1,2\ne,x,3\np,4,5\n", r"columns of numbers or of words, got 'x' in column a, row 1"),
        ("k,a,b\np,red,2\ne,,3\np,blue,5\n", r"got '' in column a, row 1"),
        ("k,a,b\np,1,2\n,2,3\np,4,5\n", r"got '' in column k, row 1"),
        ("k,a,b\np,1,2,9\ne,2,3\n", "a table of comma-separated values"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        load(str(path))


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez_compressed(path, X=np.random.default_rng(0).normal(size=(200, 9)), y=np.arange(200) % 3)
    whole = path.read_bytes()
    for damaged in (whole[:300], whole[:200] + b"\0" * 400 + whole[600:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"an .npz with arrays X and y of numbers, got .*t.npz"):
            load(str(path))
    np.savez(path, X=np.ones((4, 2)) * 1j, y=np.arange(4))
    with pytest.raises(ValueError, match=r"X of type complex128"):
        load(str(path))


@pytest.mark.parametrize("rows", [1, 2, 11, 64, 65, 1000])
def test_shuffled_rows_are_a_permutation_in_each_pass(rows: int) -> None:
    """Of every run, whatever block it is drawn in, another one in each pass."""
    philox, passes = Philox(1, [0, 5, 9], runs_last=True), 3
    order = shuffled(philox, rows, 0, passes * rows).view(3, passes, rows)
    assert torch.equal(order.sort(-1).values, torch.arange(rows).expand(3, passes, rows))
    if rows > 10:
        flat = order.reshape(3 * passes, rows)
        assert len({tuple(row.tolist()) for row in flat}) == 3 * passes
    parts = [shuffled(philox, rows, first, 1) for first in range(min(3 * rows, 80))]
    assert torch.equal(torch.cat(parts, 1), order.reshape(3, -1)[:, : len(parts)])
    alone = shuffled(Philox(1, [5], runs_last=True), rows, 0, passes * rows)
    assert torch.equal(alone[0], order[1].flatten())


def test_shuffled_rows_are_uniform_and_pairs_independent() -> None:
    """Over 30000 runs: each row at each place with 1/N, each pair of rows at two places with 1/(N (N - 1))."""
    rows, runs = 6, 30_000
    order = shuffled(Philox(0, range(runs), runs_last=True), rows, 0, rows)
    place = torch.stack([torch.bincount(order[:, t], minlength=rows) for t in range(rows)]) / runs
    np.testing.assert_allclose(place.numpy(), 1 / rows, atol=5 * np.sqrt(1 / rows / runs))
    for other in (1, 3, 5):
        pair = torch.bincount(order[:, 0] * rows + order[:, other], minlength=rows**2).view(rows, rows) / runs
        wanted = (1 - np.eye(rows)) / (rows * (rows - 1))
        np.testing.assert_allclose(pair.numpy(), wanted, atol=5 * np.sqrt(1 / 30 / runs))


@pytest.mark.parametrize("order", ["random", "shuffled"])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_rounds_are_those_of_the_definition(small: str, order: str, noise: float) -> None:
    runs, rounds = 5, 40
    world = ClassificationBandit(small, rounds, runs, seed=3, order=order, label_noise=noise)
    x, labels = contexts_of(load(small)[0], False), load(small)[1]
    row, label, shown = (part.numpy() for part in world._draw(0, rounds))
    np.testing.assert_array_equal(label, labels[row])
    assert ((shown == label).all()) == (noise == 0.0)
    arms = np.random.default_rng(0).integers(0, 3, (rounds, runs))
    seen, _ = world.reset()
    pseudo, total = np.zeros(runs), np.zeros(runs)
    for t in range(rounds):
        np.testing.assert_array_equal(seen.numpy(), x[row[:, t]])
        assert torch.equal(world.context(), seen)
        seen, reward, *_ = world.step(torch.as_tensor(arms[t]))
        np.testing.assert_array_equal(reward.numpy(), (arms[t] == shown[:, t]).astype(float))
        pseudo += (1 - noise) * (arms[t] != label[:, t])
        total += reward.numpy()
    np.testing.assert_allclose(world.regret()["regret/pseudo"].numpy(), pseudo, atol=1e-10)
    best = rounds * (1 - noise + noise / 3)
    np.testing.assert_allclose(world.regret()["regret/realised"].numpy(), best - total, atol=1e-10)


def test_noisy_labels_and_random_rows_are_uniform(small: str) -> None:
    world = ClassificationBandit(small, 50, 4000, label_noise=0.3)
    row, label, shown = world._draw(0, 50)
    count = row.numel()
    share = torch.bincount(row.flatten(), minlength=11) / count
    np.testing.assert_allclose(share.numpy(), 1 / 11, atol=5 * np.sqrt(1 / 11 / count))
    for right in range(3):
        for a in range(3):
            found = float((shown[label == right] == a).double().mean())
            assert found == pytest.approx(0.8 if a == right else 0.1, abs=5 * 0.4 / np.sqrt(count / 5))


def test_a_run_is_the_same_alone_and_resumed(small: str) -> None:
    def rewards(world: ClassificationBandit, first: int, last: int) -> torch.Tensor:
        return torch.stack([world.step(torch.full((world.num_envs,), t % 3))[1] for t in range(first, last)])

    for order in ("random", "shuffled"):
        played = rewards(ClassificationBandit(small, 40, 4, order=order), 0, 40)
        assert torch.equal(rewards(ClassificationBandit(small, 40, [2], order=order), 0, 40)[:, 0], played[:, 2])
        half = ClassificationBandit(small, 40, 4, order=order)
        rewards(half, 0, 17)
        rest = ClassificationBandit(small, 40, 4, order=order)
        rest.load_state_dict(half.state_dict())
        assert torch.equal(rewards(rest, 17, 40), played[17:])


def test_facts(small: str) -> None:
    world = ClassificationBandit(small, 9)
    x = contexts_of(load(small)[0], False)
    assert world.facts == {
        "arms": 3, "dimension": 3, "domain": ("arms", {"dimension": 3}), "horizon": 9, "context_dimension": 3,
        "feature_bound": pytest.approx(np.linalg.norm(x, axis=1).max()), "context_low": x.min(),
        "context_high": x.max(), "reward_low": 0.0, "reward_high": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (dict(X=np.ones((3, 2))), r"data: expected an .npz with arrays X and y"),
        (dict(X=np.ones(3), y=np.arange(3)), r"expected X of shape \(N, m\)"),
        (dict(X=np.ones((3, 2)), y=np.arange(4)), r"expected X of shape \(N, m\)"),
        (dict(X=np.ones((0, 2)), y=np.arange(0)), r"expected X of shape \(N, m\)"),
        (dict(X=np.array([[1.0], [np.nan]]), y=np.arange(2)), "expected finite numbers, got a NaN or inf in row 1"),
        (dict(X=np.ones((2, 1)), y=np.array([0.0, np.nan])), "expected a class in every row"),
        (dict(X=np.ones((3, 2)), y=np.ones(3)), "expected at least two classes, got 1"),
        (dict(X=np.ones((3, 2)), y=np.array([{}, 1, 2], object)), "expected an .npz with arrays X and y"),
        (dict(X=np.array([["a"], ["b"]]), y=np.arange(2)), "expected an .npz with arrays X and y"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        load(str(tmp_path / "bad.npz"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(data="iriss"), r"ClassificationBandit.data: expected one of blobs, iris, wine"),
        (dict(data=3), r"ClassificationBandit.data: expected one of blobs, iris, wine"),
        (dict(data="/nowhere.npz"), "expected a file that is there"),
        (dict(order="shuffle"), "did you mean 'shuffled'"),
        (dict(label_noise=1.5), "ClassificationBandit.label_noise: expected a number from 0 to 1"),
        (dict(unit=1), "ClassificationBandit.unit: expected True or False"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClassificationBandit(**options)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    for name, content in (("a.npz", b"no zip"), ("a.csv", b""), ("a.csv.gz", b"no gzip")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"ClassificationBandit.data: expected .*Fix: "):
            load(str(tmp_path / name))


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is not None, reason="scikit-learn is there")
def test_a_missing_scikit_learn_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected scikit-learn, which holds digits.*Fix: pip install scikit-learn"):
        ClassificationBandit("digits")


@pytest.mark.extra
@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("iris", (150, 5), 3), ("wine", (178, 14), 3), ("breast-cancer", (569, 31), 2), ("digits", (1797, 62), 10)],
)
def test_the_sets_of_scikit_learn(name: str, shape: tuple[int, int], classes: int) -> None:
    pytest.importorskip("sklearn", reason="needs pip install scikit-learn")
    assert set(SETS) == {"iris", "wine", "breast-cancer", "digits"}
    world = ClassificationBandit(name)
    assert (tuple(world.contexts.shape), world.arms) == (shape, classes)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("letter.npz", (20000, 17), [789, 766]),
        ("optdigits.npz", (5620, 63), [554, 571]),
        ("pendigits.npz", (10992, 17), [1143, 1143]),
        ("satimage.npz", (6435, 37), [1533, 703, 1358, 626, 707, 1508]),
        ("ecoli.npz", (336, 8), [143, 77]),
        ("mushroom.csv.gz", (8124, 117), [4208, 3916]),
    ],
)
def test_real_sets(shared_data: Path, name: str, shape: tuple[int, int], counts: list[int]) -> None:
    world = ClassificationBandit(str(shared_data / "uci-multiclass" / name), 5)
    assert tuple(world.contexts.shape) == shape
    assert torch.bincount(world.labels)[: len(counts)].tolist() == counts
    for _ in range(5):
        assert torch.isfinite(world.context()).all()
        world.step(torch.zeros(20, dtype=torch.int64))


def test_the_single_environment_passes_both_checkers() -> None:
    from stable_baselines3.common.env_checker import check_env as check

    env = gym.make("orbs/ClassificationBandit-v0", horizon=30).unwrapped
    check_env(env, skip_render_check=True)
    check(env)


def test_the_problems_make_their_worlds() -> None:
    world = find("classification").make({"label_noise": 0.1}, horizon=5, runs=2)
    assert isinstance(world, ClassificationBandit)
    assert world.label_noise == 0.1
    for name in ("contextual-linear", "contextual-lipschitz", "classification"):
        problem = find(name)
        made = problem.make({}, horizon=5, runs=2)
        assert problem.metric in made.regret()
        assert made.facts["arms"] == made.single_action_space.n  # type: ignore[attr-defined]

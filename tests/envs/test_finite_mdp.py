"""Finite MDPs: what is refused, what the parts are, models from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.finite_mdp import FiniteMDP, linear_mdp, load_mdp, tabular_mdp


def parts(**changes: Any) -> dict[str, Any]:
    """3 states, 2 actions, 4 factors, 5 steps; state 2 fails."""
    rng = np.random.default_rng(0)
    features = rng.dirichlet(np.ones(4), (3, 2))
    laws = rng.dirichlet(np.ones(3), (5, 4))
    features[2], laws[:, 3] = (0, 0, 0, 1), (0, 0, 1)
    reward = rng.uniform(size=(5, 3, 2))
    reward[:, 2] = 0.0
    return {"laws": laws, "reward": reward, "steps": 5, "features": features, "fail": (2,)} | changes


def model(**changes: Any) -> FiniteMDP:
    return FiniteMDP(**parts(**changes))


def changed(field: str, where: Any, value: float) -> dict[str, Any]:
    given = parts()
    given[field][where] = value
    return {field: given[field]}


BAD: dict[str, tuple[Callable[[], dict[str, Any]], str, str]] = {
    "steps 0": (lambda: {"steps": 0}, "steps", "at least 1"),
    "steps True": (lambda: {"steps": True}, "steps", "at least 1"),
    "steps 5.0": (lambda: {"steps": 5.0}, "steps", "at least 1"),
    "steps of the laws": (lambda: {"laws": parts()["laws"][:4]}, "laws", "5 steps"),
    "steps of the reward": (lambda: {"reward": parts()["reward"][:2]}, "reward", "5 steps"),
    "steps of the features": (lambda: {"features": np.stack([parts()["features"]] * 4)}, "features", "5 steps"),
    "other steps": (lambda: {"steps": 4}, "laws", "4 steps"),
    "laws of two axes": (lambda: {"laws": parts()["laws"][0]}, "laws", "3 axes"),
    "reward of two axes": (lambda: {"reward": parts()["reward"][0]}, "reward", "3 axes or 4 axes"),
    "features of two axes": (lambda: {"features": parts()["features"][0]}, "features", "3 axes or 4 axes"),
    "laws of other states": (lambda: {"laws": np.full((5, 4, 2), 0.5)}, "laws", "3 states"),
    "features of other actions": (lambda: {"features": np.full((3, 3, 4), 0.25)}, "features", "shape (3, 2, 4)"),
    "features of other factors": (lambda: {"features": np.full((3, 2, 5), 0.2)}, "features", "shape (3, 2, 4)"),
    "no features": (lambda: {"features": None}, "laws", "6 laws"),
    "nan in the reward": (lambda: changed("reward", (0, 0, 0), np.nan), "reward", "finite"),
    "inf in the laws": (lambda: changed("laws", (0, 0, 0), np.inf), "laws", "finite"),
    "negative feature": (lambda: {"features": np.array([[[1.5, -0.5, 0, 0]] * 2] * 3)}, "features", "simplex"),
    "features that sum to 0.9": (lambda: {"features": 0.9 * parts()["features"]}, "features", "misses 1"),
    "negative chance": (lambda: {"laws": np.array([[[1.5, -0.5, 0]] * 4] * 5)}, "laws", "distributions"),
    "laws that sum to 1.001": (lambda: {"laws": 1.001 * parts()["laws"]}, "laws", "misses 1"),
    "start of other states": (lambda: {"start": np.array([0.5, 0.5])}, "start", "shape (3,)"),
    "start that is no law": (lambda: {"start": np.array([0.5, 0.6, 0])}, "start", "distribution"),
    "fail out of range": (lambda: {"fail": (3,)}, "fail", "states 0 to 2"),
    "fail that pays": (lambda: changed("reward", (4, 2, 1), 0.1), "fail", "state 2"),
    "fail that is left": (lambda: changed("features", (2, 1), (0.25,) * 4), "fail", "state 2"),  # type: ignore[arg-type]
    "fail that is another": (lambda: {"fail": (0,)}, "fail", "state 0"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_models(name: str) -> None:
    change, field, part = BAD[name]
    with pytest.raises(ValueError, match="expected") as caught:
        model(**change())
    text = str(caught.value)
    assert text.startswith(f"FiniteMDP.{field}"), text
    assert part in text
    assert "Fix: " in text


def test_parts() -> None:
    mdp, given = model(), parts()
    assert (mdp.states, mdp.actions, mdp.factors, mdp.steps) == (3, 2, 4, 5)
    assert mdp.start.tolist() == [1, 0, 0]
    for name in ("laws", "reward", "features"):
        assert getattr(mdp, name).dtype == torch.float64
    kernel = np.einsum("saf,hft->hsat", given["features"], given["laws"])
    np.testing.assert_allclose(mdp.kernel.numpy(), kernel, rtol=0, atol=1e-15)
    each = torch.rand(7, 4, dtype=torch.float64)
    np.testing.assert_allclose(mdp.mix(3, each).numpy(), np.einsum("saf,rf->rsa", given["features"], each), atol=1e-15)
    assert mdp.laws_at(4).equal(mdp.laws[4])
    assert mdp.reward_at(4).equal(mdp.reward[4])
    assert mdp.features_at(4) is mdp.features


def test_rounding_below_zero_is_allowed() -> None:
    features = parts()["features"]
    features[0, 0] = (-1e-13, 1e-13, 0.5, 0.5)
    model(features=features)


def test_one_entry_serves_all_steps() -> None:
    given = parts()
    mdp = FiniteMDP(given["laws"][:1], given["reward"][:1], 5, given["features"][None])
    assert mdp.laws_at(4).equal(mdp.laws[0])
    assert mdp.reward_at(4).equal(mdp.reward[0])
    found = mdp.features_at(4)
    assert found is not None
    assert found.equal(torch.as_tensor(given["features"]))
    assert mdp.kernel.shape == (1, 3, 2, 3)


def test_features_a_step() -> None:
    given, rng = parts(), np.random.default_rng(1)
    features = rng.dirichlet(np.ones(4), (5, 3, 2))
    mdp = FiniteMDP(given["laws"], given["reward"], 5, features)
    np.testing.assert_allclose(mdp.kernel[3].numpy(), features[3] @ given["laws"][3], rtol=0, atol=1e-15)
    each = torch.rand(4, dtype=torch.float64)
    np.testing.assert_allclose(mdp.mix(3, each).numpy(), features[3] @ each.numpy(), rtol=0, atol=1e-15)


def test_rewards_of_runs() -> None:
    reward = np.random.default_rng(2).uniform(size=(6, 5, 3, 2))
    reward[:, :, 2] = 0.0
    mdp = model(reward=reward)
    assert mdp.reward_at(1).shape == (6, 3, 2)
    assert (mdp.states, mdp.actions) == (3, 2)
    reward[5, 0, 2, 0] = 1.0
    with pytest.raises(ValueError, match=r"FiniteMDP.fail"):
        model(reward=reward)


def test_replace_and_to() -> None:
    mdp = model()
    other = mdp.replace(laws=mdp.laws.flip(1).clone(), fail=())
    assert not other.kernel.equal(mdp.kernel)
    assert other.reward is mdp.reward
    assert mdp.to("cpu").kernel.equal(mdp.kernel)
    with pytest.raises(ValueError, match=r"FiniteMDP.laws"):
        mdp.replace(laws=2 * mdp.laws)


def test_linear_and_tabular() -> None:
    given, rng = parts(), np.random.default_rng(3)
    weights = rng.uniform(size=(5, 4))
    weights[:, 3] = 0.0
    mdp = linear_mdp(given["features"], given["laws"], weights, 5, 1, (2,))
    np.testing.assert_allclose(mdp.reward.numpy(), np.einsum("saf,hf->hsa", given["features"], weights), atol=1e-15)
    assert mdp.start.tolist() == [0, 1, 0]
    table = tabular_mdp(mdp.kernel, mdp.reward, 5, [0.25, 0.75, 0.0], (2,))
    assert table.features is None
    assert table.factors == 6
    torch.testing.assert_close(table.kernel, mdp.kernel, rtol=0, atol=1e-15)
    assert table.start.tolist() == [0.25, 0.75, 0.0]
    each = torch.arange(6, dtype=torch.float64)
    assert table.mix(0, each).equal(each.view(3, 2))
    one = tabular_mdp(mdp.kernel[0], mdp.reward[0], 9)
    assert one.laws.shape == (1, 6, 3)
    assert one.reward.shape == (1, 3, 2)


@pytest.mark.parametrize("start", [-1, 3])
def test_start_that_is_no_state(start: int) -> None:
    with pytest.raises(ValueError, match="start"):
        tabular_mdp(np.full((3, 2, 3), 1 / 3), np.zeros((3, 2)), 2, start)


def test_misshapen_builders() -> None:
    with pytest.raises(ValueError, match=r"linear_mdp.features"):
        linear_mdp(np.full((3, 2, 4), 0.25), np.full((1, 4, 3), 1 / 3), np.zeros((1, 5)), 2)
    with pytest.raises(ValueError, match=r"tabular_mdp.kernel"):
        tabular_mdp(np.full((2, 3), 1 / 3), np.zeros((3, 2)), 2)


NAMES = [("kernel", "reward", "start"), ("tx_mat", "r_mat", "d_0"), ("P", "R", None)]


@pytest.mark.parametrize("names", NAMES, ids=[names[0] for names in NAMES])
def test_files(tmp_path: Path, names: tuple[str, str, str | None]) -> None:
    rng = np.random.default_rng(4)
    kernel, reward, start = rng.dirichlet(np.ones(3), (3, 2)), rng.uniform(size=(3, 2)), np.array([0.0, 0.5, 0.5])
    arrays = {names[0]: kernel, names[1]: reward, "other": np.zeros(2)}
    if names[2] is not None:
        arrays[names[2]] = start
    np.savez(tmp_path / "a.npz", **arrays)
    mdp = load_mdp(tmp_path / "a.npz", 7)
    np.testing.assert_array_equal(mdp.kernel[0], kernel)
    np.testing.assert_array_equal(mdp.reward[0], reward)
    assert mdp.steps == 7
    assert mdp.start.tolist() == (start.tolist() if names[2] else [1, 0, 0])


def test_rewards_on_the_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    kernel, reward = rng.dirichlet(np.ones(3), (3, 2)), rng.uniform(size=(3, 2, 3))
    np.savez(tmp_path / "a.npz", kernel=kernel, reward=reward)
    np.testing.assert_allclose(load_mdp(tmp_path / "a.npz", 2).reward[0], np.einsum("sat,sat->sa", kernel, reward))


EVEN = np.full((3, 2, 3), 1 / 3)
FILES: dict[str, tuple[dict[str, Any], str]] = {
    "no kernel": ({"reward": np.zeros((3, 2))}, "kernel"),
    "no reward": ({"P": EVEN}, "reward"),
    "kernel not square": ({"P": np.full((3, 2, 4), 0.25), "R": np.zeros((3, 2))}, "(S, A, S)"),
    "kernel of two axes": ({"P": EVEN[0], "R": np.zeros((3, 2))}, "(S, A, S)"),
    "reward of another shape": ({"P": EVEN, "R": np.zeros((2, 3))}, "model.reward"),
    "kernel that is no law": ({"P": 2 * EVEN, "R": np.zeros((3, 2))}, "distributions"),
    "reward with nan": ({"P": EVEN, "R": np.full((3, 2), np.nan)}, "finite"),
    "start of another shape": ({"P": EVEN, "R": np.zeros((3, 2)), "d_0": np.full(2, 0.5)}, "start"),
    "objects": ({"P": np.array([{}, None], dtype=object), "R": np.zeros((3, 2))}, "numbers"),
    "text": ({"P": np.array(["a"]), "R": np.zeros((3, 2))}, "numbers"),
}


@pytest.mark.parametrize("name", list(FILES))
def test_bad_arrays(tmp_path: Path, name: str) -> None:
    arrays, part = FILES[name]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match="expected") as caught:
        load_mdp(tmp_path / "a.npz", 3)
    assert part in str(caught.value)
    assert "Fix: " in str(caught.value)


def truncated(path: Path) -> None:
    np.savez(path, P=EVEN, R=np.zeros((3, 2)))
    path.write_bytes(path.read_bytes()[:200])


def damaged(path: Path) -> None:
    np.savez_compressed(path, P=np.random.default_rng(0).dirichlet(np.ones(9), (9, 9)), R=np.zeros((9, 9)))
    data = bytearray(path.read_bytes())
    data[300:600] = bytes(300)
    path.write_bytes(bytes(data))


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, EVEN)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("states 3"),
    "truncated": truncated,
    "damaged": damaged,
    "npy": one_array,
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_bad_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.npz"
    DAMAGE[name](path)
    with pytest.raises(ValueError, match=r"expected .* got .*a\.npz.*Fix: "):
        load_mdp(path, 3)


def test_what_is_no_model_is_refused() -> None:
    kernel, reward = torch.full((3, 2, 3), 1 / 3), torch.zeros(3, 2)
    for start in ([2.0], [0.3]):
        with pytest.raises(ValueError, match=r"FiniteMDP.start: expected shape \(3,\), got shape \(1,\)"):
            tabular_mdp(kernel, reward, 2, start)
    assert tabular_mdp(kernel, reward, 2).start.tolist() == [1, 0, 0]
    mdp = tabular_mdp(kernel, reward, 2)
    for change, said in (
        ({"laws": None}, r"FiniteMDP.laws: expected a tensor of numbers, got None"),
        ({"laws": "abc"}, r"FiniteMDP.laws: expected a tensor of numbers, got 'abc'"),
        ({"reward": mdp.reward + 1j}, r"FiniteMDP.reward: expected real numbers, got torch.complex128"),
        ({"fail": ("x",)}, r"FiniteMDP.fail: expected states 0 to 2, got x"),
    ):
        with pytest.raises(ValueError, match=said):
            mdp.replace(**change)


def test_rounding_of_float32_is_mended() -> None:
    kernel = torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    mdp = tabular_mdp(kernel, torch.zeros(4, 3), 2)
    torch.testing.assert_close(mdp.kernel.sum(-1), torch.ones(1, 4, 3).double(), rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match=r"FiniteMDP.laws: expected distributions .*got a row whose sum misses 1 by"):
        tabular_mdp(kernel * 1.00001, torch.zeros(4, 3), 2)

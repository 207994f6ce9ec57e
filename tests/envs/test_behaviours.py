"""Behaviour policies: what they compute, the files they are kept in, the SAC update that trained them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from envs import behaviours
from envs.behaviours import BehaviourPolicy
from envs.make import make_env
from orbs import save_tensors

torch.set_num_threads(1)


def tiny() -> BehaviourPolicy:
    """One unit a layer: mean action tanh(relu(relu(x)) - 1), log std 0.5 relu(relu(x)), scaled to [-2, 4]."""
    one = np.ones((1, 1), np.float32)
    weights = {"hidden1": one, "hidden2": one, "mean": one, "log_std": 0.5 * one}
    biases = {name: np.zeros(1, np.float32) for name in weights} | {"mean": np.full(1, -1, np.float32)}
    return BehaviourPolicy(weights, biases, np.float32([-2]), np.float32([4]), {"env": "X-v0", "score": 1.5})


def test_values_by_hand() -> None:
    obs = np.float32([[2.0], [-3.0]])
    np.testing.assert_allclose(tiny().act(obs), 1 + 3 * np.tanh([[1.0], [-1.0]]), rtol=1e-6)
    noise = np.float32([[0.5], [-0.25]])
    wanted = 1 + 3 * np.tanh([[1.0 + 0.5 * np.exp(1.0)], [-1.0 - 0.25]])
    np.testing.assert_allclose(tiny().act(obs, noise), wanted, rtol=1e-6)


def test_file_round_trip(tmp_path: Path) -> None:
    tiny().save(tmp_path / "new" / "policy.safetensors")
    again = BehaviourPolicy.read(tmp_path / "new" / "policy.safetensors")
    obs = np.random.default_rng(0).normal(size=(5, 1)).astype(np.float32)
    np.testing.assert_array_equal(tiny().act(obs), again.act(obs))
    assert again.meta["env"] == "X-v0"
    assert again.meta["score"] == 1.5


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(2)}, {"kind": "something"})
    with pytest.raises(ValueError, match="behaviour: expected a file that orbs collect exported"):
        BehaviourPolicy.read(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="did you mean 'hopper-medium'"):
        behaviours.load("hoper-medium")


def test_shipped_policies_are_small_stated_and_fit_their_environment() -> None:
    assert len(behaviours.names()) >= 6
    for name in behaviours.names():
        path = Path(behaviours.__file__).parent / f"{name}.safetensors"
        assert path.stat().st_size < 1_000_000
        with safe_open(path, framework="np") as file:
            assert set(file.metadata()) == {"orbs"}
        policy = behaviours.load(name)
        env = make_env(policy.meta["env"], disable_env_checker=True)
        assert policy.weights["hidden1"].shape[1] == env.observation_space.shape[0]  # type: ignore[index]
        np.testing.assert_array_equal(policy.action_low, env.action_space.low)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(policy.action_high, env.action_space.high)  # type: ignore[attr-defined]
        assert {"step", "return", "score", "recipe", "platform", "resumed"} <= set(policy.meta)


def library_and_ours(width: int, steps: int, env: str) -> list[dict[str, torch.Tensor]]:
    from stable_baselines3 import SAC

    from envs.sac import BehaviourSAC

    found = []
    for kind in (SAC, BehaviourSAC):
        agent = kind(
            "MlpPolicy", make_env(env, disable_env_checker=True), batch_size=32, learning_starts=60, seed=0,
            policy_kwargs={"net_arch": [width, width]}, learning_rate=1e-3, device="cpu",
        )  # fmt: skip
        agent.learn(steps)
        parameters = {name: value.detach().clone() for name, value in agent.policy.named_parameters()}
        found.append({**parameters, "log_ent_coef": agent.log_ent_coef.detach().clone()})
    return found


@pytest.mark.filterwarnings("ignore:.*out of date.*:DeprecationWarning")
@pytest.mark.parametrize("env", ["Hopper-v4", "Pendulum-v1"])
def test_update_is_stable_baselines3s(env: str) -> None:
    """Twenty updates from the same seed: the same parameters as the library's own, to float32's rounding.

    A wrong sign or factor in any gradient shows: Adam's first steps are of the learning rate's size, 1e-3 each.
    """
    library, ours = library_and_ours(16, 80, env)
    for name, value in library.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=3e-5, msg=lambda text, name=name: f"{name}: {text}")
    start, _ = library_and_ours(16, 60, env)
    moved = {name: float((library[name] - start[name]).abs().max()) for name in library}
    assert min(moved.values()) > 1e-4  # every tensor was trained, so the comparison says something


def test_gradient_where_the_spread_is_clipped() -> None:
    """Beyond the bounds of log std its own gradient vanishes, the mean's does not: against autograd."""
    from envs.sac import _actor_backward, _adopt, _squashed

    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2), torch.nn.Linear(8, 2)]
    with torch.no_grad():
        layers[3].bias.copy_(torch.tensor([9.0, -30.0]))  # one above the upper bound, one below the lower
        flat = _adopt([layers], stacked=False)
    obs, noise, slope = torch.randn(5, 3), torch.randn(5, 2) * 0.01, torch.randn(5, 2)
    temperature = torch.tensor([0.7])
    with torch.no_grad():
        policy = _squashed(flat.values, obs, noise)
        _actor_backward(flat, obs, noise, policy, slope / 5, temperature)
    free = [value.clone().requires_grad_() for value in flat.values]
    w1, b1, w2, b2, wm, bm, ws, bs = free
    hidden = torch.relu(torch.relu(obs @ w1.T + b1) @ w2.T + b2)
    log_std = (hidden @ ws.T + bs).clamp(-20, 2)
    action = torch.tanh(hidden @ wm.T + bm + log_std.exp() * noise)
    log_prob = (-0.5 * noise**2 - log_std - torch.log(1 - action**2 + 1e-6)).sum(1)
    (temperature * log_prob + (slope * action).sum(1)).mean().backward()
    for got, wanted in zip(flat.grads, free, strict=True):
        torch.testing.assert_close(got, wanted.grad, rtol=1e-4, atol=1e-6)
    assert (flat.grads[7] == 0).all()


def test_policies_that_do_not_fit_or_name_a_module_are_refused(tmp_path: Path) -> None:
    import dataclasses

    good = tiny()
    wide = {**good.weights, "mean": np.ones((1, 2), np.float32)}
    nan = {**good.weights, "mean": np.full((1, 1), np.nan, np.float32)}
    for weights, text in ((wide, "layers that fit each other"), (nan, "finite numbers")):
        dataclasses.replace(good, weights=weights).save(tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=text):
            BehaviourPolicy.read(tmp_path / "a.safetensors")
    dataclasses.replace(good, meta={"env": "evil:Foo-v0"}).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="the id of an environment without a module"):
        BehaviourPolicy.read(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="behaviour: expected an existing file"):
        BehaviourPolicy.read(tmp_path / "none.safetensors")

"""ReBRAC: hand values, a second implementation in float64, its limit TD3+BC, next actions, a toy."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.datasets import Dataset, from_arrays
from offline_rl import TD3BC, ReBRAC
from offline_rl.critics.layer_norm import init_rebrac, normed_mlp
from offline_rl.rebrac import squared_distance
from orbs import Philox, Transitions
from tests.offline_rl.reference import TextbookAdam, make_data

F64 = torch.float64
SMALL: dict[str, Any] = {
    "runs": 2, "dtype": F64, "hidden": (16, 12, 8), "batch_size": 20, "learning_rate": 3e-3,
    "critic_learning_rate": 2e-3, "actor_beta": 0.3, "critic_beta": 0.2,
}  # fmt: skip


def test_squared_distance_by_hand() -> None:
    """Half ranges 1 and 2: (0.5 / 1)^2 + (3 / 2)^2."""
    found = squared_distance(torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[0.0, -2.0]]]), torch.tensor([1.0, 2.0]))
    assert found.item() == pytest.approx(0.25 + 2.25)


def test_normalised_layer_by_hand_and_after_the_rectifier() -> None:
    """x = 1, pre-activations (2, -1, 4): ReLU gives (2, 0, 4), mean 2, variance 8/3."""
    weight, bias = torch.tensor([[[2.0, -1.0, 4.0]]], dtype=F64), torch.zeros(1, 1, 3, dtype=F64)
    scale, shift = torch.tensor([[[1.0, 2.0, 1.0]]], dtype=F64), torch.tensor([[[0.0, 0.0, 5.0]]], dtype=F64)
    last = [torch.ones(1, 3, 1, dtype=F64), torch.zeros(1, 1, 1, dtype=F64)]
    x = torch.ones(1, 1, 1, dtype=F64)
    root = (8 / 3 + 1e-6) ** 0.5
    hidden = normed_mlp(x, [weight, bias, scale, shift, *last], hidden_only=True)
    np.testing.assert_allclose(hidden.flatten(), [0.0, -4.0 / root, 2.0 / root + 5.0], rtol=1e-12)
    plain = normed_mlp(
        torch.randn(1, 7, 1, dtype=F64), [weight, bias, torch.ones_like(scale), torch.zeros_like(shift), *last], True
    )
    np.testing.assert_allclose(plain.mean(-1), 0.0, atol=1e-12)


def test_initial_weights() -> None:
    parameters = init_rebrac(Philox(0, [0, 1]), "x", (40, 30, 20, 3), 1e-3, True, 1, F64)
    assert [tuple(p.shape) for p in parameters[:4]] == [(2, 40, 30), (2, 1, 30), (2, 1, 30), (2, 1, 30)]
    assert (parameters[1] == 0.1).all()
    assert (parameters[5] == 0.1).all()
    assert 0.9 / 40**0.5 < parameters[0].abs().max() <= 1 / 40**0.5
    for tensor in parameters[-2:]:
        assert 0.5e-3 < tensor.abs().max() <= 1e-3


def reference(
    learner: ReBRAC, data: Transitions, run: int, steps: int
) -> tuple[dict[str, torch.Tensor], dict[str, list[float]]]:
    """baselines_offline.md section 4, run by run, from the formulas; only weights and draws are the learner's.

    The parameters and, update by update, the metrics.
    """
    metrics = collections.defaultdict(list)
    config, state = learner.config, {name: x.detach().clone() for name, x in learner.state_dict().items()}

    def stack(prefix: str, index: int) -> list[torch.Tensor]:
        names = sorted((n for n in state if n.rsplit(".", 1)[0] == prefix), key=lambda n: int(n.rsplit(".", 1)[1]))
        return [state[n][index].clone().requires_grad_() for n in names]

    def net(x: torch.Tensor, p: list[torch.Tensor], normed: bool) -> torch.Tensor:
        per = 4 if normed else 2
        for i in range((len(p) - 2) // per):
            x = torch.clamp(x @ p[per * i] + p[per * i + 1], min=0)
            if normed:
                centred = x - x.mean(1, keepdim=True)
                x = centred / torch.sqrt((centred**2).mean(1, keepdim=True) + 1e-6)
                x = x * p[per * i + 2] + p[per * i + 3]
        return x @ p[-2] + p[-1]

    low, high = (torch.tensor(b, dtype=F64) for b in (data.action_low, data.action_high))
    half, centre = (high - low) / 2, (high + low) / 2

    def policy(s: torch.Tensor, p: list[torch.Tensor]) -> torch.Tensor:
        return centre + half * torch.tanh(net(s, p, config.actor_layer_norm))

    def q(s: torch.Tensor, a: torch.Tensor, p: list[torch.Tensor]) -> torch.Tensor:
        return net(torch.cat([s, a], 1), p, config.critic_layer_norm)[:, 0]

    actor = stack("actor", run)
    critics = [stack("critic.online", 2 * run + i) for i in (0, 1)]
    slow_actor, slow = [x.detach().clone() for x in actor], [[x.detach().clone() for x in c] for c in critics]
    actor_adam = TextbookAdam(actor, config.learning_rate)
    critic_adam = TextbookAdam(critics[0] + critics[1], config.critic_learning_rate)
    arrays = (data.obs, data.action, data.reward, data.next_obs, data.terminal, data.next_action)
    S, A, R, S2, D, A2 = (torch.tensor(x, dtype=F64) for x in arrays)
    for t in range(1, steps + 1):
        rows = learner.philox.integers("batch", len(S), t, 1, config.batch_size)[run, 0]
        noise = learner.philox.normal("target_noise", t, 1, config.batch_size * len(half), F64)[run, 0].view(
            -1, len(half)
        )
        s, a = S[rows], A[rows]
        with torch.no_grad():
            e = torch.clamp(config.policy_noise * noise, -config.noise_clip, config.noise_clip) * half
            a2 = torch.minimum(torch.maximum(policy(S2[rows], slow_actor) + e, low), high)
            penalty = (((a2 - A2[rows]) / half) ** 2).sum(1)
            backup = torch.minimum(q(S2[rows], a2, slow[0]), q(S2[rows], a2, slow[1])) - config.critic_beta * penalty
            y = R[rows] + config.discount * (1 - D[rows]) * backup
            values = [q(s, a, c) for c in critics]
            metrics["next_distance"].append(penalty.mean().item())
            metrics["q_data"].append(torch.stack(values).mean().item())
            metrics["critic_loss"].append(sum(((value - y) ** 2).mean().item() for value in values))
        critic_adam.descend(sum(((q(s, a, c) - y) ** 2).mean() for c in critics))
        if (t - 1) % config.policy_period:
            continue
        before = [x.detach().clone() for x in actor]
        p = policy(s, actor)
        value = (
            torch.minimum(q(s, p, critics[0]), q(s, p, critics[1]))
            if config.actor_value == "min"
            else q(s, p, critics[0])
        )
        weight = 1 / value.detach().abs().mean().item() if config.normalise_q else 1.0
        distance = (((p - a) / half) ** 2).sum(1)
        loss = (config.actor_beta * distance - weight * value).mean()
        for name, one in {"penalty": distance.mean(), "q_policy": value.mean(), "actor_loss": loss}.items():
            metrics[name].append(one.item())
        metrics["scale"].append(weight)
        actor_adam.descend(loss)
        with torch.no_grad():
            source = before if config.slow_actor_lag else actor
            for target, parameter in zip(
                [*slow_actor, *slow[0], *slow[1]], [*source, *critics[0], *critics[1]], strict=True
            ):
                target.copy_(config.tau * parameter + (1 - config.tau) * target)
    found = {f"actor.{i}": x for i, x in enumerate(actor)} | {f"actor_target.{i}": x for i, x in enumerate(slow_actor)}
    for i in (0, 1):
        found |= {f"critic.online.{j} {i}": x for j, x in enumerate(critics[i])}
        found |= {f"critic.target.{j} {i}": x for j, x in enumerate(slow[i])}
    return found, metrics


VARIANTS: list[dict[str, Any]] = [
    {},
    {"slow_actor_lag": False, "actor_value": "q1", "normalise_q": False, "tau": 0.2},
    {"actor_layer_norm": True, "critic_layer_norm": False, "policy_period": 3, "tau": 0.1},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_are_the_formulas(variant: dict[str, Any]) -> None:
    data = make_data(low=[-0.3, 1.0], high=[0.7, 4.0])
    arguments = {**SMALL, **variant}
    fresh = ReBRAC.for_dataset(data, **arguments)
    learner = ReBRAC.for_dataset(data, **arguments)
    learner.update(5)
    state, measured = learner.state_dict(), learner.metrics()
    for run in (0, 1):
        parameters, metrics = reference(fresh, data, run, 5)
        for name, wanted in parameters.items():
            key, _, which = name.partition(" ")
            got = state[key][2 * run + int(which) if which else run]
            assert (got - wanted).abs().max() < 1e-10, name
        assert measured.keys() == metrics.keys()
        for name, values in metrics.items():
            assert measured[name][run] == pytest.approx(np.mean(values), rel=1e-9), name


def test_its_limit_is_td3_bc() -> None:
    """No LayerNorm, lag or critic penalty, Q1 for the minimum: beta1 = 1 / (alpha d) makes the sum TD3+BC's mean."""
    data = make_data(action_dim=3)
    shared: dict[str, Any] = {**SMALL, "policy_period": 1, "normalise_obs": False, "learning_rate": 3e-3}
    theirs = {key: value for key, value in shared.items() if key[-5:] != "_beta" and key != "critic_learning_rate"}
    switches: dict[str, Any] = {"actor_value": "q1", "critic_layer_norm": False, "slow_actor_lag": False}
    betas = {"actor_beta": 1 / 3, "critic_beta": 0.0, "critic_learning_rate": 3e-3}
    ours = ReBRAC.for_dataset(data, **{**shared, **switches, **betas})
    limit = TD3BC.for_dataset(data, **theirs, alpha=1.0)
    limit.load_state_dict({name: x.clone() for name, x in ours.state_dict().items()}, 0)
    for learner in (ours, limit):
        learner.update(20)
    wanted = limit.state_dict()
    assert max((x.detach() - wanted[name]).abs().max().item() for name, x in ours.state_dict().items()) < 1e-12


def test_first_update_moves_the_actor_and_its_copy_lags() -> None:
    data = make_data()
    learner = ReBRAC.for_dataset(data, **SMALL)
    before = {name: x.detach().clone() for name, x in learner.state_dict().items()}
    learner.update(1)
    after = learner.state_dict()
    assert not torch.equal(before["actor.0"], after["actor.0"])
    torch.testing.assert_close(after["actor_target.0"], before["actor_target.0"])  # it moved towards where it was
    learner.update(1)
    assert torch.equal(after["actor.0"], learner.state_dict()["actor.0"])


@pytest.mark.proof
def test_penalties_pull_towards_the_data() -> None:
    """With a large beta1 the policy is behaviour cloning; beta2 lowers the values of other next actions."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(400, 2))
    action = np.tanh(obs @ np.array([[0.5], [-0.3]]))
    rows = {"obs": obs, "action": action, "reward": -10 * np.abs(action[:, 0] - 0.9), "next_obs": obs}
    data = Transitions(**rows, terminal=np.zeros(400), next_action=action)  # type: ignore[arg-type]
    arguments = {"runs": 1, "hidden": (32, 32), "batch_size": 128, "discount": 0.5, "learning_rate": 3e-3}
    far = {}
    for beta in (0.0, 10.0):
        learner = ReBRAC.for_dataset(data, actor_beta=beta, **arguments)
        learner.update(1000)
        far[beta] = float(np.abs(learner.act(data.obs).reshape(-1, 1) - data.action).mean())
    assert far[10.0] < 0.08 < 0.3 < far[0.0]
    values = []
    for beta in (0.0, 5.0):
        learner = ReBRAC.for_dataset(data, actor_beta=0.0, critic_beta=beta, **arguments)
        learner.update(1000)
        values.append(learner.metrics()["q_data"].mean())
    assert values[1] < values[0] - 1.0


def episodes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(6, 2)),
        "actions": np.linspace(-0.9, 0.9, 6)[:, None],
        "rewards": rng.normal(size=6),
        "terminals": np.arange(6) == 1,
        "timeouts": np.arange(6) == 3,
    }


def test_next_actions_of_a_dataset() -> None:
    """Row i has the action of the file's row i + 1; the time-out row 3 is dropped, the last row lost."""
    arrays = episodes()
    view = from_arrays(arrays).transitions()
    np.testing.assert_allclose(view.action[:, 0], arrays["actions"][[0, 1, 2, 4], 0], rtol=1e-6)
    assert view.next_action is not None
    np.testing.assert_allclose(view.next_action[:, 0], arrays["actions"][[1, 2, 3, 5], 0], rtol=1e-6)


def test_rows_without_a_next_action_are_left_out() -> None:
    """One unknown coordinate is enough; what is kept is counted and stands at its own row."""
    rng = np.random.default_rng(0)
    following = rng.uniform(-1, 1, (5, 2)).astype(np.float32)
    following[1, 1] = following[3, 0] = np.nan
    data = Transitions(
        rng.normal(size=(5, 3)), rng.uniform(-1, 1, (5, 2)), np.arange(5), rng.normal(size=(5, 3)), np.zeros(5),
        next_action=following,
    )  # fmt: skip
    learner = ReBRAC.for_dataset(data, runs=1, hidden=(4,), batch_size=4)
    assert learner.rows_left_out == 2
    assert learner._data is not None
    assert learner._data[:, 5].tolist() == [0, 2, 4]  # the rewards
    np.testing.assert_array_equal(learner._next_action.numpy(), following[[0, 2, 4]])
    learner.update(3)
    assert learner.finite().all()
    assert ReBRAC.for_dataset(make_data(), hidden=(4,)).rows_left_out == 0


def test_terminal_rows_stay_whatever_their_next_action() -> None:
    """Their target is the reward: an unknown next action there trains to the same bits as any other."""
    data = make_data()
    assert data.next_action is not None
    ended = data.terminal > 0
    assert ended.any()
    states = []
    for value in (np.nan, 0.7):
        following = data.next_action.copy()
        following[ended, 1] = value
        learner = ReBRAC.for_dataset(dataclasses.replace(data, next_action=following), **SMALL)
        assert learner.rows_left_out == 0
        learner.update(4)
        assert learner.finite().all()
        states.append(learner.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_caller_s_next_actions_are_neither_changed_nor_shared() -> None:
    data = make_data()
    assert data.next_action is not None
    data.next_action[data.terminal > 0] = np.nan
    given = data.next_action.copy()
    learner = ReBRAC.for_dataset(data, hidden=(4,))
    np.testing.assert_array_equal(data.next_action, given)
    kept = learner._next_action.clone()
    data.next_action[:] = 0.5
    assert torch.equal(learner._next_action, kept)


@pytest.mark.parametrize("late", [False, True])
def test_next_actions_where_final_observations_are_known(late: bool) -> None:
    """Nothing was done in a final observation: unknown after the terminal row 1, which stays, and after the time-out
    row 3, which is left out unless `terminate_on_end` makes it a terminal."""
    arrays = {key: np.asarray(value, np.bool_ if key[0] == "t" else np.float32) for key, value in episodes().items()}
    arrays["actions"] = arrays["actions"] + np.float32(2)  # a box without 0
    bounds = (np.ones(1, np.float32), 3 * np.ones(1, np.float32))
    final = np.zeros((2, 2), np.float32)
    data = Dataset("x", *arrays.values(), *bounds, Path(), "", final_obs=final, terminate_on_end=late)
    view = data.transitions()
    assert view.next_action is not None
    np.testing.assert_array_equal(view.next_action[[0, 2, 4]], arrays["actions"][[1, 3, 5]])
    assert np.isnan(view.next_action[[1, 3]]).all()
    for given in (data, view):
        learner = ReBRAC.for_dataset(given, runs=1, hidden=(4,), batch_size=4)
        assert learner.rows_left_out == (0 if late else 1)
        kept = arrays["actions"][[1, 3, 5], 0].tolist()
        wanted = [kept[0], 0, kept[1], 0, kept[2]] if late else [kept[0], 0, *kept[1:]]
        assert learner._next_action[:, 0].tolist() == wanted
        learner.update(3)
        assert learner.finite().all()


def test_data_without_next_actions_are_refused() -> None:
    plain = (np.zeros((4, 2)), np.zeros((4, 1)), np.zeros(4), np.zeros((4, 2)), np.zeros(4))
    with pytest.raises(ValueError, match=r"rebrac.attach: expected rows with a known next action"):
        ReBRAC.for_dataset(Transitions(*plain))
    with pytest.raises(ValueError, match=r"transitions.next_action: expected shape \(4, 1\)"):
        Transitions(*plain, next_action=np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("actor_beta", -1.0), ("critic_beta", -0.1), ("actor_value", "max"), ("critic_learning_rate", 0.0)],
)
def test_bad_hyperparameters(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"rebrac.{field}: expected"):
        ReBRAC(2, 1, **{field: value})

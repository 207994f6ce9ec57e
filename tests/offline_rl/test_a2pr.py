"""A2PR against hand values (specs/a2pr.md section 9), a second implementation, its limits and the two-mode toy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from offline_rl import A2PR, TD3BC
from offline_rl import a2pr as module
from offline_rl.a2pr import advantage_weight, choose_target, gated_penalty, vae_loss, value_loss
from orbs import Transitions
from tests.offline_rl.reference import make_data, moved, snapshot
from tests.offline_rl.reference_a2pr import SMALL, A2PRReference, built, lively, trained

F64 = torch.float64


def tensor(*rows):
    return torch.tensor(rows, dtype=F64)


# Losses by hand


def test_value_loss_by_hand():
    """Run 0: ((1 - 3)^2 + (2 - 2)^2) / 2 = 2; run 1: (0.25 + 1) / 2."""
    found = value_loss(tensor([1.0, 2.0], [0.5, -1.0]), tensor([3.0, 2.0], [0.0, 0.0]))
    assert found.tolist() == [2.0, 0.625]


def test_advantage_weight_is_strict_and_moves_with_the_threshold():
    q, v = tensor([1.0, 0.5, 0.0, -1.0]), tensor([0.5, 0.5, 0.5, -2.0])
    assert advantage_weight(q, v, 1.5, 0.0).tolist() == [[1.5, 0.0, 0.0, 1.5]]
    assert advantage_weight(q, v, 1.0, 0.5).tolist() == [[0.0, 0.0, 0.0, 1.0]]
    assert advantage_weight(q, v, 1.0, -0.25).tolist() == [[1.0, 1.0, 0.0, 1.0]]


@pytest.mark.parametrize(("mu", "sigma", "kl"), [(1.0, 1.0, 0.5), (0.0, math.e, 2.1945280495), (0.0, 1.0, 0.0)])
def test_kl_golden_values(mu, sigma, kl):
    """-1/2 (1 + log sigma^2 - mu^2 - sigma^2), the mean over rows and latents."""
    mean, log_std = torch.full((2, 3, 4), mu, dtype=F64), torch.full((2, 3, 4), math.log(sigma), dtype=F64)
    action = torch.zeros(2, 3, 2, dtype=F64)
    loss, square, found = vae_loss(action, action, torch.ones(2, 3, dtype=F64), mean, log_std, 0.5)
    torch.testing.assert_close(found, torch.full((2,), kl, dtype=F64), atol=1e-9, rtol=0)
    torch.testing.assert_close(loss, 0.5 * found)
    assert square.tolist() == [0.0, 0.0]


def test_vae_loss_by_hand():
    """Two rows of two coordinates, errors (1, 2) at weight 1.5 and (9, 9) at weight 0: 1.5 * 5 / 4; KL 0.5."""
    reconstruction, action = tensor([[1.0, 2.0], [9.0, 9.0]]), torch.zeros(1, 2, 2, dtype=F64)
    mean, log_std = torch.ones(1, 2, 4, dtype=F64), torch.zeros(1, 2, 4, dtype=F64)
    loss, square, kl = vae_loss(reconstruction, action, tensor([1.5, 0.0]), mean, log_std, 0.5)
    assert (square.item(), kl.item(), loss.item()) == (1.875, 0.5, 2.125)
    assert vae_loss(reconstruction, action, tensor([3.0, 0.0]), mean, log_std, 0.5)[1].item() == 3.75  # twice exactly
    missing = vae_loss(reconstruction[:, :1], action[:, :1], tensor([1.5]), mean, log_std, 0.5)
    assert [part.item() for part in missing] == [2.125, 1.875, 0.5]


def test_losses_have_the_right_gradients():
    draw = torch.Generator().manual_seed(0)
    a, b, mean, log_std = (torch.randn(2, 3, d, dtype=F64, generator=draw, requires_grad=True) for d in (2, 2, 4, 4))
    weight, gate = torch.rand(2, 3, dtype=F64, generator=draw), tensor([1, 0, 1], [1, 1, 0]).bool()
    assert torch.autograd.gradcheck(lambda a, m, s: vae_loss(a, b.detach(), weight, m, s, 0.5)[0], (a, mean, log_std))
    assert torch.autograd.gradcheck(lambda a, b: gated_penalty(a, b, gate), (a, b))
    assert torch.autograd.gradcheck(lambda v: value_loss(v, weight), (mean[..., 0].detach().requires_grad_(),))


@pytest.mark.parametrize(
    ("q_data", "q_vae", "vae", "gate"),
    [(1.0, 1.0, True, True), (1.0, 0.999, False, True), (-1.0, 0.0, True, True), (0.0, -0.1, False, False)],
)
def test_selection_cases_of_the_spec(q_data, q_vae, vae, gate):
    """v = 0: ties go to the VAE; the VAE opens the gate at >=, the data at > alone."""
    take, opened = choose_target(tensor([q_vae]), tensor([q_data]), tensor([0.0]))
    assert (take.item(), opened.item()) == (vae, gate)


def test_the_or_of_the_gate_is_logical_and_the_penalty_counts_closed_rows():
    """Both tests true gives weight 1, not 2; squares 1 + 4 (open) and 9 + 9 (closed): 5 / 4."""
    _, gate = choose_target(tensor([1.0, -1.0]), tensor([1.0, -2.0]), tensor([0.0, 0.0]))
    assert gate.tolist() == [[True, False]]
    assert gated_penalty(tensor([[1.0, 2.0], [3.0, 3.0]]), torch.zeros(1, 2, 2, dtype=F64), gate).item() == 1.25


# Whole updates against the second implementation

CASES = {
    "default": ({}, {}),
    "A=2, d_a=1": ({"action_dim": 1, "low": -2.0, "high": 2.0}, {}),
    "asymmetric box": ({"low": [-0.3, 1.0], "high": [0.7, 4.0]}, {"policy_period": 1}),
    "weights": ({}, {"bc_weight": 10.0, "vae_weight": 1.5, "kl_weight": 0.1, "alpha": 40.0, "policy_period": 1}),
    "detached": ({}, {"detach_vae_target": True, "policy_period": 1}),
    "prior": ({}, {"vae_source": "prior", "policy_period": 1}),
    "fresh value": ({}, {"fresh_value": True, "policy_period": 1}),
    "threshold": ({}, {"advantage_threshold": 0.1, "policy_period": 1}),
    "the paper's text": (
        {},
        {"detach_vae_target": True, "vae_source": "prior", "fresh_value": True, "advantage_threshold": -0.05},
    ),
    "discount, rewards, raw": (
        {},
        {"discount": 0.5, "reward_scale": 3.0, "reward_shift": -2.0, "normalise_obs": False, "tau": 0.3},
    ),
    "no behaviour term": ({}, {"bc_weight": 0.0, "policy_period": 1}),
}


@pytest.mark.parametrize(("shape", "arguments"), CASES.values(), ids=CASES)
def test_updates_equal_the_second_implementation(shape, arguments):
    """Parameters of all networks after three and after six updates, to 1e-10 in float64."""
    data = make_data(**shape)
    for steps in (3, 6):
        learner = lively(data, **arguments)
        references = [A2PRReference(learner, data, run) for run in (0, 1)]
        learner.update(steps)
        for reference in references:
            assert reference.train(steps).worst_gap() < 1e-10


def test_the_comparison_exercises_every_branch():
    """Shares of kept rows, of VAE targets, of open gates and of rows where min(y_on, y) bites: none is 0 or 1."""
    data = make_data()
    learner = lively(data, policy_period=1)
    shares = np.mean([A2PRReference(learner, data, run).train(6).log for run in (0, 1)], axis=(0, 1))
    assert data.terminal.any()
    assert ((shares > 0.05) & (shares < 0.95)).all(), shares


# Gradient of the behaviour term


def penalty_gradient(learner):
    """The penalty of one fixed batch with frozen noise as a function, and its gradient in the actor's weights."""
    rows, noise = learner._draw(1)
    batch = learner._batch(rows[:, 0])
    q_data = learner.critic.actor_value(batch.obs, batch.action).detach()
    value = torch.full_like(q_data, -9.0)  # every gate open

    def penalty():
        action = learner._policy(batch.obs)
        return learner._penalty(batch, action, q_data, value, noise["vae_target_noise"][:, 0]).sum()

    return penalty, torch.autograd.grad(penalty(), learner.actor)


def test_gradient_passes_through_the_vae_s_proposal():
    """Equal to finite differences with frozen noise; other than the detached one, which is not."""
    learner, constant = built(), built(detach_vae_target=True)
    with torch.no_grad():
        for each in (learner, constant):  # a proposal that hears the action well
            for p in (*each.encoder[::2], *each.decoder[::2]):
                p.mul_(2.0)
    penalty, grads = penalty_gradient(learner)
    detached = penalty_gradient(constant)[1]
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p, grad, other in zip(learner.actor, grads, detached, strict=True):
            direction = torch.randn(p.shape, dtype=F64, generator=draw)
            ends = []
            for step in (1e-6, -2e-6):
                p.add_(step * direction)
                ends.append(penalty().item())
            p.add_(1e-6 * direction)
            slope = (ends[0] - ends[1]) / 2e-6
            assert (grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
            assert (other * direction).sum().item() != pytest.approx(slope, rel=1e-3, abs=1e-9)


def test_the_actor_s_step_leaves_the_vae_and_the_value_alone(monkeypatch):
    """Gradients that would land on them are discarded, as by the authors' next zero_grad."""
    whole, without = built(policy_period=1), built(policy_period=1)
    monkeypatch.setattr(without, "_actor_step", lambda *_: None)
    whole.update(1)
    without.update(1)
    ours, theirs = snapshot(whole), snapshot(without)
    for name in ours:
        if name.startswith(("value", "vae", "critic.online")):
            assert torch.equal(ours[name], theirs[name]), name
    assert moved(ours, theirs, "actor.")
    assert not moved(theirs, snapshot(trained(1, policy_period=2)), "vae")


# Limits


def test_without_behaviour_weight_vae_and_value_do_not_reach_the_actor():
    plain, other = built(bc_weight=0.0), built(bc_weight=0.0)
    with torch.no_grad():
        for p in (*other.value, *other.encoder, *other.decoder):
            p.mul_(-0.7)
        other.decoder[-1].fill_(torch.nan)  # not even where it overflows
    for learner in (plain, other):
        learner.update(6)
    assert not moved(snapshot(plain), snapshot(other), ("actor", "critic"))
    assert torch.isfinite(other.actor[0]).all()
    weighed, other = built(), built()
    with torch.no_grad():
        other.decoder[0].mul_(-0.7)
    for learner in (weighed, other):
        learner.update(6)
    assert moved(snapshot(weighed), snapshot(other), "actor")


def test_with_the_data_s_action_as_target_everywhere_it_is_td3_bc(monkeypatch):
    """Gate open, VAE never chosen, weight 1, one width: TD3+BC to rounding."""
    monkeypatch.setattr(
        module, "choose_target", lambda u, d, v: (torch.zeros_like(u).bool(), torch.ones_like(u).bool())
    )
    ours = trained(10, critic_hidden=(16, 12), bc_weight=1.0)
    names = ("runs", "dtype", "hidden", "batch_size", "learning_rate")
    theirs = TD3BC.for_dataset(make_data(), **{name: SMALL[name] for name in names})
    theirs.update(10)
    for name, p in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], p, rtol=0, atol=1e-13)


def test_a_constant_critic_ties_and_ties_go_to_the_vae():
    """All Q equal 3, V below: every target is the VAE's, every gate open."""
    learner = built(policy_period=1, learning_rate=1e-12)
    with torch.no_grad():
        for p in learner.critic.parameters[-2:]:
            p.zero_()
        learner.critic.parameters[-1].fill_(3.0)
        learner.value[-1].fill_(-9.0)
    learner.critic.update = lambda *_, **__: {}
    learner.update(3)
    metrics = learner.metrics()
    assert metrics["vae_rate"].tolist() == metrics["gate_rate"].tolist() == metrics["advantage_rate"].tolist() == [1, 1]
    assert metrics["effective_bc_weight"].tolist() == [0.5, 0.5]


def test_a_value_above_every_q_shuts_every_gate_and_leaves_the_kl_alone():
    learner = built(policy_period=1, value_learning_rate=1e-12, learning_rate=1e-12, vae_learning_rate=1e-2)
    with torch.no_grad():
        learner.value[-1].fill_(99.0)
    learner.update(1)
    first = learner.metrics()
    learner.update(230)
    learner.metrics()
    learner.update(20)
    last = learner.metrics()
    for metrics in (first, last):
        for name in ("advantage_rate", "gate_rate", "penalty", "vae_reconstruction"):
            assert metrics[name].tolist() == [0.0, 0.0], name
        np.testing.assert_allclose(metrics["vae_loss"], 0.5 * metrics["vae_kl"], rtol=1e-12)
    assert (last["vae_kl"] < 1e-3 * first["vae_kl"]).all()  # mu -> 0, sigma -> 1
    mean, log_std = learner._encode(*(learner._batch(torch.arange(200).expand(2, 200))[:2]), learner.encoder)
    assert max(mean.abs().max(), log_std.abs().max()) < 0.1


def test_doubling_the_vae_s_weight_doubles_the_reconstruction_alone():
    one, two = (trained(1, vae_weight=w).metrics() for w in (0.75, 1.5))
    assert (2 * one["vae_reconstruction"]).tolist() == two["vae_reconstruction"].tolist()
    assert one["vae_kl"].tolist() == two["vae_kl"].tolist()


def test_log_std_is_clamped_before_the_exponential():
    """Heads of +-50: log sigma 15 and -4, finite losses, no gradient through the clamp."""
    for bias, bound in ((50.0, 15.0), (-50.0, -4.0)):
        learner = built()
        with torch.no_grad():
            learner.encoder[-1][..., learner.latent_dim :] = bias
        before = learner.encoder[-1].detach().clone()
        learner.update(2)  # the second moves the actor too
        seen = learner.metrics()
        assert seen["vae_log_std_max"].tolist() == seen["vae_policy_log_std_max"].tolist() == [bound, bound]
        assert learner.finite().all()
        half = learner.latent_dim
        assert torch.equal(learner.encoder[-1][..., half:], before[..., half:])


def test_the_prior_is_clipped_to_a_half():
    learner = built(vae_source="prior")
    obs, action = torch.zeros(2, 5, 3, dtype=F64), torch.zeros(2, 5, 2, dtype=F64)
    far, near = (learner._vae_action(obs, action, torch.full((2, 5, 4), z, dtype=F64)) for z in (7.0, 0.5))
    assert torch.equal(far, near)
    assert not torch.equal(far, learner._vae_action(obs, action, torch.full((2, 5, 4), 0.4, dtype=F64)))


# Bad input


@pytest.mark.parametrize(
    "bad",
    [
        {"bc_weight": -1.0},
        {"bc_weight": float("nan")},
        {"vae_weight": -0.5},
        {"kl_weight": "x"},
        {"advantage_threshold": float("inf")},
        {"advantage_threshold": None},
        {"value_learning_rate": 0.0},
        {"vae_learning_rate": -1e-3},
        {"critic_hidden": ()},
        {"critic_hidden": (0,)},
        {"vae_hidden": 750},
        {"vae_hidden": (7.5,)},
        {"vae_source": "data"},
        {"detach_vae_target": 1},
        {"fresh_value": "yes"},
    ],
    ids=str,
)
def test_bad_hyperparameters(bad):
    with pytest.raises(ValueError, match=rf"a2pr\.{next(iter(bad))}: expected .* Fix: "):
        A2PR(3, 2, **bad)


def test_an_unknown_critic_is_refused():
    with pytest.raises(ValueError, match="critic: expected one of twin"):
        A2PR(3, 2, critic="triplet")


def test_lists_of_widths_are_as_good_as_tuples():
    assert (
        A2PR(3, 2, critic_hidden=[6, 5], vae_hidden=[4]).config
        == A2PR(3, 2, critic_hidden=(6, 5), vae_hidden=(4,)).config
    )


# The toy of section 9: one state, four in five actions are bad

TOY = {"runs": 3, "hidden": (16, 16), "batch_size": 32, "learning_rate": 1e-2, "alpha": 0.1, "normalise_obs": False}
NETS = {
    "critic_hidden": (16, 16),
    "vae_hidden": (24, 24),
    "bc_weight": 1.0,
    "vae_learning_rate": 1e-2,
    "value_learning_rate": 1e-2,
}


def two_modes(rows=500):
    good = np.arange(rows) % 5 == 0
    obs = np.ones((rows, 1))
    return Transitions(obs, np.where(good, 0.5, -0.5)[:, None], good, obs, np.ones(rows))


def decoded(learner, draws=200):
    """(runs, draws) actions decoded from the prior in the one state."""
    z = torch.randn(learner.runs, draws, learner.latent_dim, generator=torch.Generator().manual_seed(0))
    obs = torch.ones(learner.runs, draws, 1)
    with torch.no_grad():
        return learner._decode(obs, z, learner.decoder)[..., 0].numpy()


@pytest.mark.proof
def test_the_vae_learns_the_good_mode_and_the_actor_goes_there():
    """20 % of the actions, +0.5, have reward 1. Without the indicator the VAE decodes the bad mode too; TD3+BC with
    the same alpha stays between the modes, and so does the actor where the target is always the data's action."""
    data = two_modes()
    learner = A2PR.for_dataset(data, **TOY, **NETS)
    learner.update(400)
    assert (np.abs(decoded(learner) - 0.5) < 0.15).mean() > 0.95
    np.testing.assert_allclose(learner.act(np.ones(1))[:, 0], 0.5, atol=0.15)

    blind = A2PR.for_dataset(data, **TOY, **NETS, advantage_threshold=-100.0)
    blind.update(400)
    assert (decoded(blind) < 0.0).mean() > 0.5

    between = TD3BC.for_dataset(data, **TOY)
    between.update(400)
    assert (np.abs(between.act(np.ones(1))[:, 0]) < 0.35).all()


def test_without_the_choice_of_the_target_the_actor_stays_between_the_modes(monkeypatch):
    monkeypatch.setattr(
        module, "choose_target", lambda u, d, v: (torch.zeros_like(u).bool(), torch.ones_like(u).bool())
    )
    learner = A2PR.for_dataset(two_modes(), **TOY, **NETS)
    learner.update(400)
    assert (np.abs(learner.act(np.ones(1))[:, 0]) < 0.35).all()

"""What robust planners promise: optimism, the plug-in of a table, theory's factors, and what the names build."""

import math

import numpy as np
import pytest
import torch

import bandits
from bandits.mdp.dr_rpo import DRRPO
from bandits.mdp.r2pvi import R2PVI
from bandits.mdp.transition_model import (
    TransitionModel,
    diagonal_bonus,
    elliptical_bonus,
    mix,
    script_bonus,
    theory_beta,
)
from tests.bandits.mdp import plain_planner as p
from tests.bandits.mdp.homes import HOMES
from tests.bandits.mdp.plain_duals import chi2_priced, chi2_primal, kl_priced, kl_primal

MODELS = {
    "none": (None, "constrained", 0.0),
    "tv": ("tv", "constrained", 0.2),
    "kl": ("kl", "constrained", 0.2),
    "chi2": ("chi2", "constrained", 0.2),
    "tv weight": ("tv", "regularised", 1.0),
    "kl weight": ("kl", "regularised", 1.0),
    "chi2 weight": ("chi2", "regularised", 1.0),
}


def worst(w, v, divergence, form, level):
    """Of a law, exactly."""
    if divergence is None:
        return w @ v
    if divergence == "tv":
        if form == "regularised":
            return w @ np.minimum(v, v.min() + level)
        return max(w @ np.minimum(v, a) - level * (a - v.min()) for a in v)
    exact = {("kl", "constrained"): kl_primal, ("kl", "regularised"): kl_priced,
             ("chi2", "constrained"): chi2_primal, ("chi2", "regularised"): chi2_priced}  # fmt: skip
    return exact[divergence, form](w, v, level) if v.max() > v.min() else v.min()


def random_mdp(seed, states=6, actions=3, factors=4, steps=3):
    """A d-rectangular MDP whose last state fails: features, laws, rewards."""
    rng = np.random.default_rng(seed)
    phi, laws = np.zeros((states, actions, factors)), np.zeros((steps, factors, states))
    phi[:-1, :, :-1] = rng.dirichlet(np.full(factors - 1, 0.5), (states - 1, actions))
    phi[-1, :, -1] = laws[:, -1, -1] = 1.0
    laws[:, :-1] = rng.dirichlet(np.full(states, 0.5), (steps, factors - 1))
    weights = rng.uniform(size=(steps, factors))
    weights[:, -1] = 0.0
    return phi, laws, np.einsum("sai,hi->hsa", phi, weights)


def best_value(phi, laws, rewards, model, temperature):
    """(S,) of step 0, by the robust dynamic programme with log-mean-exp."""
    v = np.zeros(phi.shape[0])
    for h in reversed(range(len(laws))):
        q = rewards[h] + phi @ np.array([worst(law, v, *model) for law in laws[h]])
        top = q.max(-1, keepdims=True)
        v = top[:, 0] + temperature * np.log(np.exp((q - top) / temperature).mean(-1))
    return v


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_estimate_is_optimistic(name, beta):
    """At beta 1 and 3 the estimate is never below the best value: 40 episodes of two random MDPs, eight runs each."""
    runs = 8
    for seed in (0, 1):
        phi, laws, rewards = random_mdp(seed)
        best = best_value(phi, laws, rewards, MODELS[name], 0.1)
        divergence, form, level = MODELS[name]
        learner = DRRPO(
            torch.as_tensor(phi), 3, torch.as_tensor(rewards), divergence, form, level, temperature=0.1, beta=beta,
            fail=(5,), runs=runs,
        )  # fmt: skip
        rng = np.random.default_rng(seed)
        for _ in range(40):
            policy = learner.act().numpy()
            assert (learner.estimate()[1][:, 0].numpy() >= best - 1e-9).all()
            learner.observe(learner.act(), rolled(rng, policy, phi, laws, rewards))


def rolled(rng, policy, phi, laws, rewards):
    """The feedback of an episode from state 0."""
    from orbs import Feedback

    states, actions, paid = [np.zeros(len(policy), int)], [], []
    for h in range(len(laws)):
        at = states[-1]
        cdf = policy[np.arange(len(at)), h, at].cumsum(-1)
        action = (cdf <= rng.random((len(at), 1)) * cdf[:, -1:]).sum(-1).clip(max=cdf.shape[1] - 1)
        law = np.einsum("ri,is->rs", phi[at, action], laws[h]).cumsum(-1)
        states.append((law <= rng.random((len(at), 1)) * law[:, -1:]).sum(-1).clip(max=law.shape[1] - 1))
        actions.append(action)
        paid.append(rewards[h, at, action])
    terms = {"states": np.stack(states, 1), "actions": np.stack(actions, 1), "rewards": np.stack(paid, 1)}
    return Feedback(None, None, {key: torch.as_tensor(x) for key, x in terms.items()})


@pytest.mark.parametrize("name", list(MODELS))
def test_without_ridge_a_table_is_planned_at_its_empirical_laws(name):
    """Unit features, every pair visited: the robust dynamic programme of the counts."""
    states, actions, steps, episodes = 4, 2, 3, 300
    rng = np.random.default_rng(3)
    s, a = rng.integers(0, states, (1, episodes, steps + 1)), rng.integers(0, actions, (1, episodes, steps))
    rewards, divergence_form_level = rng.uniform(size=(steps, states, actions)), MODELS[name]
    divergence, form, level = divergence_form_level
    eye = torch.eye(states * actions, dtype=torch.float64).view(states, actions, -1)
    learner = R2PVI(
        eye, steps, torch.as_tensor(rewards), explore=0, divergence=divergence, form=form, level=level, beta=0.0,
        ridge=1e-10, temperature=0.1, value_cap=torch.full((steps, states, actions), 5.0),
    )  # fmt: skip
    learner.fit(torch.as_tensor(s), torch.as_tensor(a), torch.zeros(1, episodes, steps))
    v = np.zeros(states)
    for h in reversed(range(steps)):
        q = np.zeros((states, actions))
        for x in range(states):
            for y in range(actions):
                law = np.bincount(s[0, (s[0, :, h] == x) & (a[0, :, h] == y), h + 1], minlength=states)
                q[x, y] = rewards[h, x, y] + worst(law / law.sum(), v, divergence, form, level)
        v = 0.1 * np.log(np.exp(q / 0.1).mean(-1))
        found = learner.estimate()
        np.testing.assert_allclose(found[0][0, h].numpy(), q, atol=2e-5)
        np.testing.assert_allclose(found[1][0, h].numpy(), v, atol=2e-5)


def test_the_inverse_stays_the_inverse():
    """Over more episodes than it is updated by rank one; log det and bonuses too."""
    log = p.logs(3, 600)
    model = TransitionModel(torch.as_tensor(p.FEATURES)[None, None], 3, p.STEPS, 0.1, True)
    for k in range(600):
        model.learn(log[0][k], log[1][k], log[2][k], k)
    eye = torch.eye(p.FACTORS, dtype=torch.float64)
    torch.testing.assert_close(model.inverse @ model.gram, eye.expand_as(model.gram), rtol=0, atol=1e-10)
    torch.testing.assert_close(model.growth, torch.logdet(model.gram) - p.FACTORS * math.log(0.1), rtol=1e-9, atol=0)
    batch = TransitionModel(torch.as_tensor(p.FEATURES)[None, None], 3, p.STEPS, 0.1, True)
    batch.learn_all(*(part.transpose(0, 1) for part in log))
    for key, tensor in batch.tensors().items():
        torch.testing.assert_close(tensor, model.tensors()[key], rtol=1e-8, atol=1e-10)
    table, inverse = model.table, model.inverse
    paper = mix(table, diagonal_bonus(inverse))
    assert (script_bonus(table, inverse) <= paper + 1e-12).all()
    assert (elliptical_bonus(table, inverse) <= paper + 1e-12).all()


def test_theory_has_its_factors():
    d, h, k = 4, 3, 1000
    assert theory_beta("tv", "constrained", d, h, k) == pytest.approx(12 * math.sqrt(math.log(3 * 12 * k / 0.05)))
    assert theory_beta(None, "constrained", d, h, k, delta=0.1) == pytest.approx(12 * math.sqrt(math.log(360 * k)))
    offline = theory_beta("kl", "constrained", d, h, k, offline=True)
    assert offline == pytest.approx(24 * math.sqrt(math.log(2 * 4 * 9 * k / 0.05)))
    xi = math.log(1024 * 3 * 2 * k**2 / 0.05)
    assert theory_beta("tv", "regularised", d, h, k, 0.5) == pytest.approx(192 * math.sqrt(xi))
    kl = 16 * 4 * 0.5 * math.exp(6) * math.sqrt(6 + xi)
    assert theory_beta("kl", "regularised", d, h, k, 0.5) == pytest.approx(kl)
    assert theory_beta("chi2", "regularised", d, h, k, 0.5) == pytest.approx(8 * 4 * 9 * 3 * math.sqrt(xi))


def test_names_build_what_the_facts_say():
    facts = HOMES["dr-rpo@chi2-weight"]
    learner = bandits.make("dr-rpo", facts, runs=2)
    assert (learner.divergence, learner.form, learner.temperature) == ("chi2", "regularised", 0.05)
    assert learner.model.pays is None
    assert torch.equal(learner.levels, torch.as_tensor(facts["uncertainty"]["level"]).double())
    own = bandits.make("dr-lsvi-ucb", facts, divergence="tv", form="constrained", level=0.3, rewards="regressed")
    assert (own.divergence, own.form, own.temperature, own.kind) == ("tv", "constrained", 0.0, "signed")
    assert (own.levels == 0.3).all()
    assert own.model.pays is not None
    assert bandits.make("dr-lsvi-ucb", HOMES["dr-rpo@kl"]).kind == "projected"
    assert bandits.make("rpo", facts, temperature=0.2).divergence is None
    assert bandits.make("dr-rpo", facts, divergence="off").divergence is None
    assert bandits.make("dr-rpo", {**facts, "uncertainty": None}).divergence is None
    theory = bandits.make("dr-rpo", facts, tuning="theory", delta=0.1)
    assert theory.beta == pytest.approx(theory_beta("chi2", "regularised", 3, 4, 40, 0.2, 0.1))
    wide = {**facts, "uncertainty": {**facts["uncertainty"], "level": torch.tensor([0.2, 0.7, 0.4]).expand(4, 3)}}
    assert bandits.make("dr-rpo", wide, tuning="theory", delta=0.1).beta == pytest.approx(theory.beta, rel=1e-6)
    assert bandits.make("r2pvi", facts).beta == 0.1
    told = {**facts, "uncertainty": {"divergence": "tv", "form": "constrained", "level": 0.2}}
    few = bandits.make("r2pvi", told, tuning="theory", explore=9)
    assert few.beta == pytest.approx(theory_beta("tv", "constrained", 3, 4, 9, 0.2, offline=True))
    assert bandits.make("r2pvi", facts).explore == 4
    assert bandits.make("lsvi-ucb", facts, tuning="theory").beta == pytest.approx(theory_beta(None, "", 3, 4, 40))
    assert torch.equal(bandits.make("best-policy", facts, runs=2).act()[1], facts["best_policy"])
    with pytest.raises(ValueError, match=r"best-policy: expected a problem with best_policy"):
        bandits.make("best-policy", {key: x for key, x in facts.items() if key != "best_policy"})
    with pytest.raises(ValueError, match=r"dr-rpo.level: expected the level of the constrained tv set"):
        bandits.make("dr-rpo", facts, divergence="tv", form="constrained")

"""Problems that the tests of episodic MDPs share: each named learner joins the contract by a line in HOMES.

No world is needed: a small random model is written here, and episodes are functions of (run id, episode, policy).
"""

import functools

import numpy as np
import torch

import bandits
from orbs import Feedback, Philox

STATES, ACTIONS, STEPS, FACTORS = 5, 3, 4, 3
_RNG = np.random.default_rng(3)
FEATURES = torch.as_tensor(_RNG.dirichlet(np.full(FACTORS, 0.6), (STATES, ACTIONS)))
LAWS = torch.as_tensor(_RNG.dirichlet(np.full(STATES, 0.6), (STEPS, FACTORS)))
WEIGHTS = torch.as_tensor(_RNG.uniform(size=(STEPS, FACTORS)))
KERNEL = torch.einsum("sai,hit->hsat", FEATURES, LAWS)
START = torch.tensor([0.7, 0.0, 0.3, 0.0, 0.0], dtype=torch.float64)
PAID = torch.einsum("sai,hi->hsa", FEATURES, WEIGHTS)

_MODEL = {
    "domain": ("policies", {"dimension": STEPS * STATES * ACTIONS, "states": STATES, "actions": ACTIONS}),
    "states": STATES, "actions": ACTIONS, "episode_length": STEPS, "start": START, "features": FEATURES,
    "kernel": KERNEL, "horizon": 40,
}  # fmt: skip
_LEVELS = torch.full((STEPS, FACTORS), 0.2, dtype=torch.float64)


def _robust(divergence, form):
    best = torch.nn.functional.one_hot(PAID.argmax(-1), ACTIONS).double()
    return {
        **_MODEL, "rewards": PAID, "fail": (), "best_policy": best,
        "uncertainty": {"divergence": divergence, "form": form, "level": _LEVELS},
    }  # fmt: skip


TV = _robust("tv", "constrained")
LOSSES = {**_MODEL, "loss_low": 0.0, "loss_high": 1.0, "feedback": "bandit"}
LOSSES_SEEN = {**LOSSES, "feedback": "full"}

# "name@what" is the learner of that name at another home.
HOMES = {
    "dr-rpo": TV,
    "dr-rpo@kl": _robust("kl", "constrained"),
    "dr-rpo@chi2": _robust("chi2", "constrained"),
    "dr-rpo@tv-weight": _robust("tv", "regularised"),
    "dr-rpo@kl-weight": _robust("kl", "regularised"),
    "dr-rpo@chi2-weight": _robust("chi2", "regularised"),
    "dr-lsvi-ucb": TV,
    "rpo": TV,
    "lsvi-ucb": TV,
    "r2pvi": TV,
    "reference-policy": TV,
    "best-policy": TV,
    "pol-opt": LOSSES,
    "log-barrier-ftrl": LOSSES,
    "magnitude-reduced-ftrl": LOSSES,
    "full-information-ftrl": LOSSES_SEEN,
    "simulator-free-ftrl": LOSSES,
    "cfpo": LOSSES,
    "cfpo@full": LOSSES_SEEN,
}
VARIANTS = [
    *((name, {}) for name in HOMES),
    ("dr-rpo", {"step_size": 3.0}),
    ("dr-rpo", {"switching": True, "rewards": "regressed"}),
    ("dr-rpo", {"weights": "projected", "bonus": "script"}),
    ("dr-rpo@kl", {"weights": "signed", "eps": 0.1}),
    ("dr-rpo@chi2-weight", {"bonus": "elliptical", "ridge": 1.0}),
    ("dr-lsvi-ucb", {"divergence": "off"}),
    ("lsvi-ucb", {"temperature": 0.1}),
    ("r2pvi", {"explore": 6, "bonus": "elliptical"}),
    ("pol-opt", {"bonus": "sample"}),
    ("pol-opt", {"covariance": "direct", "trajectories": 8}),
    ("log-barrier-ftrl", {"covariance": "mgr", "chains": 2, "length": 5}),
    ("log-barrier-ftrl", {"tuning": "theory", "bonus": "off"}),
    ("magnitude-reduced-ftrl", {"correction": "sample", "samples": 5}),
    ("full-information-ftrl", {"tuning": "theory"}),
    ("simulator-free-ftrl", {"epoch": 4, "alpha": 5.0}),
    ("cfpo", {"eta": 3.0, "bonus": 0.0}),
]


def make(name, facts, **arguments):
    """`bandits.make`, of what precedes the @."""
    return bandits.make(name.partition("@")[0], facts, **arguments)


def built(name, hyperparameters=None, runs=1, **changes):
    """A named learner at home."""
    return make(name, {**HOMES[name], **changes}, runs=runs, **(hyperparameters or {}))


@functools.cache
def _luck(episode, runs):
    """(R, 2 H + 1) uniform numbers."""
    return Philox(11, runs).uniform("tests/episodes", episode, 1, 2 * STEPS + 1, torch.float64)[:, 0]


def _drawn(chances, u):
    return (chances.cumsum(-1) <= u.unsqueeze(-1)).sum(-1).clamp_max(chances.shape[-1] - 1)


def losses(episode):
    """(H, S, A) what the pairs cost in an episode, in [0, 1]."""
    weights = Philox(12, [0]).uniform("tests/losses", episode, 1, STEPS * FACTORS, torch.float64)
    return torch.einsum("sai,hi->hsa", FEATURES, weights.view(STEPS, FACTORS))


def episode(facts, number, policy, runs):
    """The feedback of an episode of policies (R, H, S, A): a function of (run id, episode, policy)."""
    u = _luck(number, tuple(runs)).unbind(1)
    rows, pays = torch.arange(len(runs)), PAID if "rewards" in facts else -losses(number)
    state = _drawn(START.expand(len(runs), -1), u[0])
    states, actions, rewards = [state], [], []
    for h in range(STEPS):
        action = _drawn(policy[rows, h, state], u[1 + 2 * h])
        rewards.append(pays[h, state, action])
        state = _drawn(KERNEL[h][state, action], u[2 + 2 * h])
        states.append(state)
        actions.append(action)
    terms = {"states": torch.stack(states, 1), "actions": torch.stack(actions, 1), "rewards": torch.stack(rewards, 1)}
    if facts.get("feedback") == "full":
        weights = Philox(12, [0]).uniform("tests/losses", number, 1, STEPS * FACTORS, torch.float64)
        terms |= {"loss_table": losses(number).unsqueeze(0), "loss_weights": weights.view(1, STEPS, FACTORS)}
    return Feedback(terms["rewards"].sum(-1), None, terms)


def play(learner, facts, episodes, first=0):
    """Policies (K, R, H, S, A) of episodes first .. first + episodes - 1."""
    policies = []
    for k in range(first, first + episodes):
        policy = learner.act().clone()
        learner.observe(policy, episode(facts, k, policy, learner.run_ids))
        policies.append(policy)
    return torch.stack(policies)

"""Every learner of adversarial MDPs against plain loops, with the same random numbers."""

import numpy as np
import pytest
import torch

from bandits.mdp.cfpo import CFPO, CFPORates
from bandits.mdp.ftrl_base import Rates
from bandits.mdp.log_barrier_ftrl import LogBarrierFTRL
from bandits.mdp.magnitude_reduced import MagnitudeReducedFTRL
from bandits.mdp.pol_opt import FullInformationFTRL, PolOpt
from bandits.mdp.simulator_free import EpochPlan, SimulatorFreeFTRL
from orbs import Feedback
from tests.bandits.mdp import reference_adversarial as plain

H, S, A, D, RUNS = 3, 4, 3, 3, 2
LOW, HIGH = -1.0, 2.0
RATES = Rates(0.3, 0.04, 0.05)


def model(seed=0, by_step=False):
    rng = np.random.default_rng([7, seed])
    phi = rng.dirichlet(np.full(D, 0.4), (H, S, A) if by_step else (S, A))
    laws = rng.dirichlet(np.full(S, 0.6), (H, D))
    kernel = np.einsum("hsai,hit->hsat", phi if by_step else np.stack([phi] * H), laws)
    return phi, kernel, np.array([0.6, 0.0, 0.4, 0.0])


def compare(learner, references, problem, episodes=30, tolerance=1e-9):
    """The policies of a learner (runs) and of plain versions, one a run, on the same episodes."""
    rng, moved = np.random.default_rng(3), 0.0
    for _ in range(episodes):
        policy = learner.act().clone()
        weights = rng.uniform(LOW, HIGH, (H, problem.d))
        table = np.einsum("hsai,hi->hsa", problem.phi, weights)
        terms = {"states": [], "actions": [], "rewards": []}
        for run, reference in enumerate(references):
            own = reference.policy()
            np.testing.assert_allclose(policy[run], own, rtol=0, atol=tolerance)
            path = problem.trajectory(own, rng.uniform(size=2 * H))
            states, actions = [s for s, _ in path] + [int(rng.integers(S))], [a for _, a in path]
            losses = [table[h, states[h], actions[h]] for h in range(H)]
            unit = [(loss - LOW) / (HIGH - LOW) for loss in losses]
            if isinstance(reference, plain.FullInformation):
                reference.take(own, (table - LOW) / (HIGH - LOW))
            elif isinstance(reference, plain.SimulatorFree):
                reference.take(states, actions, unit)
            elif isinstance(reference, plain.CFPO):  # features sum to 1: the weights move like the losses
                reference.take(own, states, actions, unit, (weights - LOW) / (HIGH - LOW))
            else:
                reference.take(own, states, actions, unit)
            for name, value in (("states", states), ("actions", actions), ("rewards", [-loss for loss in losses])):
                terms[name].append(value)
        given = {name: torch.tensor(value) for name, value in terms.items()}
        learner.observe(policy, Feedback(None, None, {**given, "loss_table": torch.as_tensor(table)[None]}))
        moved = max(moved, float((policy - 1 / A).abs().max()))
    assert moved > 0.2  # something was learned


KINDS = {
    "pol-opt": (PolOpt, {}, {}),
    "log-barrier": (LogBarrierFTRL, {}, {"barrier": True}),
    "magnitude-reduced": (MagnitudeReducedFTRL, {}, {"reduced": True}),
    "magnitude-reduced sampled": (MagnitudeReducedFTRL, {"samples": 5}, {"reduced": True, "samples": 5}),
}
WAYS = {
    "exact": {},
    "no bonus": {"bonus": "off"},
    "sampled bonus": {"bonus": "sample"},
    "direct": {"covariance": "direct", "trajectories": 7},
    "mgr": {"covariance": "mgr", "chains": 3, "length": 9},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_ftrl_with_a_simulator(kind, way):
    by_step = way == "sampled bonus"
    phi, kernel, start = model(by_step=by_step)
    problem, (cls, own, other) = plain.Problem(phi, kernel, start), KINDS[kind]
    rates = Rates(3.0, 0.04, 0.05) if cls is LogBarrierFTRL else RATES
    learner = cls(
        torch.as_tensor(kernel), torch.as_tensor(start), torch.as_tensor(phi), H, rates, runs=[4, 9], seed=5,
        low=LOW, high=HIGH, **WAYS[way], **own,
    )  # fmt: skip
    references = [plain.Dilated(problem, rates, seed=5, run=run, **WAYS[way], **other) for run in (4, 9)]
    compare(learner, references, problem, 15 if way in ("mgr", "direct") else 30)


def test_full_information():
    phi, kernel, start = model(1)
    problem = plain.Problem(phi, kernel, start)
    learner = FullInformationFTRL(torch.as_tensor(kernel), torch.as_tensor(start), H, 0.5, RUNS, low=LOW, high=HIGH)
    compare(learner, [plain.FullInformation(problem, 0.5) for _ in range(RUNS)], problem)


@pytest.mark.parametrize("alpha", [None, 8.0], ids=["known", "alpha"])
def test_simulator_free(alpha):
    phi, kernel, start = model(2)
    problem, plan = plain.Problem(phi, kernel, start), EpochPlan(7, 0.3, 3.0)
    learner = SimulatorFreeFTRL(
        torch.as_tensor(phi), H, plan, 0.05, 0.1, alpha, runs=[4, 9], seed=5, low=LOW, high=HIGH
    )
    references = [plain.SimulatorFree(problem, plan, 0.05, 0.1, alpha, 5, run) for run in (4, 9)]
    compare(learner, references, problem, 45)


@pytest.mark.parametrize("full", [False, True], ids=["bandit", "full"])
def test_cfpo(full):
    phi, kernel, start = model(3)
    problem, rates = plain.Problem(phi, kernel, start), CFPORates(0.7, 0.3, 3.0, 4.0)
    learner = CFPO(torch.as_tensor(phi), H, rates, full, RUNS, low=LOW, high=HIGH)
    references = [plain.CFPO(problem, rates, full) for _ in range(RUNS)]
    compare(learner, references, problem, 60)
    assert learner.epochs.tolist() == [reference.epochs for reference in references]
    assert (learner.epochs > 3).all()
    for run, reference in enumerate(references):
        np.testing.assert_allclose(learner.estimates[run], reference.q, atol=1e-9)

"""What the tests of DynLin-UCB and its baselines share: learners on the paper's systems, played in two ways."""

import dataclasses

import pytest
import torch

from bandits.linear.ar2 import AR2
from bandits.linear.dyn_lin_ucb import DynLinUCB
from bandits.linear.dynamical_exp3 import BatchExp3, DynamicalExp3
from bandits.linear.dynamical_lin_ucb import DynamicalDLinUCB, DynamicalLinUCB, ExperimentFacts
from bandits.linear.dynamics import Dynamics
from tests.bandits.linear import reference_dynamical as plain

SYSTEMS = pytest.mark.parametrize("system", ["synthetic", "advertising"])


def known(s, **changes):
    bounds = dict(
        spectral_radius=s.rho, transient=s.phi, state_weight=s.omega_norm, action_weight=s.theta_norm,
        input_norm=s.b_norm, action_norm=s.u_norm, noise=s.sigma,
    )  # fmt: skip
    return Dynamics(**{**bounds, **changes})


def facts(s, horizon):
    return ExperimentFacts(known(s), horizon, plain.BUDGET)


def dynamics_in(world):
    return Dynamics(**{one.name: world.facts[one.name] for one in dataclasses.fields(Dynamics)})


def jumped(learner, world, stop=None, seen=None):
    """Play on to `stop`, a held action at a time; `seen(arm, rounds, feedback, x before)` after each."""
    while world.round < (stop or world.horizon):
        arm = learner.act()
        rounds = min(learner.hold(), (stop or world.horizon) - world.round)
        before = world.state_dict()["state"] if seen else None
        feedback = world.advance(arm, rounds)
        if seen:
            seen(arm, rounds, feedback, before)
        learner.skip(rounds - 1)
        learner.observe(arm, feedback)


def stepped(learner, world, stop=None):
    """(rounds, R) the arms."""
    arms = []
    while world.round < (stop or world.horizon):
        arm = learner.act()
        arms.append(arm.clone())
        learner.observe(arm, world.step(arm)[4]["feedback"])
    return torch.stack(arms)


def pseudo(world):
    return world.regret()["regret/pseudo"]


MAKE = {
    "dyn": lambda u, s, T, **more: DynLinUCB(u, known(s), T, **more),
    "dyn-late": lambda u, s, T, **more: DynLinUCB(u, known(s), T, replicate_offset=True, **more),
    "lin": lambda u, s, T, **more: DynamicalLinUCB(u, facts(s, T), **more),
    "lin-one": lambda u, s, T, **more: DynamicalLinUCB(u, facts(s, T), tuning="one", **more),
    "d-lin": lambda u, s, T, **more: DynamicalDLinUCB(u, facts(s, T), **more),
    "d-lin-one": lambda u, s, T, **more: DynamicalDLinUCB(u, facts(s, T), tuning="one", **more),
    "exp3": lambda u, s, T, **more: DynamicalExp3(len(u), known(s), T, **more),
    "batch-exp3": lambda u, s, T, **more: BatchExp3(len(u), known(s), T, **more),
    "batch-exp3-late": lambda u, s, T, **more: BatchExp3(len(u), known(s), T, replicate_misalignment=True, **more),
    "ar2": lambda u, s, T, **more: AR2(len(u), s.rho, s.sigma, **more),
    "ar2-quirks": lambda u, s, T, **more: AR2(len(u), s.rho, s.sigma, replicate_quirks=True, **more),
}
ALL = pytest.mark.parametrize("name", list(MAKE))

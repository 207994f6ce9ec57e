"""Learners judged by regret: bandits, online convex optimisation, episodic MDPs.

    from bandits import UCB1, make
    learner = UCB1(arms=10, runs=200)
    arm = learner.act()                      # (200,)
    learner.observe(arm, reward)             # (200,)

by name, for a problem that facts describe:

    learner = make("hedge", {"domain": ("simplex", {"dimension": 10}), "loss_low": 0.0, "loss_high": 1.0}, runs=200)
    weights = learner.act()                  # (200, 10)
    learner.observe(weights, losses)         # (200, 10)

or composed by hand:

    from bandits.online_learning import OMD, Ball, Euclidean, InverseSqrt
    learner = OMD(Euclidean(), Ball(5), InverseSqrt(1.0), runs=200)

Everything is float64, `runs` independent copies at once, on CPU or CUDA. Configurations are in `bandits.config`, which
needs no torch; classes are imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bandits.contextual.disjoint import DisjointLinUCB as DisjointLinUCB
    from bandits.contextual.epoch_greedy import EpochGreedy as EpochGreedy
    from bandits.contextual.explore import ContextualEpsilonGreedy as ContextualEpsilonGreedy
    from bandits.contextual.explore import ContextualExploreFirst as ContextualExploreFirst
    from bandits.contextual.mesh import MeshUCB as MeshUCB
    from bandits.contextual.square_cb import SquareCB as SquareCB
    from bandits.linear.ar2 import AR2 as AR2
    from bandits.linear.dyn_lin_ucb import DynLinUCB as DynLinUCB
    from bandits.linear.dynamical_exp3 import BatchExp3 as BatchExp3
    from bandits.linear.dynamical_exp3 import DynamicalExp3 as DynamicalExp3
    from bandits.linear.dynamical_lin_ucb import DynamicalDLinUCB as DynamicalDLinUCB
    from bandits.linear.dynamical_lin_ucb import DynamicalLinUCB as DynamicalLinUCB
    from bandits.linear.fixed_plan import FixedPlan as FixedPlan
    from bandits.linear.forgetting import DLinUCB as DLinUCB
    from bandits.linear.forgetting import SWLinUCB as SWLinUCB
    from bandits.linear.glm_ucb import GLMUCB as GLMUCB
    from bandits.linear.lin_ts import LinTS as LinTS
    from bandits.linear.lin_ucb import LinUCB as LinUCB
    from bandits.linear.lin_ucb import RestartLinUCB as RestartLinUCB
    from bandits.mdp.cfpo import CFPO as CFPO
    from bandits.mdp.dr_rpo import DRLSVIUCB as DRLSVIUCB
    from bandits.mdp.dr_rpo import DRRPO as DRRPO
    from bandits.mdp.fixed_policy import FixedPolicy as FixedPolicy
    from bandits.mdp.log_barrier_ftrl import LogBarrierFTRL as LogBarrierFTRL
    from bandits.mdp.lsvi_ucb import LSVIUCB as LSVIUCB
    from bandits.mdp.magnitude_reduced import MagnitudeReducedFTRL as MagnitudeReducedFTRL
    from bandits.mdp.pol_opt import FullInformationFTRL as FullInformationFTRL
    from bandits.mdp.pol_opt import PolOpt as PolOpt
    from bandits.mdp.r2pvi import R2PVI as R2PVI
    from bandits.mdp.simulator_free import SimulatorFreeFTRL as SimulatorFreeFTRL
    from bandits.multi_armed.baselines import Oracle as Oracle
    from bandits.multi_armed.baselines import RandomArm as RandomArm
    from bandits.multi_armed.bayes_ucb import BayesUCB as BayesUCB
    from bandits.multi_armed.discounted import DiscountedUCB as DiscountedUCB
    from bandits.multi_armed.discounted import SlidingWindowUCB as SlidingWindowUCB
    from bandits.multi_armed.exp3 import Exp3 as Exp3
    from bandits.multi_armed.exp3 import Exp3Auer as Exp3Auer
    from bandits.multi_armed.exp3 import Exp3IX as Exp3IX
    from bandits.multi_armed.exp3 import Exp3P as Exp3P
    from bandits.multi_armed.exp3 import Exp3S as Exp3S
    from bandits.multi_armed.exp3 import Rexp3 as Rexp3
    from bandits.multi_armed.exp4 import Exp4 as Exp4
    from bandits.multi_armed.explore import Boltzmann as Boltzmann
    from bandits.multi_armed.explore import EpsilonGreedy as EpsilonGreedy
    from bandits.multi_armed.explore import ExploreFirst as ExploreFirst
    from bandits.multi_armed.explore import Greedy as Greedy
    from bandits.multi_armed.explore import SuccessiveElimination as SuccessiveElimination
    from bandits.multi_armed.kl_ucb import KLUCB as KLUCB
    from bandits.multi_armed.moss import MOSS as MOSS
    from bandits.multi_armed.thompson import GaussianThompsonSampling as GaussianThompsonSampling
    from bandits.multi_armed.thompson import ThompsonSampling as ThompsonSampling
    from bandits.multi_armed.tsallis_inf import TsallisINF as TsallisINF
    from bandits.multi_armed.ucb import UCB1 as UCB1
    from bandits.multi_armed.ucb import UCBV as UCBV
    from bandits.multi_armed.ucb import UCBTuned as UCBTuned
    from bandits.online_learning.learner import FTRL as FTRL
    from bandits.online_learning.learner import OMD as OMD
    from bandits.online_learning.learner import OptimisticFTRL as OptimisticFTRL
    from bandits.online_learning.learner import OptimisticOMD as OptimisticOMD
    from bandits.online_learning.perturbed_leader import FPL as FPL
    from orbs import RegretLearner

_HOMES = {
    "AR2": "bandits.linear.ar2",
    "BatchExp3": "bandits.linear.dynamical_exp3",
    "DynamicalDLinUCB": "bandits.linear.dynamical_lin_ucb",
    "DynamicalExp3": "bandits.linear.dynamical_exp3",
    "DynamicalLinUCB": "bandits.linear.dynamical_lin_ucb",
    "DynLinUCB": "bandits.linear.dyn_lin_ucb",
    "FixedPlan": "bandits.linear.fixed_plan",
    "DLinUCB": "bandits.linear.forgetting",
    "GLMUCB": "bandits.linear.glm_ucb",
    "LinTS": "bandits.linear.lin_ts",
    "LinUCB": "bandits.linear.lin_ucb",
    "RestartLinUCB": "bandits.linear.lin_ucb",
    "SWLinUCB": "bandits.linear.forgetting",
    "ContextualEpsilonGreedy": "bandits.contextual.explore",
    "ContextualExploreFirst": "bandits.contextual.explore",
    "DisjointLinUCB": "bandits.contextual.disjoint",
    "EpochGreedy": "bandits.contextual.epoch_greedy",
    "MeshUCB": "bandits.contextual.mesh",
    "SquareCB": "bandits.contextual.square_cb",
    "CFPO": "bandits.mdp.cfpo",
    "DRLSVIUCB": "bandits.mdp.dr_rpo",
    "DRRPO": "bandits.mdp.dr_rpo",
    "FixedPolicy": "bandits.mdp.fixed_policy",
    "LSVIUCB": "bandits.mdp.lsvi_ucb",
    "R2PVI": "bandits.mdp.r2pvi",
    "FullInformationFTRL": "bandits.mdp.pol_opt",
    "LogBarrierFTRL": "bandits.mdp.log_barrier_ftrl",
    "MagnitudeReducedFTRL": "bandits.mdp.magnitude_reduced",
    "PolOpt": "bandits.mdp.pol_opt",
    "SimulatorFreeFTRL": "bandits.mdp.simulator_free",
    "Exp3": "bandits.multi_armed.exp3",
    "Exp3Auer": "bandits.multi_armed.exp3",
    "Exp3IX": "bandits.multi_armed.exp3",
    "Exp3P": "bandits.multi_armed.exp3",
    "Exp3S": "bandits.multi_armed.exp3",
    "Rexp3": "bandits.multi_armed.exp3",
    "Exp4": "bandits.multi_armed.exp4",
    "TsallisINF": "bandits.multi_armed.tsallis_inf",
    "FPL": "bandits.online_learning.perturbed_leader",
    "FTRL": "bandits.online_learning.learner",
    "OMD": "bandits.online_learning.learner",
    "OptimisticFTRL": "bandits.online_learning.learner",
    "OptimisticOMD": "bandits.online_learning.learner",
    "BayesUCB": "bandits.multi_armed.bayes_ucb",
    "Boltzmann": "bandits.multi_armed.explore",
    "DiscountedUCB": "bandits.multi_armed.discounted",
    "EpsilonGreedy": "bandits.multi_armed.explore",
    "ExploreFirst": "bandits.multi_armed.explore",
    "GaussianThompsonSampling": "bandits.multi_armed.thompson",
    "Greedy": "bandits.multi_armed.explore",
    "KLUCB": "bandits.multi_armed.kl_ucb",
    "MOSS": "bandits.multi_armed.moss",
    "Oracle": "bandits.multi_armed.baselines",
    "RandomArm": "bandits.multi_armed.baselines",
    "SlidingWindowUCB": "bandits.multi_armed.discounted",
    "SuccessiveElimination": "bandits.multi_armed.explore",
    "ThompsonSampling": "bandits.multi_armed.thompson",
    "UCB1": "bandits.multi_armed.ucb",
    "UCBTuned": "bandits.multi_armed.ucb",
    "UCBV": "bandits.multi_armed.ucb",
}

__all__ = [*_HOMES, "make"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bandits' has no attribute '{name}'")


def make(
    name: str,
    facts: Mapping[str, Any],
    runs: int | Sequence[int] = 1,
    seed: int = 0,
    device: str = "cpu",
    **hyperparameters: Any,
) -> RegretLearner:
    """A learner by name, for the problem that `facts` describes (`world.facts`).

    Args:
        name: of `bandits.config.CONFIGS`.
        facts: what it may know beforehand; which facts it needs, an error says.
        runs: how many independent copies, or their ids.
        seed: of its own randomness; the learners of online convex optimisation have none.
        device: where it lies.
        hyperparameters: fields of its configuration.

    Raises:
        ValueError: an unknown name or field, a fact that is missing, a domain that does not fit.
    """
    import difflib
    import importlib

    from bandits.config import CONFIGS
    from orbs import checked_fields, reject

    if name not in CONFIGS:
        near = difflib.get_close_matches(name, CONFIGS, n=1)
        fix = f"did you mean '{near[0]}'?" if near else "orbs list shows them"
        reject("learner", f"one of {', '.join(CONFIGS)}", f"'{name}'", fix.rstrip("."))
    config = CONFIGS[name](**checked_fields(CONFIGS[name], hyperparameters, name))
    family = importlib.import_module(CONFIGS[name].family)
    learner: RegretLearner = family.build(config, facts, {"runs": runs, "seed": seed, "device": device})
    return learner

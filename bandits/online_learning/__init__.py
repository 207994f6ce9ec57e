"""Online convex optimisation: a learner is composed from a regulariser, a domain, a step rule and an optimism.

    from bandits.online_learning import FTRL, Entropy, InverseSqrt, Simplex
    hedge = FTRL(Entropy(), Simplex(10), InverseSqrt(3.0), runs=200)
    weights = hedge.act()                       # (200, 10)
    hedge.observe(weights, losses)              # (200, 10)

`named.py` holds the named algorithms as such compositions; `bandits.make` builds them by name.
"""

from bandits.online_learning.base import OnlineLearner
from bandits.online_learning.domains import Ball, Box, CappedSimplex, Domain, L1Ball, Simplex, Unconstrained
from bandits.online_learning.learner import FTRL, OMD, OptimisticFTRL, OptimisticOMD
from bandits.online_learning.named_experts import weighted_majority
from bandits.online_learning.optimism import Hints, LastGradient, LastLoss, NoOptimism, Optimism
from bandits.online_learning.perturbed_leader import FPL
from bandits.online_learning.proximal import FTRLProximal
from bandits.online_learning.regularisers import (
    Diagonal,
    Entropy,
    Euclidean,
    LogBarrier,
    MatrixAdaptive,
    Quadratic,
    Regulariser,
    Tsallis,
)
from bandits.online_learning.steps import (
    Constant,
    GradientNorm,
    InverseSqrt,
    InverseTime,
    Mixability,
    PredictionError,
    SelfBounding,
    Step,
)
from bandits.online_learning.two_layer import TwoLayer, step_pool

__all__ = [
    "FPL",
    "FTRL",
    "OMD",
    "Ball",
    "Box",
    "CappedSimplex",
    "Constant",
    "Diagonal",
    "Domain",
    "Entropy",
    "Euclidean",
    "FTRLProximal",
    "GradientNorm",
    "Hints",
    "InverseSqrt",
    "InverseTime",
    "L1Ball",
    "LastGradient",
    "LastLoss",
    "LogBarrier",
    "MatrixAdaptive",
    "Mixability",
    "NoOptimism",
    "OnlineLearner",
    "Optimism",
    "OptimisticFTRL",
    "OptimisticOMD",
    "PredictionError",
    "Quadratic",
    "Regulariser",
    "SelfBounding",
    "Simplex",
    "Step",
    "TwoLayer",
    "Tsallis",
    "Unconstrained",
    "step_pool",
    "weighted_majority",
]

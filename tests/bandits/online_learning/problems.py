"""Facts and gradients that the tests of online learners share."""

from __future__ import annotations

import math

import torch

from bandits import make

# No constant is 1, so that a factor in the wrong place shows.
BALL = {
    "domain": ("ball", {"dimension": 3, "radius": 1.5}),
    "dimension": 3,
    "diameter": 3.0,
    "gradient_bound": 2.0,
    "smoothness": 4.0,
    "strong_convexity": 0.5,
    "exp_concavity": 0.5,
    "horizon": 400,
    "term": "absolute",
}
SIMPLEX = {
    "domain": ("simplex", {"dimension": 4}),
    "dimension": 4,
    "diameter": math.sqrt(2),
    "gradient_bound": 4.0,
    "smoothness": 4.0,
    "strong_convexity": 0.5,
    "exp_concavity": 0.5,
    "horizon": 400,
    "loss_low": -1.0,
    "loss_high": 2.0,
}
BOX = {**BALL, "domain": ("box", {"dimension": 3}), "diameter": 2 * math.sqrt(3)}

# Every named learner, where it is at home: the contract's cases.
HOMES = {
    "hedge": SIMPLEX,
    "optimistic-hedge": SIMPLEX,
    "adahedge": SIMPLEX,
    "log-barrier": SIMPLEX,
    "tsallis": SIMPLEX,
    "ogd": BALL,
    "ogd-strong": BALL,
    "optimistic-ogd": BALL,
    "ftrl": BALL,
    "adagrad": BOX,
    "optimistic-omd": BALL,
    "optimistic-omd-strong": BALL,
    "optimistic-omd-exp": BALL,
    "optimistic-omd-implicit": BALL,
    "optimistic-ftrl": BALL,
    "optimistic-ftrl-strong": BALL,
    "ons": BALL,
    "two-layer": BALL,
    "ftrl-proximal": BOX,
    "weighted-majority": SIMPLEX,
    "fpl": SIMPLEX,
}
VARIANTS = [
    *((name, {}) for name in HOMES),
    ("hedge", {"tuning": "horizon"}),
    ("hedge", {"rate": 0.3}),
    ("tsallis", {"alpha": 0.8}),
    ("adagrad", {"form": "dual"}),
    ("adagrad", {"matrix": True, "epsilon": 1e-3}),
    ("optimistic-omd", {"delta": 0.0}),
    ("two-layer", {"pool": "theory", "lazy": True}),
    ("ftrl-proximal", {"l1": 0.2, "l2": 0.1}),
    ("weighted-majority", {"epsilon": 0.3}),
    ("fpl", {"draw": "once", "epsilon": 0.2}),
]


def built(name, hyperparameters=None, runs=1, **changes):
    """A named learner at home."""
    return make(name, {**HOMES[name], **changes}, runs=runs, **(hyperparameters or {}))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sequence(kind, facts, rounds, runs, seed=0):
    """A function (t from 0, x (R, d)) -> gradient (R, d), of norm at most the bound and inside the range of losses."""
    d, random = facts["dimension"], generator(seed)
    low, high = facts.get("loss_low"), facts.get("loss_high")
    bound = facts["gradient_bound"]
    noise = torch.rand(rounds, runs, d, generator=random, dtype=torch.float64)

    def fitted(gradient):
        if low is not None:
            return gradient.clamp(low, high)
        norm = (gradient * gradient).sum(-1, keepdim=True).sqrt()
        return gradient * (bound / norm.clamp_min(bound))

    def random_one(t, x):
        return low + (high - low) * noise[t] if low is not None else fitted(bound * (2 * noise[t] - 1))

    def adversarial(t, x):
        # Whatever is played is what loses.
        if low is not None:
            return torch.where(torch.nn.functional.one_hot(x.argmax(-1), d) == 1, high, low).double()
        return fitted(bound * x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12) + 1e-9 * noise[t])

    def alternating(t, x):
        vector = torch.zeros(runs, d, dtype=torch.float64)
        vector[:, t % 2 if low is not None else 0] = high if low is not None else bound * (-1.0) ** t
        return fitted(vector)

    def burst(t, x):
        vector = torch.zeros(runs, d, dtype=torch.float64)
        if t >= rounds // 2:
            vector[:, 0] = bound
        return fitted(vector)

    kinds = {"random": random_one, "adversarial": adversarial, "alternating": alternating, "burst": burst}
    return kinds[kind]


def play(learner, gradients, rounds, first=0):
    """Points and gradients (rounds, R, d) of `rounds` rounds."""
    points, seen = [], []
    for t in range(first, first + rounds):
        x = learner.act().clone()
        gradient = gradients(t, x)
        learner.observe(x, feedback(learner, gradient, x, t))
        points.append(x)
        seen.append(gradient)
    return torch.stack(points), torch.stack(seen)


def feedback(learner, gradient, x, t):
    """The gradient as feedback; as that of an absolute loss |g.(x - y)| where the last loss is predicted as a whole."""
    from bandits.online_learning.optimism import LastLoss
    from orbs import Feedback

    if not isinstance(getattr(learner, "optimism", None), LastLoss):
        return Feedback(gradient=gradient)
    # a.x - b = 1 > 0 at the point that was played, so that the gradient there is a.
    return Feedback(gradient=gradient, terms={"features": gradient, "target": (gradient * x).sum(-1) - 1.0})

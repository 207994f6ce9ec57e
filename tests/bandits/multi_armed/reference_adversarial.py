"""Each adversarial bandit once more, for one run, in plain Python loops: what the batched learners are held against."""

from __future__ import annotations

import math

import torch

from orbs import Philox


def uniforms(name, run, rounds, seed=0):
    """The numbers in (0, 1) that the learner of this name draws in these rounds of a run."""
    return Philox(seed, [run]).uniform(f"{name}/arms", 0, rounds, 1, torch.float64)[0, :, 0].tolist()


def drawn(p, u):
    total = 0.0
    for i, share in enumerate(p):
        total += share
        if u < total:
            return i
    return len(p) - 1


def shares(weights):
    total = sum(weights)
    return [w / total for w in weights]


def softmax(scores):
    top = max(scores)
    return shares([math.exp(s - top) for s in scores])


class Exp3:
    """On losses; `rate` of a round."""

    def __init__(self, k, horizon, rate=None, tuning="anytime", implicit=False):
        self.k, self.losses, self.implicit = k, [0.0] * k, implicit
        if rate is not None:
            self.rate = lambda t: rate
        elif tuning == "horizon":
            self.rate = lambda t: math.sqrt(2 * math.log(k) / (k * horizon))
        else:
            self.rate = lambda t: math.sqrt(math.log(k) / (k * t))

    def probabilities(self, t):
        return softmax([-self.rate(t) * loss for loss in self.losses])

    def learn(self, t, p, arm, x):
        self.losses[arm] += (1 - x) / (p[arm] + (self.rate(t) / 2 if self.implicit else 0.0))


class Exp3Auer:
    def __init__(self, k, horizon, exploration=None):
        self.k, self.weights = k, [1.0] * k
        self.g = exploration or min(1.0, math.sqrt(k * math.log(k) / ((math.e - 1) * horizon)))

    def probabilities(self, t):
        return [(1 - self.g) * w + self.g / self.k for w in shares(self.weights)]

    def learn(self, t, p, arm, x):
        self.weights[arm] *= math.exp(self.g * x / (p[arm] * self.k))


class Rexp3(Exp3Auer):
    def __init__(self, k, horizon, variation=1.0):
        self.epoch = math.ceil((k * math.log(k)) ** (1 / 3) * (horizon / variation) ** (2 / 3))
        super().__init__(k, self.epoch)

    def probabilities(self, t):
        if (t - 1) % self.epoch == 0:
            self.weights = [1.0] * self.k
        return super().probabilities(t)


class Exp3P:
    def __init__(self, k, horizon, delta=0.05):
        self.k, self.gains = k, [0.0] * k
        self.b = math.sqrt(math.log(k / delta) / (horizon * k))
        self.eta = 0.95 * math.sqrt(math.log(k) / (horizon * k))
        self.g = 1.05 * math.sqrt(k * math.log(k) / horizon)

    def probabilities(self, t):
        return [(1 - self.g) * w + self.g / self.k for w in softmax([self.eta * gain for gain in self.gains])]

    def learn(self, t, p, arm, x):
        for i in range(self.k):
            self.gains[i] += ((x if i == arm else 0.0) + self.b) / p[i]


class Exp3S:
    def __init__(self, k, horizon, segments=None):
        self.k, self.weights, self.alpha = k, [1.0] * k, 1 / horizon
        square = math.log(k * horizon)
        if segments:
            square = (segments * square + math.e) / (math.e - 1)
        self.g = min(1.0, math.sqrt(k * square / horizon))

    def probabilities(self, t):
        return [(1 - self.g) * w + self.g / self.k for w in shares(self.weights)]

    def learn(self, t, p, arm, x):
        given = math.e * self.alpha / self.k * sum(self.weights)
        self.weights[arm] *= math.exp(self.g * x / (p[arm] * self.k))
        self.weights = [w + given for w in self.weights]


class Exp4:
    def __init__(self, k, horizon, advice, tuning="horizon", exploration=0.0):
        """advice: a function of the round t to a list of N lists of K."""
        self.k, self.advice, self.g = k, advice, exploration
        n = len(advice(1))
        self.losses = [0.0] * n
        if tuning == "horizon":
            self.rate = lambda t: math.sqrt(2 * math.log(n) / (k * horizon))
        else:
            self.rate = lambda t: math.sqrt(math.log(n) / (k * t))

    def probabilities(self, t):
        q, said = softmax([-self.rate(t) * loss for loss in self.losses]), self.advice(t)
        mixed = [sum(q[j] * said[j][i] for j in range(len(q))) for i in range(self.k)]
        return [(1 - self.g) * p + self.g / self.k for p in mixed]

    def learn(self, t, p, arm, x):
        for j, row in enumerate(self.advice(t)):
            self.losses[j] += row[arm] * (1 - x) / p[arm]


class TsallisINF:
    def __init__(self, k, horizon, variant="rv"):
        self.k, self.losses, self.reduced = k, [0.0] * k, variant == "rv"

    def rate(self, t):
        return (4 if self.reduced else 2) / math.sqrt(t)

    def probabilities(self, t):
        eta, least = self.rate(t), min(self.losses)
        low, high = least - 2 * math.sqrt(self.k) / eta, least - 2 / eta
        for _ in range(200):
            z = (low + high) / 2
            if sum(4 / (eta * (loss - z)) ** 2 for loss in self.losses) > 1:
                high = z
            else:
                low = z
        return shares([4 / (eta * (loss - low)) ** 2 for loss in self.losses])

    def learn(self, t, p, arm, x):
        if not self.reduced:
            self.losses[arm] += (1 - x) / p[arm]
            return
        for i in range(self.k):
            base = 0.5 if p[i] >= self.rate(t) ** 2 else 0.0
            self.losses[i] += base + ((1 - x - base) / p[i] if i == arm else 0.0)


def play(learner, name, run, table, low=0.0, high=1.0):
    """Arms and probabilities of a run; `table` holds the rewards, a list an arm for each round, in [low, high]."""
    arms, chances = [], []
    for t, (row, u) in enumerate(zip(table, uniforms(name, run, len(table)), strict=True), 1):
        p = learner.probabilities(t)
        arm = drawn(p, u)
        learner.learn(t, p, arm, (row[arm] - low) / (high - low))
        arms.append(arm)
        chances.append(p)
    return arms, chances

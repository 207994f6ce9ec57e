"""Each contextual learner a second time, for one run: plain loops, batch solutions in place of recursions."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

from orbs import Philox


def solved(rows, values, weights, ridge, d):
    """Weighted ridge regression of all rows at once."""
    x, w = np.array(rows).reshape(-1, d), np.array(weights)[:, None]
    gram = ridge * np.eye(d) + x.T @ (w * x)
    return np.linalg.solve(gram, (w * x).T @ np.array(values).reshape(-1)), gram


def first_largest(values):
    best = 0
    for a, value in enumerate(values):
        if value > values[best]:
            best = a
    return best


class Plain:
    """History as lists; `pick(x)` and the common `take`."""

    purpose = ""

    def __init__(self, arms, d, seed=0, run=0):
        self.arms, self.d = arms, d
        self.philox = Philox(seed, [run])
        self.history = []  # (x, arm, reward, chance)

    @property
    def round(self):
        return len(self.history) + 1

    def u(self, what):
        numbers = self.philox.uniform(f"{self.purpose}/{what}", len(self.history), 1, 1, torch.float64)
        return float(numbers[0, 0, 0])

    def random_arm(self):
        return min(int(self.u("arm") * self.arms), self.arms - 1)

    def take(self, x, arm, reward):
        self.history.append((x, arm, reward, self.chance(x, arm)))

    def chance(self, x, arm):
        return 1.0 / self.arms

    def own(self, arm):
        return [row for row in self.history if row[1] == arm]


class PlainDisjoint(Plain):
    def __init__(self, arms, d, alpha, ridge, **options):
        super().__init__(arms, d, **options)
        self.alpha, self.ridge = alpha, ridge

    def pick(self, x):
        index = []
        for a in range(self.arms):
            rows = self.own(a)
            w, gram = solved([r[0] for r in rows], [r[2] for r in rows], [1.0] * len(rows), self.ridge, self.d)
            index.append(w @ x + self.alpha * math.sqrt(x @ np.linalg.solve(gram, x)))
        return first_largest(index)


class PlainPolicy(Plain):
    """The oracles, from the rows that count."""

    def __init__(self, arms, d, oracle, ridge, **options):
        super().__init__(arms, d, **options)
        self.oracle, self.ridge, self.models = oracle, ridge, {}

    def fitted(self):
        return self.history

    def policy(self, x):
        return first_largest([self.weights_of(a) @ x for a in range(self.arms)])

    @functools.cache  # noqa: B019 (a test's own)
    def _weights(self, a, count):
        rows = self.fitted()
        if self.oracle == "weighted":
            own = [row for row in rows if row[1] == a]
            data = [r[0] for r in own], [r[2] for r in own], [1.0 / r[3] for r in own]
        elif self.oracle == "ips":
            values = [r[2] / r[3] if r[1] == a else 0.0 for r in rows]
            data = [r[0] for r in rows], values, [1.0] * len(rows)
        else:
            data = [r[0] for r in rows], self.doubly_robust(rows, a), [1.0] * len(rows)
        return solved(*data, self.ridge, self.d)[0]

    def weights_of(self, a):
        return self._weights(a, len(self.fitted()))

    def doubly_robust(self, rows, a):
        """Of each row by the model of the rows before it; the values of earlier rows stay."""
        gram, target, values = self.models.setdefault(a, (self.ridge * np.eye(self.d), np.zeros(self.d), []))
        for x, arm, reward, chance in rows[len(values) :]:
            guess = np.linalg.solve(gram, target) @ x
            values.append(guess + (reward - guess) / chance if arm == a else guess)
            if arm == a:
                gram += np.outer(x, x)
                target += reward * x
        return values


class PlainEpsilonGreedy(PlainPolicy):
    purpose = "contextual-epsilon-greedy"

    def __init__(self, *given, epsilon, **options):
        super().__init__(*given, **options)
        self.fixed = epsilon

    def epsilon(self):
        if self.fixed is not None:
            return self.fixed
        return min(1.0, (self.arms * math.log(self.round + 1) / self.round) ** (1 / 3))

    def pick(self, x):
        return self.random_arm() if self.u("coin") < self.epsilon() else self.policy(x)

    def chance(self, x, arm):
        epsilon = self.epsilon()
        return epsilon / self.arms + (1 - epsilon if arm == self.policy(x) else 0.0)


class PlainExploreFirst(PlainPolicy):
    purpose = "contextual-explore-first"

    def __init__(self, *given, explore, **options):
        super().__init__(*given, **options)
        self.explore = explore

    def fitted(self):
        return self.history[: self.explore]

    def pick(self, x):
        return self.random_arm() if self.round <= self.explore else self.policy(x)


class PlainEpochGreedy(PlainPolicy):
    purpose = "epoch-greedy"

    def __init__(self, *given, log_policies, delta, **options):
        super().__init__(*given, **options)
        self.schedule, epoch = [], 0  # True where a round explores
        while len(self.schedule) < 1000:
            epoch += 1
            greedy = int(math.sqrt(epoch / (self.arms * (log_policies + math.log(1 / delta)))))
            self.schedule += [True] + [False] * max(1, greedy)

    def fitted(self):
        return [row for row, explored in zip(self.history, self.schedule, strict=False) if explored]

    def pick(self, x):
        return self.random_arm() if self.schedule[self.round - 1] else self.policy(x)


class PlainSquareCB(Plain):
    purpose = "square-cb"

    def __init__(self, arms, d, gamma, oracle, ridge=1.0, radius=1.0, **options):
        super().__init__(arms, d, **options)
        self.gamma, self.oracle, self.ridge, self.radius = gamma, oracle, ridge, radius

    def weights(self, a):
        rows = self.own(a)
        if self.oracle == "ridge":
            return solved([r[0] for r in rows], [1 - r[2] for r in rows], [1.0] * len(rows), self.ridge, self.d)[0]
        w, squares = np.zeros(self.d), 0.0
        for x, _, reward, _ in rows:
            g = 2 * (w @ x - (1 - reward)) * x
            squares += g @ g
            w = w - math.sqrt(2) * self.radius * g / math.sqrt(squares)
            w *= min(1.0, self.radius / np.linalg.norm(w))
        return w

    def pick(self, x):
        losses = [min(max(float(self.weights(a) @ x), 0.0), 1.0) for a in range(self.arms)]
        best = losses.index(min(losses))
        p = [1 / (self.arms + self.gamma(self.round) * (loss - losses[best])) for loss in losses]
        p[best] = 1 - sum(p[:best] + p[best + 1 :])
        u, total = self.u("arm"), 0.0
        for a in range(self.arms):
            total += p[a]
            if u < total:
                return a
        return self.arms - 1


class PlainMesh(Plain):
    def __init__(self, arms, d, cells, box, horizon=None, **options):
        super().__init__(arms, d, **options)
        self.cells, self.box, self.horizon = cells, box, horizon

    def place(self, x):
        low, high = self.box
        return tuple(min(max(math.floor((v - low) / (high - low) * self.cells), 0), self.cells - 1) for v in x)

    def pick(self, x):
        here = [row for row in self.history if self.place(row[0]) == self.place(x)]
        log = math.log(len(here) + 1 if self.horizon is None else self.horizon)
        index = []
        for a in range(self.arms):
            rewards = [row[2] for row in here if row[1] == a]
            if not rewards:
                return a
            index.append(sum(rewards) / len(rewards) + math.sqrt(2 * log / len(rewards)))
        return first_largest(index)

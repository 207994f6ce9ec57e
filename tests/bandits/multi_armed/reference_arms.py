"""The stochastic rules a second time: plain numbers, one run, everything computed from the whole history."""

from __future__ import annotations

import math

import scipy.special
import torch

from orbs import Philox

History = list[tuple[int, float]]


def counts(history: History, arms: int) -> tuple[list[int], list[float], list[list[float]]]:
    seen = [[reward for arm, reward in history if arm == a] for a in range(arms)]
    return [len(s) for s in seen], [math.fsum(s) / len(s) if s else 0.0 for s in seen], seen


def divergence(p: float, q: float) -> float:
    return sum(x * math.log(x / y) if x > 0 else 0.0 for x, y in ((p, q), (1 - p, 1 - q)))


def kl_index(m: float, n: int, level: float) -> float:
    m = min(max(m, 1e-12), 1 - 1e-12)
    low, high = m, 1.0
    for _ in range(70):
        middle = (low + high) / 2
        if middle < 1 and n * divergence(m, middle) <= level:
            low = middle
        else:
            high = middle
    return low


def indices(name: str, history: History, arms: int, **given: float) -> list[float]:
    """Of the round after the history."""
    t, found = len(history) + 1, []
    n, m, seen = counts(history, arms)
    for a in range(arms):
        if name == "sw-ucb":
            last = [r for b, r in history[-int(given["window"]) :] if b == a]
            log = math.log(min(t, given["window"]))
            found.append(math.fsum(last) / len(last) + math.sqrt(0.6 * log / len(last)) if last else math.inf)
            continue
        if name == "d-ucb":
            weight = [given["discount"] ** (len(history) - 1 - i) for i in range(len(history))]
            plays = math.fsum(w for w, (b, _) in zip(weight, history, strict=True) if b == a)
            total = math.fsum(w * r for w, (b, r) in zip(weight, history, strict=True) if b == a)
            log = math.log(max(1.0, math.fsum(weight)))
            found.append(total / plays + 2 * math.sqrt(0.6 * log / plays) if plays else math.inf)
            continue
        if name == "bayes-ucb":
            tail = 1 / (t * math.log(given["horizon"]) ** given["c"])
            s = math.fsum(seen[a])
            found.append(1 - scipy.special.betaincinv(1 + n[a] - s, 1 + s, min(tail, 0.5)))
            continue
        if not n[a]:
            found.append(math.inf)
            continue
        variance = math.fsum((r - m[a]) ** 2 for r in seen[a]) / n[a]
        found.append(plain_index(name, arms, t, n[a], m[a], variance, given))
    return found


def plain_index(name: str, arms: int, t: int, n: int, m: float, variance: float, given: dict[str, float]) -> float:
    """Of an arm with n > 0 plays."""
    log = math.log(t)
    level = log + given.get("c", 0) * math.log(max(log, 1))
    if name == "ucb1":
        return m + given.get("scale", 1) * math.sqrt(2 * given.get("log", log) / n)
    if name == "ucb1-tuned":
        return m + math.sqrt(log / n * min(0.25, variance + math.sqrt(2 * log / n)))
    if name == "ucb-v":
        return m + math.sqrt(2 * variance * log / n) + 3 * log / n
    if name == "kl-ucb":
        return kl_index(m, n, level)
    if name == "kl-gaussian":
        return m + math.sqrt(2 * given["scale"] ** 2 * level / n)
    if name == "moss":
        return m + math.sqrt(max(math.log(given.get("horizon", t) / (arms * n)), 0) / n)
    assert name == "greedy"
    return m


def numbers(purpose: str, run: int, round: int, count: int, normal: bool = False) -> list[float]:
    philox = Philox(0, [run])
    draw = philox.normal if normal else philox.uniform
    return draw(purpose, round, 1, count, torch.float64)[0, 0].tolist()


def gamma(shape: float, normals: list[float], uniforms: list[float]) -> float:
    """Marsaglia and Tsang as they state it, try after try."""
    d = shape - 1 / 3
    for x, u in zip(normals, uniforms, strict=True):
        v = (1 + x / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(u) < x * x / 2 + d - d * v + d * math.log(v):
            return d * v
    return d


class PlainElimination:
    def __init__(self, arms: int, horizon: int) -> None:
        self.active, self.queue = list(range(arms)), list(range(arms))
        self.log = math.log(horizon)

    def choose(self) -> int:
        return self.queue[0]

    def take(self, history: History, arms: int) -> None:
        self.queue.pop(0)
        if self.queue:
            return
        n, m, _ = counts(history, arms)
        radius = {a: math.sqrt(2 * self.log / n[a]) for a in self.active}
        self.active = [a for a in self.active if all(m[a] + radius[a] >= m[b] - radius[b] for b in self.active)]
        self.queue = list(self.active)


def choose(name: str, history: History, arms: int, run: int, **given: float) -> int:
    """The arm of the round after the history."""
    t = len(history) + 1
    n, m, seen = counts(history, arms)
    if name == "explore-first":
        explore = int(given["explore"])
        if t <= explore * arms:
            return (t - 1) % arms
        m = counts(history[: explore * arms], arms)[1]
        return m.index(max(m))
    if name == "epsilon-greedy":
        u, v = numbers("epsilon-greedy/explore", run, t - 1, 2)
        chance = given.get("epsilon", min(1, (arms * math.log(t + 1) / t) ** (1 / 3)))
        return int(v * arms) if u < chance else m.index(max(m))
    if name == "boltzmann":
        weights = [math.exp(x / given["temperature"]) for x in m]
        u, total = numbers("boltzmann/arm", run, t - 1, 1)[0] * sum(weights), 0.0
        for a in range(arms):
            total += weights[a]
            if total > u:
                return a
        return arms - 1
    if name == "thompson-beta":
        tries = 6
        z = numbers("thompson-beta/normal", run, t - 1, tries * 2 * arms, normal=True)
        u = numbers("thompson-beta/uniform", run, t - 1, tries * 2 * arms)
        wins = [
            sum(numbers("thompson-beta/coin", run, i, 1)[0] < r for i, (b, r) in enumerate(history) if b == a)
            for a in range(arms)
        ]
        shapes = [1 + w for w in wins] + [1 + n[a] - wins[a] for a in range(arms)]
        g = [gamma(shape, z[k :: 2 * arms], u[k :: 2 * arms]) for k, shape in enumerate(shapes)]
        theta = [g[a] / (g[a] + g[arms + a]) for a in range(arms)]
        return theta.index(max(theta))
    if name == "thompson-gaussian":
        z = numbers("thompson-gaussian/normal", run, t - 1, arms, normal=True)
        theta = []
        for a in range(arms):
            precision = 1 / given["variance"] + n[a] / given["noise"] ** 2
            mean = (given["mean"] / given["variance"] + sum(seen[a]) / given["noise"] ** 2) / precision
            theta.append(mean + z[a] / math.sqrt(precision))
        return theta.index(max(theta))
    index = indices(name, history, arms, **given)
    return index.index(max(index))

"""Learners of adversarial MDPs for one run, written a second time as plain loops from the published formulas."""

import numpy as np

from orbs import Philox


def numbers(seed, run, purpose, step, count):
    import torch

    return Philox(seed, [run]).uniform(purpose, step, 1, count, torch.float64)[0, 0].numpy()


def draw(chances, u):
    total = 0.0
    for i, chance in enumerate(chances):
        total += chance
        if u < total:
            return i
    return len(chances) - 1


def barrier(losses, eta):
    """Bisection for the log barrier's normaliser."""
    gaps = np.asarray(losses) - min(losses)
    low, high = 1.0 / eta, len(gaps) / eta
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(1 / (eta * (gaps + middle))) > 1 else (low, middle)
    p = 1 / (eta * (gaps + low))
    return p / p.sum()


def softmax(losses, eta):
    p = np.exp(-eta * (np.asarray(losses) - min(losses)))
    return p / p.sum()


class Problem:
    """phi (H, S, A, d), kernel (H, S, A, S), start (S,)."""

    def __init__(self, phi, kernel, start):
        self.kernel, self.start = np.asarray(kernel), np.asarray(start)
        self.H, self.S, self.A = self.kernel.shape[:3]
        phi = np.asarray(phi)
        self.phi = phi if phi.ndim == 4 else np.stack([phi] * self.H)
        self.d = self.phi.shape[-1]

    def occupancy(self, policy):
        q = np.zeros((self.H, self.S))
        q[0] = self.start
        for h in range(self.H - 1):
            for s in range(self.S):
                for a in range(self.A):
                    q[h + 1] += q[h, s] * policy[h, s, a] * self.kernel[h, s, a]
        return q

    def covariance(self, policy, q):
        found = np.zeros((self.H, self.d, self.d))
        for h in range(self.H):
            for s in range(self.S):
                for a in range(self.A):
                    found[h] += q[h, s] * policy[h, s, a] * np.outer(self.phi[h, s, a], self.phi[h, s, a])
        return found

    def trajectory(self, policy, u):
        """[(s, a)] of 2 H numbers."""
        s, found = draw(self.start, u[0]), []
        for h in range(self.H):
            a = draw(policy[h, s], u[2 * h + 1])
            found.append((s, a))
            if h < self.H - 1:
                s = draw(self.kernel[h, s, a], u[2 * h + 2])
        return found


class Dilated:
    """A0, A1 (barrier) and A2 (reduced)."""

    def __init__(
        self, problem, rates, barrier=False, reduced=False, bonus="exact", covariance="exact", trajectories=0, chains=0,
        length=0, samples=None, seed=0, run=0,
    ):  # fmt: skip
        self.__dict__.update(locals())
        self.cum = np.zeros((problem.H, problem.S, problem.A))
        self.k = 0

    def policy(self):
        rule = barrier if self.barrier else softmax
        return np.array([[rule(row, self.rates.eta) for row in table] for table in self.cum])

    def fresh(self, policy, purpose, count):
        u = numbers(self.seed, self.run, purpose, self.k, 2 * self.problem.H * count).reshape(count, -1)
        return [self.problem.trajectory(policy, row) for row in u]

    def inverse(self, policy):
        p, gamma = self.problem, self.rates.gamma
        eye = np.eye(p.d)
        if self.covariance == "exact":
            sigma = p.covariance(policy, p.occupancy(policy))
            return (np.linalg.inv(sigma + gamma * eye),) * 2
        if self.covariance == "direct":
            sigma = np.zeros((p.H, p.d, p.d))
            for path in self.fresh(policy, "dilated-ftrl/direct", self.trajectories):
                for h, (s, a) in enumerate(path):
                    sigma[h] += np.outer(p.phi[h, s, a], p.phi[h, s, a]) / self.trajectories
            return (np.linalg.inv(sigma + gamma * eye),) * 2
        paths = self.fresh(policy, "dilated-ftrl/mgr", self.chains * self.length)
        found = np.zeros((p.H, p.d, p.d))
        for h in range(p.H):
            for m in range(self.chains):
                z, total = eye, 0.5 * eye
                for n in range(self.length):
                    s, a = paths[m * self.length + n][h]
                    z = (eye - 0.5 * (gamma * eye + np.outer(p.phi[h, s, a], p.phi[h, s, a]))) @ z
                    total = total + 0.5 * z
                found[h] += total / self.chains
        found = (found + found.transpose(0, 2, 1)) / 2
        values, vectors = np.linalg.eigh(found)
        return found, np.einsum("hij,hj,hkj->hik", vectors, np.maximum(values, 0), vectors)

    def take(self, policy, states, actions, losses):
        p, rates = self.problem, self.rates
        inverse, metric = self.inverse(policy)
        q = p.occupancy(policy)
        paths = self.fresh(policy, "magnitude-reduced/samples", self.samples) if self.samples else None
        b = np.zeros_like(self.cum)
        for h in range(p.H):
            met, to_go = p.phi[h, states[h], actions[h]], sum(losses[h:])
            norms = np.einsum("sai,ij,saj->sa", p.phi[h], metric[h], p.phi[h])
            for s in range(p.S):
                for a in range(p.A):
                    x = p.phi[h, s, a] @ inverse[h] @ met
                    if not self.reduced:
                        self.cum[h, s, a] += x * to_go
                    else:
                        if paths:
                            xs = [p.phi[h, s, a] @ inverse[h] @ p.phi[(h, *path[h])] for path in paths]
                            m = np.mean(np.minimum(xs, 0))
                        else:
                            xs = p.phi[h] @ inverse[h] @ p.phi[h, s, a]
                            m = np.sum(q[h][:, None] * policy[h] * np.minimum(xs, 0))
                        self.cum[h, s, a] += x * to_go - p.H * min(x, 0) + p.H * m
                    b[h, s, a] = rates.beta * (norms[s, a] + policy[h, s] @ norms[s])
        if self.bonus != "off":
            self.cum -= self.dilated(b, policy)
        self.k += 1

    def dilated(self, b, policy):
        p, found = self.problem, b.copy()
        u = None
        if self.bonus == "sample" and p.H > 1:
            u = numbers(self.seed, self.run, "dilated-ftrl/bonus", self.k, 2 * (p.H - 1) * p.S * p.A)
            u = u.reshape(2, p.H - 1, p.S, p.A)
        for h in range(p.H - 2, -1, -1):
            for s in range(p.S):
                for a in range(p.A):
                    if u is None:
                        later = p.kernel[h, s, a] @ np.sum(policy[h + 1] * found[h + 1], -1)
                    else:
                        t = draw(p.kernel[h, s, a], u[0, h, s, a])
                        later = found[h + 1, t, draw(policy[h + 1, t], u[1, h, s, a])]
                    found[h, s, a] += (1 + 1 / p.H) * later
        return found


class FullInformation:
    def __init__(self, problem, eta):
        self.problem, self.eta = problem, eta
        self.cum = np.zeros((problem.H, problem.S, problem.A))

    def policy(self):
        return np.array([[softmax(row, self.eta) for row in table] for table in self.cum])

    def take(self, policy, table):
        value = np.zeros(self.problem.S)
        for h in range(self.problem.H - 1, -1, -1):
            q = table[h] + self.problem.kernel[h] @ value
            self.cum[h] += q
            value = np.sum(policy[h] * q, -1)


class SimulatorFree:
    def __init__(self, problem, plan, beta, gamma, alpha=None, seed=0, run=0):
        self.__dict__.update(locals())
        self.cum = np.zeros((problem.H, problem.S, problem.A))
        self.k, self.episodes, self.cover = 0, [], []

    def current(self):
        return np.array([[barrier(row, self.plan.eta) for row in table] for table in self.cum])

    def policy(self):
        u = numbers(self.seed, self.run, "simulator-free/explore", self.k, 1)[0]
        self.exploring = u < self.plan.explore
        return np.full_like(self.cum, 1 / self.problem.A) if self.exploring else self.current()

    def take(self, states, actions, losses):
        p, W = self.problem, self.plan.epoch
        self.episodes.append((states, actions, losses))
        if self.exploring:
            self.cover.append((states, actions))
        self.k += 1
        if self.k % W:
            return
        order = np.argsort(numbers(self.seed, self.run, "simulator-free/split", self.k // W - 1, W))
        covariance, rest = order[: W // 2], order[W // 2 :]
        policy, b, change = self.current(), np.zeros_like(self.cum), np.zeros_like(self.cum)
        inverse = np.zeros((p.H, p.d, p.d))
        for h in range(p.H):
            sigma = self.gamma * np.eye(p.d)
            for e in covariance:
                phi = p.phi[h, self.episodes[e][0][h], self.episodes[e][1][h]]
                sigma += np.outer(phi, phi) / len(covariance)
            inverse[h] = np.linalg.inv(sigma)
            norms = np.einsum("sai,ij,saj->sa", p.phi[h], inverse[h], p.phi[h])
            b[h] = self.beta * (norms + np.sum(policy[h] * norms, -1, keepdims=True))
            if self.alpha is not None:
                sigma = self.gamma * np.eye(p.d)
                for s, a in self.cover:
                    sigma += np.outer(p.phi[h, s[h], a[h]], p.phi[h, s[h], a[h]]) / len(self.cover)
                widths = np.einsum("sai,ij,saj->sa", p.phi[h], np.linalg.inv(sigma), p.phi[h])
                b[h][widths.max(-1) > self.alpha] = 0
        for h in range(p.H):
            mean = np.zeros(p.d)
            for e in rest:
                s, a, losses = self.episodes[e]
                dilated = sum((1 + 1 / p.H) ** (i - h) * b[i, s[i], a[i]] for i in range(h + 1, p.H))
                mean += p.phi[h, s[h], a[h]] * (sum(losses[h:]) - dilated) / len(rest)
            change[h] = p.phi[h] @ (inverse[h] @ mean) - b[h]
        self.cum += change
        self.episodes = []


class CFPO:
    def __init__(self, problem, rates, full=False):
        self.problem, self.rates, self.full = problem, rates, full
        self.gram = np.stack([np.eye(problem.d)] * problem.H)
        self.memory, self.epochs = [[] for _ in range(problem.H)], 0
        self.begin()

    def begin(self):
        self.cum = np.zeros((self.problem.H, self.problem.S, self.problem.A))
        self.first, self.epochs = self.gram.copy(), self.epochs + 1

    def policy(self):
        return np.array([[softmax(row, self.rates.eta) for row in table] for table in self.cum])

    def take(self, policy, states, actions, losses, weights=None):
        p, r = self.problem, self.rates
        value = np.zeros(p.S)
        self.q = np.zeros_like(self.cum)
        for h in range(p.H - 1, -1, -1):
            inverse, frozen = np.linalg.inv(self.gram[h]), np.linalg.inv(self.first[h])
            theta = inverse @ sum((phi * loss for phi, loss, _ in self.memory[h]), np.zeros(p.d))
            theta = weights[h] if self.full else theta
            law = inverse @ sum((phi * value[s] for phi, _, s in self.memory[h]), np.zeros(p.d))
            for s in range(p.S):
                for a in range(p.A):
                    width = np.sqrt(p.phi[h, s, a] @ frozen @ p.phi[h, s, a])
                    bar = p.phi[h, s, a] / (1 + np.exp(r.contraction * width - r.offset))
                    self.q[h, s, a] = bar @ (theta + law) - r.bonus * np.sqrt(bar @ frozen @ bar)
            value = np.sum(policy[h] * self.q[h], -1)
        self.cum += self.q
        for h in range(p.H):
            phi = p.phi[h, states[h], actions[h]]
            self.memory[h].append((phi, losses[h], states[h + 1]))
            self.gram[h] += np.outer(phi, phi)
        if any(np.linalg.det(g) >= (2 - 1e-9) * np.linalg.det(f) for g, f in zip(self.gram, self.first, strict=True)):
            self.begin()

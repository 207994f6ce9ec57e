"""The linear bandits once more, for one run, as loops over plain matrices: every round from the whole history."""

import math

import numpy as np

LAM, SIGMA, S, DELTA = 0.6, 0.3, 1.3, 0.02


def first_of_best(scores):
    top = max(scores)
    return next(k for k, score in enumerate(scores) if score >= top - 1e-10 * max(1.0, abs(top)))


def quadratic(a, u):
    return sum(u[i] * a[i][j] * u[j] for i in range(len(u)) for j in range(len(u)))


def ridge(history, d, lam=LAM):
    """V, theta of pairs (u, y)."""
    v, b = lam * np.eye(d), np.zeros(d)
    for u, y in history:
        v, b = v + np.outer(u, u), b + y * u
    return v, np.linalg.solve(v, b)


def optimistic(arms, theta, inverse, beta):
    return first_of_best([float(u @ theta) + beta * math.sqrt(quadratic(inverse, u)) for u in arms])


def oful_beta(v, lam=LAM, sigma=SIGMA):
    d = len(v)
    inside = 2 * math.log(1 / DELTA) + math.log(np.linalg.det(v)) - d * math.log(lam)
    return math.sqrt(lam) * S + sigma * math.sqrt(inside)


def lin_ucb(history, arms, t, rng=None):
    v, theta = ridge(history, len(arms[0]))
    return optimistic(arms, theta, np.linalg.inv(v), oful_beta(v))


def lin_ucb_trace(history, arms, t, rng=None):
    d = len(arms[0])
    v, theta = ridge(history, d)
    longest = 0.75
    inside = 2 * math.log(1 / DELTA) + d * math.log(1 + len(history) * longest**2 / (LAM * d))
    return optimistic(arms, theta, np.linalg.inv(v), math.sqrt(LAM) * S + SIGMA * math.sqrt(inside))


def restart(window):
    return lambda history, arms, t, rng=None: lin_ucb(history[t // window * window :], arms, t)


def sliding(window):
    def choose(history, arms, t, rng=None):
        d = len(arms[0])
        v, theta = ridge(history[-window:], d)
        beta = math.sqrt(LAM) * S + SIGMA * math.sqrt(d * math.log((1 + window / LAM) / DELTA))
        return optimistic(arms, theta, np.linalg.inv(v), beta)

    return choose


def discounted(g):
    def choose(history, arms, t, rng=None):
        d, longest = len(arms[0]), 0.75
        v, w, b = LAM * np.eye(d), LAM * np.eye(d), np.zeros(d)
        for age, (u, y) in enumerate(reversed(history)):
            v, w, b = v + g**age * np.outer(u, u), w + g ** (2 * age) * np.outer(u, u), b + g**age * y * u
        inverse = np.linalg.inv(v)
        rounds = sum(g ** (2 * s) for s in range(t))
        inside = 2 * math.log(1 / DELTA) + d * math.log(1 + longest**2 * rounds / (LAM * d))
        beta = math.sqrt(LAM) * S + SIGMA * math.sqrt(inside)
        return optimistic(arms, inverse @ b, inverse @ w @ inverse, beta)

    return choose


def thompson(v_of):
    """With normal numbers rng (T, d); V = L L^T, the draw theta + v L^{-T} z."""

    def choose(history, arms, t, rng=None):
        d = len(arms[0])
        v, theta = ridge(history, d)
        lower = np.linalg.cholesky(v)
        drawn = theta + v_of(t + 1, d) * np.linalg.solve(lower.T, rng[t])
        return first_of_best([float(u @ drawn) for u in arms])

    return choose


def logistic_estimate(history, d):
    """By plain gradient descent with a decreasing step on a strongly convex, smooth function: slow and sure."""
    theta = np.zeros(d)
    x, y = np.array([u for u, _ in history]), np.array([y for _, y in history])
    smooth = LAM + 0.25 * float(np.linalg.eigvalsh(x.T @ x)[-1])
    for _ in range(20_000):
        gradient = x.T @ (1 / (1 + np.exp(-x @ theta)) - y) + LAM * theta
        theta = theta - gradient / smooth
        if np.abs(gradient).max() < 1e-14:
            break
    return theta


def logistic(low, high, longest=0.75):
    """History of raw rewards; the estimate is that of the first 2^k rounds."""
    known = {}
    slope = 1 / (1 + math.exp(-S * longest))
    kappa = slope * (1 - slope)

    def choose(history, arms, t, rng=None):
        d = len(arms[0])
        if t == 0:
            known.clear()
        unit = [(u, (y - low) / (high - low)) for u, y in history]
        v, _ = ridge(unit, d)
        size = 2 ** int(math.log2(t)) if t else 0
        if size not in known:
            known[size] = logistic_estimate(unit[:size], d) if size else np.zeros(d)
        return optimistic(arms, known[size], np.linalg.inv(v), oful_beta(v, sigma=0.5) / kappa)

    return choose

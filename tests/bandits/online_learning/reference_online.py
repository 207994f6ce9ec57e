"""Every method once more, for one run, in plain NumPy loops: what the batched learners are held against."""

from __future__ import annotations

import math

import numpy as np
import torch

from orbs import Philox
from tests.bandits.online_learning.problems import BALL

RADIUS = BALL["domain"][1]["radius"]


def _range(facts):
    return facts["loss_high"] - facts["loss_low"]


def onto_ball(v, radius=RADIUS):
    norm = math.sqrt(float(v @ v))
    return v * (radius / norm) if norm > radius else v


def onto_ball_in_matrix(v, h, radius=RADIUS):
    """argmin (x - v)' h (x - v) over the ball, by bisection on the multiplier."""
    if v @ v <= radius**2:
        return v

    def point(mu):
        return np.linalg.solve(h + mu * np.eye(len(v)), h @ v)

    low, high = 0.0, 1.0
    while np.linalg.norm(point(high)) > radius:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(point(middle)) > radius else (low, middle)
    return point(high)


def softmax(z):
    w = np.exp(z - z.max())
    return w / w.sum()


def barrier_weights(linear, eta, weight):
    """The simplex point x_i = weight(eta (L_i - z)) with sum 1, by bisection on z below min L."""
    high = linear.min() - 1e-300
    low = linear.min() - 10 * len(linear) / eta
    while weight(eta * (linear - low)).sum() > 1:
        low -= 10 * len(linear) / eta
    for _ in range(300):
        middle = (low + high) / 2
        low, high = (low, middle) if weight(eta * (linear - middle)).sum() > 1 else (middle, high)
    return weight(eta * (linear - low))


def play(name, seen, given, facts):
    """(T, d) the points of a named learner for gradients (T, d), parameters as the facts and `given` say."""
    return globals()["_" + name.replace("-", "_")](np.asarray(seen), given, facts)


def _hedge(seen, given, facts):
    k = seen.shape[1]
    total, points = np.zeros(k), []
    for t, g in enumerate(seen, 1):
        eta = 2 * math.sqrt(math.log(k) / t) / _range(facts)
        if given.get("tuning") == "horizon":
            eta = math.sqrt(8 * math.log(k) / facts["horizon"]) / _range(facts)
        points.append(softmax(-given.get("rate", eta) * total))
        total = total + g
    return points


def _weighted_majority(seen, given, facts):
    k, width = seen.shape[1], _range(facts)
    epsilon = given.get("epsilon", math.sqrt(math.log(k) / (3 * facts["horizon"])))
    weights, points = np.ones(k), []
    for g in seen:
        points.append(weights / weights.sum())
        weights = weights * (1 - epsilon) ** ((g - facts["loss_low"]) / width)
    return points


def _fpl(seen, given, facts):
    k = seen.shape[1]
    epsilon = given.get("epsilon", 2 / (_range(facts) * math.sqrt(k * facts["horizon"])))
    philox, total, points = Philox(0, [facts["run"]]), np.zeros(k), []
    for t, g in enumerate(seen):
        round = 0 if given.get("draw") == "once" else t
        u = philox.uniform("fpl/perturbation", round, 1, k, torch.float64)[0, 0].numpy()
        points.append(np.eye(k)[np.argmin(total + (2 * u - 1) / epsilon)])
        total = total + g
    return points


def _optimistic_hedge(seen, given, facts):
    k = seen.shape[1]
    total, last, points = np.zeros(k), np.zeros(k), []
    for g in seen:
        points.append(softmax(-(total + last) / (4 * math.sqrt(math.log(k))) / _range(facts)))
        total, last = total + g, g
    return points


def _adahedge(seen, given, facts):
    k = seen.shape[1]
    total, gaps, points = np.zeros(k), 0.0, []
    for g in seen:
        if gaps == 0:
            lead = total == total.min()
            x = lead / lead.sum()
            mix = g[lead].min()
        else:
            eta = math.log(k) / gaps
            x = softmax(-eta * total)
            before, after = total - total.min(), total + g - (total + g).min()
            mix = (total + g).min() - total.min()
            mix += math.log(np.exp(-eta * before).sum() / np.exp(-eta * after).sum()) / eta
        points.append(x)
        gaps += max(0.0, float(x @ g) - mix)
        total = total + g
    return points


def _log_barrier(seen, given, facts):
    k, horizon = seen.shape[1], facts["horizon"]
    eta = math.sqrt(k * math.log(horizon + 1) / horizon) / _range(facts)
    total, points = np.zeros(k), []
    for g in seen:
        points.append(barrier_weights(total, eta, lambda y: 1 / y))
        total = total + g
    return points


def _tsallis(seen, given, facts):
    alpha = given.get("alpha", 0.5)
    total, points = np.zeros(seen.shape[1]), []
    for t, g in enumerate(seen, 1):
        eta = 2 / math.sqrt(t) / _range(facts)
        points.append(barrier_weights(total, eta, lambda y: ((1 - alpha) * y) ** (-1 / (1 - alpha))))
        total = total + g
    return points


def _ogd(seen, given, facts):
    x, points = np.zeros(seen.shape[1]), []
    for t, g in enumerate(seen, 1):
        points.append(x)
        x = onto_ball(x - facts["diameter"] / facts["gradient_bound"] / math.sqrt(t) * g)
    return points


def _ogd_strong(seen, given, facts):
    x, points = np.zeros(seen.shape[1]), []
    for t, g in enumerate(seen, 1):
        points.append(x)
        x = onto_ball(x - g / (facts["strong_convexity"] * t))
    return points


def _optimistic(seen, rate):
    """Two-step Euclidean mirror descent; rate(t, errors before t)."""
    hat, last, errors, points = np.zeros(seen.shape[1]), np.zeros(seen.shape[1]), 0.0, []
    for t, g in enumerate(seen, 1):
        eta = rate(t, errors)
        points.append(onto_ball(hat - eta * last))
        hat = onto_ball(hat - eta * g)
        errors += float((g - last) @ (g - last))
        last = g
    return points


def _optimistic_ogd(seen, given, facts):
    return _optimistic(seen, lambda t, errors: 1 / (8 * facts["smoothness"]))


def _optimistic_omd(seen, given, facts):
    diameter, bound = facts["diameter"], facts["gradient_bound"]
    delta = given.get("delta", 10 * diameter**2 * facts["smoothness"] ** 2)
    return _optimistic(seen, lambda t, errors: diameter / math.sqrt(delta + 4 * bound**2 + errors))


def _optimistic_omd_strong(seen, given, facts):
    return _optimistic(seen, lambda t, errors: 2 / (facts["strong_convexity"] * t))


def _optimistic_omd_exp(seen, given, facts):
    d, bound = seen.shape[1], facts["gradient_bound"]
    beta = 0.5 * min(1 / (4 * bound * facts["diameter"]), facts["exp_concavity"])
    h = (1 + beta / 2 * bound**2) * np.eye(d)
    hat, last, points = np.zeros(d), np.zeros(d), []
    for g in seen:
        points.append(onto_ball_in_matrix(hat - np.linalg.solve(h, last), h))
        hat = onto_ball_in_matrix(hat - np.linalg.solve(h, g), h)
        h = h + beta / 2 * np.outer(g, g)
        last = g
    return points


def _optimistic_omd_implicit(seen, given, facts):
    """Losses |g_t.(x - x_t) + 1|, whose gradient at x_t is g_t: as the shared `feedback` makes them."""
    diameter, bound = facts["diameter"], facts["gradient_bound"]
    hat, errors, points = np.zeros(seen.shape[1]), 0.0, []
    loss, v = None, np.zeros(seen.shape[1])
    for g in seen:
        eta = diameter / math.sqrt(4 * bound**2 + errors)
        if loss is not None:
            a, b = loss

            def point(s, hat=hat, eta=eta, a=a):
                return onto_ball(hat - eta * s * a)

            low, high = -1.0, 1.0
            if a @ point(1.0) - b >= 0:
                low = 1.0
            elif a @ point(-1.0) - b <= 0:
                high = -1.0
            for _ in range(100):
                middle = (low + high) / 2
                low, high = (middle, high) if a @ point(middle) - b >= 0 else (low, middle)
            v = (low + high) / 2 * a
        x = onto_ball(hat - eta * v)
        points.append(x)
        hat = onto_ball(hat - eta * g)
        errors += float((g - v) @ (g - v))
        loss = g, g @ x - 1.0
    return points


def _optimistic_ftrl(seen, given, facts):
    nu = facts["smoothness"] * RADIUS**2 + RADIUS * facts["gradient_bound"]
    total, last, spent, points = np.zeros(seen.shape[1]), np.zeros(seen.shape[1]), nu, []
    for g in seen:
        eta = RADIUS**2 / spent
        points.append(onto_ball(-eta / 2 * (total + last)))
        spent += eta * float((g - last) @ (g - last))
        total, last = total + g, g
    return points


def _optimistic_ftrl_strong(seen, given, facts):
    d = seen.shape[1]
    total, last, points = np.zeros(d), np.zeros(d), []
    for t, g in enumerate(seen, 1):
        x = (
            np.zeros(d)
            if t == 1
            else onto_ball(np.mean(points, 0) - (total + last) / (facts["strong_convexity"] * (t - 1)))
        )
        points.append(x)
        total, last = total + g, g
    return points


def _ftrl(seen, given, facts):
    total, squares, points = np.zeros(seen.shape[1]), facts["gradient_bound"] ** 2, []
    for g in seen:
        points.append(onto_ball(-RADIUS / math.sqrt(2) / math.sqrt(squares) * total))
        total, squares = total + g, squares + float(g @ g)
    return points


def _adagrad(seen, given, facts):
    d = seen.shape[1]
    x, total, squares, points = np.zeros(d), np.zeros(d), np.zeros(d), []
    matrix = np.zeros((d, d))
    for g in seen:
        points.append(x)
        total, squares, matrix = total + g, squares + g * g, matrix + np.outer(g, g)
        if given.get("matrix"):
            values, vectors = np.linalg.eigh(matrix)
            root = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T + given["epsilon"] * np.eye(d)
            x = _onto_box_in_matrix(x - facts["diameter"] / math.sqrt(2) * np.linalg.solve(root, g), root)
        elif given.get("form") == "dual":
            x = np.clip(-math.sqrt(2) * _ratio(total, np.sqrt(squares)), -1, 1)
        else:
            x = np.clip(x - math.sqrt(2) * _ratio(g, np.sqrt(squares)), -1, 1)
    return points


def _ratio(x, y):
    """x / y, and 0 where both are 0."""
    return np.divide(x, y, out=np.zeros_like(x), where=y > 0)


def _onto_box_in_matrix(v, h):
    """argmin (x - v)' h (x - v) over [-1, 1]^d, by trying which coordinates are held at which bound."""
    best, least = None, math.inf
    d = len(v)
    for code in range(3**d):
        held = [(code // 3**i) % 3 - 1 for i in range(d)]
        free = [i for i in range(d) if held[i] == 0]
        x = np.array(held, float)
        if free:
            fixed = [i for i in range(d) if held[i] != 0]
            right = h[np.ix_(free, free)] @ v[free] + h[np.ix_(free, fixed)] @ (v[fixed] - x[fixed])
            x[free] = np.linalg.solve(h[np.ix_(free, free)], right)
        if (np.abs(x) <= 1 + 1e-12).all():
            value = (x - v) @ h @ (x - v)
            if value < least:
                best, least = np.clip(x, -1, 1), value
    return best


def _ons(seen, given, facts):
    d, bound = seen.shape[1], facts["gradient_bound"]
    beta = 0.5 * min(1 / (4 * bound * facts["diameter"]), facts["exp_concavity"])
    h = np.eye(d) / (beta * facts["diameter"]) ** 2
    x, points = np.zeros(d), []
    for g in seen:
        points.append(x)
        h = h + np.outer(g, g)
        x = onto_ball_in_matrix(x - np.linalg.solve(h, g) / beta, h)
    return points


def _two_layer(seen, given, facts):
    from bandits.online_learning.two_layer import step_pool

    d, diameter, smoothness = seen.shape[1], facts["diameter"], facts["smoothness"]
    rates = step_pool(given.get("pool", "code"), diameter, facts["gradient_bound"], smoothness, facts["horizon"])
    n = len(rates)
    base, hat, before = np.zeros((n, d)), np.zeros((n, d)), np.zeros((n, d))
    log_weights, losses, last, squares, points = np.zeros(n), np.zeros(n), np.zeros(d), 1.0, []
    cap = 1 / (8 * diameter**2 * smoothness)
    eps = cap
    for g in seen:
        moved = 2 * smoothness * ((base - before) ** 2).sum(1)
        expected = base @ last + moved
        p = softmax(-eps * (losses + expected)) if given.get("lazy") else softmax(log_weights - eps * expected)
        points.append(p @ base)
        loss = base @ g + moved
        log_weights, losses = log_weights - eps * loss, losses + loss
        squares += np.abs(loss - expected).max() ** 2
        eps = min(cap, 1 / math.sqrt(squares))
        before = base
        hat = np.array([onto_ball(h - rate * g) for h, rate in zip(hat, rates, strict=True)])
        base = np.array([onto_ball(h - rate * g) for h, rate in zip(hat, rates, strict=True)])
        last = g
    return points


def _ftrl_proximal(seen, given, facts):
    """By its definition: the minimiser of linear terms, proximal terms and penalties, coordinate by coordinate."""
    d, l1, l2, alpha, beta = seen.shape[1], given.get("l1", 0.0), given.get("l2", 0.0), 0.1, 1.0
    total, squares, pulls, centres, x, points = np.zeros(d), np.zeros(d), np.zeros(d), np.zeros(d), np.zeros(d), []
    for g in seen:
        points.append(x)
        grown = squares + g * g
        s = (np.sqrt(grown) - np.sqrt(squares)) / alpha
        total, squares, pulls, centres = total + g, grown, pulls + s, centres + s * x
        curvature, linear = pulls + l2 + beta / alpha, total - centres
        x = np.array([_least(a, b, l1) for a, b in zip(curvature, linear, strict=True)])
    return points


def _least(curvature, linear, l1):
    """argmin over [-1, 1] of curvature x^2 / 2 + linear x + l1 |x|: the best of 0, bounds and stationary points."""

    def value(x):
        return curvature * x * x / 2 + linear * x + l1 * abs(x)

    candidates = [0.0, -1.0, 1.0]
    candidates += [x for sign in (-1, 1) if (x := -(linear + sign * l1) / curvature) * sign > 0 and abs(x) <= 1]
    return min(candidates, key=value)

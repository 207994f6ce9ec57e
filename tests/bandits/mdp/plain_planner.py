"""The planners of linear MDPs a second time: one run, plain loops, a weight for each past episode, SciPy's duals."""

import math

import numpy as np
import torch

from orbs import Feedback, Philox
from tests.bandits.mdp.plain_duals import dual, projected

STATES, ACTIONS, FACTORS, STEPS, RUNS = 5, 3, 3, 3, 2
_RNG = np.random.default_rng(8)
FEATURES = _RNG.dirichlet(np.full(FACTORS, 0.7), (STATES, ACTIONS))
FEATURES[-1] = [0.0, 0.0, 1.0]
REWARDS = _RNG.uniform(size=(STEPS, STATES, ACTIONS))
REWARDS[:, -1] = 0.0
FAIL = (STATES - 1,)


def logs(runs, episodes, steps=STEPS, seed=9):
    """Random trajectories: states (N, R, H + 1), actions (N, R, H), and rewards of the table with noise."""
    rng = np.random.default_rng(seed)
    states, actions = (
        rng.integers(0, STATES, (episodes, runs, steps + 1)),
        rng.integers(0, ACTIONS, (episodes, runs, steps)),
    )
    rewards = REWARDS[np.arange(steps), states[..., :-1], actions] + 0.1 * rng.normal(size=actions.shape)
    return torch.as_tensor(states), torch.as_tensor(actions), torch.as_tensor(rewards)


def told(log, k):
    """The feedback of episode k of such logs."""
    return Feedback(None, None, dict(zip(("states", "actions", "rewards"), (part[k] for part in log), strict=True)))


class PlainPlanner:
    """See `bandits.mdp.dr_rpo.DRRPO` for the arguments; arrays of NumPy, features (H, S, A, d), one run."""

    def __init__(
        self, features, steps, rewards=None, divergence=None, form="constrained", level=0.0, temperature=0.05,
        reference=None, beta=1.0, bonus="paper", ridge=0.1, weights="signed", eps=0.0, kl_center=True,
        exact_zero_radius=True, fail=(), value_cap=None, step_size=None, sign=1.0, run=0, seed=0,
    ):  # fmt: skip
        shape = (steps, *features.shape[-3:])
        self.features, self.steps, self.rewards = np.broadcast_to(features, shape), steps, rewards
        self.divergence, self.form = divergence, form
        self.level = np.broadcast_to(level, (steps, shape[-1]))
        self.tau, self.beta, self.bonus, self.ridge, self.weights, self.eps = (
            temperature, beta, bonus, ridge, weights, eps)  # fmt: skip
        self.kl_center, self.exact_zero, self.fail, self.cap = kl_center, exact_zero_radius, fail, value_cap
        self.step_size, self.sign = step_size, sign
        states, actions = shape[1:3]
        uniform = np.full((steps, states, actions), 1 / actions)
        self.reference = uniform if reference is None else np.broadcast_to(reference, uniform.shape)
        self.old = self.new = np.log(self.reference)
        self.history = []
        self.philox = Philox(seed, [run])

    def ceiling(self, h, s, a):
        if s in self.fail:
            return 0.0
        return self.steps - h if self.cap is None else self.cap[h, s, a]

    def largest(self, h):
        _, states, actions, _ = self.features.shape
        return max(self.ceiling(h, s, a) for s in range(states) for a in range(actions))

    def estimates(self, h, v):
        """Lambda^-1, the worst-case means of v for the factors, and the rewards' weights."""
        d = self.features.shape[-1]
        gram, target, columns, reached = self.ridge * np.eye(d), np.zeros(d), [], []
        for states, actions, rewards in self.history:
            phi = self.features[h, states[h], actions[h]]
            gram = gram + np.outer(phi, phi)
            target = target + phi * rewards[h]
            columns.append(phi)
            reached.append(states[h + 1])
        inverse = np.linalg.inv(gram)
        nu = np.zeros(d)
        for i in range(d):
            w = np.array([inverse[i] @ phi for phi in columns])
            values = np.array([v[s] for s in reached])
            if self.weights == "projected":
                kinds = sorted(set(reached))
                w = np.array([sum(wk for wk, s in zip(w, reached, strict=True) if s == kind) for kind in kinds])
                values = np.array([v[s] for s in kinds])
            if not len(w):
                w, values = np.zeros(1), np.array([v.min()])
            if self.divergence is None:
                nu[i] = (projected(w)[0] if self.weights == "projected" else w) @ values
                continue
            floor = min(1.0, max(1e-12, self.eps * math.sqrt(inverse[i, i])))
            nu[i] = dual(
                w, values, self.divergence, self.form, self.level[h, i], self.weights, least=v.min(),
                cap=max(self.largest(h + 1) if h + 1 < self.steps else 1.0, 1.0), horizon=self.largest(0),
                floor=floor, center=self.kl_center, exact_zero=self.exact_zero,
            )  # fmt: skip
        return inverse, nu, inverse @ target

    def width(self, phi, inverse):
        if self.bonus == "paper":
            return sum(phi[i] * math.sqrt(inverse[i, i]) for i in range(len(phi)))
        if self.bonus == "script":
            return math.sqrt(sum(phi[i] ** 2 * inverse[i, i] for i in range(len(phi))))
        return math.sqrt(phi @ inverse @ phi)

    def plan(self, episode):
        """(H, S, A) the policy; self.values (H + 1, S) are its estimate."""
        steps, states, actions, _ = self.features.shape
        policy, self.values = np.zeros((steps, states, actions)), np.zeros((steps + 1, states))
        u = self.philox.uniform("dr-rpo/ties", episode, 1, steps * states, torch.float64)[0, 0].numpy()
        u = u.reshape(steps, states)
        self.new = self.old.copy()
        for h in reversed(range(steps)):
            inverse, nu, theta = self.estimates(h, self.values[h + 1])
            for s in range(states):
                q = np.zeros(actions)
                for a in range(actions):
                    phi = self.features[h, s, a]
                    r = phi @ theta if self.rewards is None else self.rewards[h, s, a]
                    q[a] = r + phi @ nu + self.sign * self.beta * self.width(phi, inverse)
                    q[a] = max(0.0, min(q[a], self.ceiling(h, s, a)))
                policy[h, s], self.values[h, s] = self.improved(h, s, q, u[h, s])
        return policy

    def improved(self, h, s, q, u):
        near = np.log(self.reference[h, s])
        if self.step_size is not None:
            pull = self.step_size * self.tau
            logs = (self.old[h, s] + pull * near + self.step_size * q) / (1 + pull)
            logs = logs - math.log(sum(math.exp(x - logs.max()) for x in logs)) - logs.max()
            self.new[h, s] = logs
            p = np.exp(logs)
            return p, p @ q - self.tau * (p @ (logs - near))
        if self.tau == 0:
            best = [a for a in range(len(q)) if q[a] >= q.max() - 1e-10]
            return np.eye(len(q))[best[int(u * len(best))]], q.max()
        powers = self.reference[h, s] * np.exp((q - q.max()) / self.tau)
        return powers / powers.sum(), q.max() + self.tau * math.log(powers.sum())

    def learn(self, states, actions, rewards):
        """An episode: lists of H + 1, H and H numbers."""
        self.old = self.new
        self.history.append((states, actions, rewards))


def agree(learner, plain, episodes, tolerance):
    """Plays logs to the learner and to a plain planner a run; their policies and estimates agree in each episode."""
    log = logs(learner.runs, episodes, learner.steps)
    for k in range(episodes):
        policy = learner.act()
        values = learner.estimate()[1]
        for r, second in enumerate(plain):
            torch.testing.assert_close(policy[r], torch.as_tensor(second.plan(k)), rtol=0, atol=tolerance)
            torch.testing.assert_close(values[r], torch.as_tensor(second.values), rtol=0, atol=tolerance)
            second.learn(*(part[k, r].tolist() for part in log))
        learner.observe(policy, told(log, k))

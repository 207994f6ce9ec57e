"""The dynamical linear bandit: an action moves a hidden state that decays slowly, and the reward is the state's output.

Mussi, Metelli, Restelli, "Dynamical Linear Bandits", ICML 2023, arXiv 2211.08997:

    x_1 = 0,   y_t = <omega, x_t> + <theta, u_t> + eta_t,   x_{t+1} = A x_t + B u_t + eps_t

Round by round is the reference; `advance` plays many rounds of one action at once with the same law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from envs.linear_system import LinearSystem, find_system
from envs.regions import Arms, Box
from envs.regret_world import RegretWorld, SingleWorld, Tape, between, known, whole
from orbs import Feedback, array, reject, runs_last, tensor

__all__ = ["DynamicalLinearBandit", "epoch_law", "single"]

OUTPUT_NOISE = ("each", "single")
Array = Any  # np.ndarray on a CPU, Tensor elsewhere; see `orbs.array`


def epoch_law(system: LinearSystem, output_noise: float, state_noise: float, rounds: int) -> tuple[np.ndarray, ...]:
    """The joint law of (sum of the rewards, last reward, next state), given the state x and the action u held `rounds`.

    Args:
        system: the dynamics.
        output_noise, state_noise: standard deviations of the reward's noise and of each state coordinate's.
        rounds: at least 1.

    Returns:
        M (2 + n, n), N (2 + n, d) and a factor F (2 + n, 2 + n): mean M x + N u, covariance F F^T.
    """
    n, d = system.B.shape
    step = np.zeros((n + 2, n + 2))  # of (sum, last, state), one round, the action apart
    step[0, 0] = 1.0
    step[0, 2:] = step[1, 2:] = system.omega
    step[2:, 2:] = system.A
    pushed = np.vstack([system.theta, system.theta, system.B])
    noise = np.zeros((n + 2, n + 2))
    noise[:2, :2] = output_noise**2
    noise[2:, 2:] = state_noise**2 * np.eye(n)
    mean, added, spread = np.eye(n + 2), np.zeros((n + 2, d)), np.zeros((n + 2, n + 2))
    left = rounds
    while left:  # by doubling: (step, pushed, noise) are those of 1, 2, 4, .. rounds
        if left % 2:
            mean, added, spread = step @ mean, step @ added + pushed, step @ spread @ step.T + noise
        step, pushed, noise = step @ step, step @ pushed + pushed, step @ noise @ step.T + noise
        left //= 2
    # Not Cholesky: after one round the sum is the last reward, so the covariance is singular.
    values, vectors = np.linalg.eigh((spread + spread.T) / 2)
    return mean[:, 2:], added, vectors * np.sqrt(np.maximum(values, 0.0))


class DynamicalLinearBandit(RegretWorld):
    """`num_envs` runs of a dynamical linear bandit; the observation is the last reward (R, 1), 0 at first.

    Actions: arms (R,) int64, rows of the system's actions; or, with actions="box", the d inputs (R, d), each within
    the range that the arms span. `step` takes either form in either case, so a plan beside the arms can be played.
    Feedback holds the reward alone; info holds "state" x_t (R, n), of the round that was played, and "steady" <h, u_t>.

    Regret: "regret/pseudo", sum of (max <h, u> - <h, u_t>), of which noise and transients are no part, and
    "regret/realised", sum of (max <h, u> - y_t). The maximum is over the arms.

    Args:
        system: "synthetic", "advertising", a JSON file, or a `LinearSystem`.
        horizon, runs, seed, device: as for `RegretWorld`.
        noise: sigma in place of the system's own.
        output_noise: "each": every output of the system has noise of its own, so a reward's variance is sigma^2 times
            their number (three in the paper's systems, as its released code has it); "single": sigma^2.
        actions: "arms" or "box", the declared action space.

    Attributes:
        system; arms: K; steady: (K,) the mean reward of holding each arm.

    Raises:
        ValueError: an unstable system, a value out of its range.
    """

    def __init__(
        self,
        system: str | LinearSystem = "synthetic",
        horizon: int = 1000,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        noise: float | None = None,
        output_noise: str = "each",
        actions: Literal["arms", "box"] = "arms",
    ) -> None:
        self.system = find_system(system)
        sigma = self.system.noise if noise is None else between("DynamicalLinearBandit.noise", noise, 0.0, np.inf)
        known("DynamicalLinearBandit.output_noise", output_noise, OUTPUT_NOISE)
        known("DynamicalLinearBandit.actions", actions, ("arms", "box"))
        outputs = len(self.system.C) if output_noise == "each" else 1
        self.state_noise, self.output_noise = sigma, sigma * math.sqrt(outputs)
        choices = self.system.actions
        self.arms, (self._n, d) = len(choices), self.system.B.shape
        self._box = Box(d, float(choices.min()), float(choices.max()))
        self._by_arm = actions == "arms"

        def on(array: np.ndarray) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64, device=device)

        steady = self.system.steady
        self._actions, self._best = on(choices), float((choices @ steady).max())
        self.steady = on(choices @ steady)
        # What an action does in a round: to the state, to the reward, and to the pseudo-regret (but for the best).
        self._effect = on(np.vstack([self.system.B, self.system.theta, -steady]))
        self._effects = self._pushed_by_arms(self._effect, 1)
        self._output = array(on(np.vstack([self.system.A, self.system.omega])))
        self._noises = on(np.append(np.full(self._n, self.state_noise), self.output_noise))
        self._laws: dict[int, tuple[Array, Tensor, Tensor]] = {}
        facts: dict[str, Any] = {
            "arms": self.arms, "features": self._actions, "feature_dimension": d, "noise": sigma,
            "best_arm": int(self.steady.argmax()), **self.system.bounds(),
            "budget": float(choices.sum(1).max()),
        }  # fmt: skip
        # Bounds on the steady reward's weights and on the actions, for learners of linear bandits.
        gain = facts["state_weight"] * facts["input_norm"] * facts["transient"] / (1 - facts["spectral_radius"])
        facts |= {"parameter_bound": facts["action_weight"] + gain, "feature_bound": facts["action_norm"]}
        if self.system.expert is not None:
            facts["expert"] = on(self.system.expert)
        region = Arms(self.arms) if self._by_arm else self._box
        facts["domain"] = Arms(self.arms).plain
        super().__init__(region, horizon, runs, seed, device, self._n + 1, facts, (-np.inf, np.inf, (1,)))

    def _prepare(self) -> None:
        width = self._n + 2
        # As many numbers a run and jump; a copy of the world shares them.
        draw = self.philox.normal
        self._jumps_tape = Tape(
            lambda first, rounds: (draw("dynamical/jumps", first, rounds, width, torch.float64),),
            width * self.num_envs,
            2**62,
            self._view,
        )

    def _pushed_by_arms(self, pushed: Tensor, rounds: int) -> Tensor:
        """(rows, K) what each arm does; in the last row the pseudo-regret of so many rounds, 0 exactly for the best."""
        table = pushed @ self._actions.mT
        table[-1] = rounds * (self._best - self.steady)
        return table.contiguous()

    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        z = self.philox.normal("dynamical/rounds", first, rounds, self._n + 1, torch.float64)
        return (z * self._noises,)

    @staticmethod
    def _view(part: Tensor) -> list[Array]:
        """(numbers, R) of each round."""
        return list(array(part.permute(1, 2, 0)))

    def _sums(self) -> dict[str, Tensor]:
        return {"pseudo": self.zeros()}

    def _start(self) -> None:
        super()._start()
        self._jumps = 0
        self._state = array(self.zeros(self._n).mT)
        self._pseudo, self._loss = array(self.sums["pseudo"]), array(self.sums["loss"])

    def _of(self, action: Tensor, table: Tensor, matrix: Tensor, rounds: int) -> Array:
        """(rows, R): what each run's action does; `table` (rows, K) of the arms, `matrix` (rows, d) of points.

        Raises:
            ValueError: an action that is none.
        """
        x = torch.as_tensor(action, device=self.device)
        points = x.is_floating_point()
        shape = (self.num_envs, self._box.dimension) if points else (self.num_envs,)
        if x.shape != shape or not (points or x.dtype == torch.int64):
            wanted = f"int64 arms of shape ({self.num_envs},), or points ({self.num_envs}, {self._box.dimension})"
            reject("action", wanted, f"{x.dtype} of shape {tuple(x.shape)}", "give a row a run")
        if points:
            self._judge(self._box, x)
            effect = matrix @ x.to(torch.float64).mT
            effect[-1] += rounds * self._best
            return array(effect)
        if self.device.type == "cpu":
            try:
                return array(table.index_select(1, x))  # which looks whether arms are arms as it goes
            except (IndexError, RuntimeError):
                pass
        self._judge(Arms(self.arms), x)
        return table.index_select(1, x.clamp(0, self.arms - 1))

    def _play(self, x: Tensor, row: tuple[Array, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        effect = self._of(x, self._effects, self._effect, 1)
        moved = self._output @ self._state  # A x, then <omega, x>
        moved += effect[:-1]
        moved += row[0]
        self._state, self._gap = moved[:-1], effect[-1]
        self._pseudo += effect[-1]
        reward = tensor(moved[-1])
        return -reward, reward.unsqueeze(-1), None

    def _checked(self, x: Tensor) -> Tensor:
        """Judged where its effect is looked up: arms and points both are actions here."""
        return x

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        before = tensor(self._state).mT
        seen, reward, terminated, truncated, info = super().step(action)
        steady = tensor(self._best - self._gap)
        return seen, reward, terminated, truncated, {**info, "state": before, "steady": steady}

    def mean_reward(self, action: Tensor) -> Tensor:
        """(R,) the long-run mean reward of holding each run's action."""
        return self._best - tensor(self._of(action, self._effects, self._effect, 1)[-1])

    def advance(self, action: Tensor, rounds: int) -> Feedback:
        """Hold the actions for `rounds` rounds at once; the last one's feedback, whose terms have all rewards' "total".

        The law of all that can be seen, of the state and of the sums is that of as many steps; the numbers are others.

        Raises:
            ValueError: an action that is none, fewer rounds than 1 or more than are left.
        """
        if not 1 <= rounds <= self.horizon - self.round:
            left = self.horizon - self.round
            reject("rounds", f"1 to {left}, the rounds left", rounds, "hold the action for fewer, or reset")
        if rounds not in self._laws:
            mean, added, factor = epoch_law(self.system, self.output_noise, self.state_noise, rounds)
            pushed = torch.as_tensor(np.vstack([added, -rounds * self.system.steady]), device=self.device)
            law = torch.as_tensor(np.hstack([mean, factor]), device=self.device)
            self._laws[rounds] = array(law), pushed, self._pushed_by_arms(pushed, rounds)
        law, pushed, table = self._laws[rounds]
        effect = self._of(action, table, pushed, rounds)
        (z,) = self._jumps_tape.round(self._jumps)
        join = np.concatenate if isinstance(effect, np.ndarray) else torch.cat
        found = law @ join([self._state, z])
        found += effect[:-1]
        self._state = found[2:]
        self._pseudo += effect[-1]
        self._loss -= found[0]
        self._jumps += 1
        self.round += rounds
        return Feedback(tensor(found[1]), terms={"total": tensor(found[0])})

    def regret(self) -> dict[str, Tensor]:
        return {"regret/pseudo": self.sums["pseudo"].clone(), "regret/realised": self.round * self._best + self.loss}

    def state_dict(self) -> dict[str, Tensor]:
        state = tensor(self._state).mT.clone()
        return {**super().state_dict(), "jumps": torch.tensor(self._jumps), "state": state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        self._jumps = int(state["jumps"])
        self._state = array(runs_last(state["state"].to(self.device)).mT)


class Single(SingleWorld):
    """One run as a gymnasium environment; info has "state" (n,) and "steady" of each round."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        world = self.world
        assert isinstance(world, DynamicalLinearBandit)
        state = tensor(world._state)[:, 0].numpy().copy()
        observation, reward, terminated, truncated, info = super().step(action)
        given = torch.as_tensor(world.region.inside(np.asarray(action, world.region.space().dtype)))
        return observation, reward, terminated, truncated, {
            **info, "state": state, "steady": float(world.mean_reward(given.unsqueeze(0))[0])
        }  # fmt: skip


def single(**arguments: Any) -> SingleWorld:
    """One run as a gymnasium environment."""
    whole("horizon", arguments.get("horizon", 1000), 1)
    return Single(DynamicalLinearBandit, **arguments)

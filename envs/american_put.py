"""The American put option: hold or exercise while the price goes up by 2 % or down by 2 %, trained with a fair coin.

The task of "Distributionally Robust Off-Dynamics Reinforcement Learning" (Liu and Xu, arXiv 2402.15399), where only
the value of holding is estimated, by hat functions of the price; and, ours, an option that they describe exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from envs.episodic_world import EpisodicWorld
from envs.finite_mdp import FiniteMDP
from envs.mdp_env import SingleMDP
from envs.off_dynamics import nature
from envs.regret_world import between, known, whole

__all__ = ["AmericanPut", "linear_put_model", "put_features", "put_model", "put_prices", "single"]

HOLD, EXERCISE = 0, 1
RISE, FALL, STRIKE = 1.02, 0.98, 100.0
LEAST_START, MOST_START = 95.0, 105.0
FIRST_ANCHOR, ANCHOR_RANGE = (
    80.0,
    100.0,
)  # of the released features: prices below the first anchor get less than weight 1
CAPS = ("steps", "payoff")


def put_prices(start_prices: Tensor | float, steps: int) -> Tensor:
    """(..., H, H + 1) the price at step h after j rises, start * 1.02^j * 0.98^(h - j); step h only meets j <= h."""
    start = torch.as_tensor(start_prices, dtype=torch.float64)
    h, j = torch.arange(steps, device=start.device).double(), torch.arange(steps + 1, device=start.device).double()
    return start[..., None, None] * RISE**j * FALL ** (h[:, None] - j)


def put_model(start_prices: Tensor | float, steps: int, up: float = 0.5, strike: float = STRIKE) -> FiniteMDP:
    """H + 2 states: the rises so far, 0..H, and the exit. Actions: 0 holds, 1 exercises, which pays and exits.

    Args:
        start_prices: a number, or (R,) for rewards (R, H, S, A) that differ between runs.
        steps: H; the last decision is at step H - 1, and holding then pays nothing.
        up: chance of a rise.
        strike: exercising at price s pays max(0, strike - s).
    """
    between("put_model.up", up, 0.0, 1.0)
    exit_, states = steps + 1, steps + 2
    kernel = torch.zeros(1, states, 2, states, dtype=torch.float64)
    kernel[0, :, EXERCISE, exit_] = 1.0
    kernel[0, exit_, HOLD, exit_] = 1.0
    rows = torch.arange(steps)
    kernel[0, rows, HOLD, rows + 1], kernel[0, rows, HOLD, rows] = up, 1.0 - up
    kernel[0, steps, HOLD, steps] = 1.0  # the last step cannot be there
    prices = put_prices(start_prices, steps)
    reward = prices.new_zeros(*prices.shape[:-1], states, 2)
    reward[..., :-1, EXERCISE] = (strike - prices).clamp_min(0.0)
    start = torch.nn.functional.one_hot(torch.tensor(0), states)
    model = FiniteMDP(kernel.flatten(1, 2), reward.cpu(), steps, None, start.double(), (exit_,))
    return model.to(prices.device)


def put_features(prices: Tensor, dimension: int, first: float, width: float) -> Tensor:
    """(..., d) hat functions max(0, 1 - |s - s_i| / width) of prices s (...) at the anchors s_i = first + i * width."""
    anchors = first + width * torch.arange(dimension, dtype=torch.float64, device=prices.device)
    return (1.0 - (prices.unsqueeze(-1) - anchors).abs() / width).clamp_min(0.0)


def linear_put_model(
    start_price: float = 100.0,
    steps: int = 10,
    up: float = 0.5,
    strike: float = STRIKE,
    dimension: int = 21,
    first: float = 60.0,
    width: float = 5.0,
) -> FiniteMDP:
    """An option that is exactly linear: holding picks an anchor by the price's features, from which the price moves on.

    Prices are clipped to those of the anchors. States: the start, then each anchor's price after a rise and after a
    fall (1 + 2 i, 2 + 2 i), the exit; laws: one an anchor, and the exit's. Actions as in `put_model`.
    """
    between("linear_put_model.up", up, 0.0, 1.0)
    anchors = first + width * torch.arange(dimension, dtype=torch.float64)
    moved = torch.stack((anchors * RISE, anchors * FALL), 1).flatten()
    prices = torch.cat((torch.tensor([start_price], dtype=torch.float64), moved)).clamp(anchors[0], anchors[-1])
    states, exit_ = 2 * dimension + 2, 2 * dimension + 1
    features = torch.zeros(states, 2, dimension + 1, dtype=torch.float64)
    features[:-1, HOLD, :-1] = put_features(prices, dimension, first, width)
    features[:, EXERCISE, -1], features[exit_, HOLD, -1] = 1.0, 1.0
    laws = torch.zeros(1, dimension + 1, states, dtype=torch.float64)
    which = torch.arange(dimension)
    laws[0, which, 1 + 2 * which], laws[0, which, 2 + 2 * which] = up, 1.0 - up
    laws[0, -1, exit_] = 1.0
    reward = torch.zeros(1, states, 2, dtype=torch.float64)
    reward[0, :-1, EXERCISE] = (strike - prices).clamp_min(0.0)
    start = torch.nn.functional.one_hot(torch.tensor(0), states).double()
    return FiniteMDP(laws, reward, steps, features, start, (exit_,))


class AmericanPut(EpisodicWorld):
    """The option with a start price of its own in each run, drawn once; policies are valued in other coins as well.

    Learners are told hat functions of the price as features of holding, 0 for exercising, whose pay-off they know. The
    features do not describe the prices exactly, so the world has no uncertainty set of its own: regret is nominal, and
    the set among the facts is the one that robust learners are to use.

    Args:
        horizon, runs, seed, device: as for `EpisodicWorld`.
        steps: H, price moves before the option ends.
        dimension: d, anchors at 80 + 100 i / d.
        divergence, form, level: the set for robust learners, of every feature's law; none if divergence is off.
        cap: of the value of holding that learners are told: "steps", H - h, as in the released scripts although
            pay-offs are larger; "payoff", the most that can still be paid.

    Raises:
        ValueError: a value out of its range, an unknown word.
    """

    def __init__(
        self,
        horizon: int = 100,
        runs: int | Sequence[int] = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        steps: int = 10,
        dimension: int = 20,
        divergence: str = "tv",
        form: str = "constrained",
        level: float = 0.5,
        cap: str = "steps",
    ) -> None:
        steps = whole("AmericanPut.steps", steps, 1)
        self.dimension = whole("AmericanPut.dimension", dimension, 1)
        self.cap = known("cap", cap, CAPS)
        self.told = nature(divergence, form, level, None, (steps, self.dimension))
        super().__init__(steps, steps + 2, 2, horizon, runs, seed, device)

    def _model(self) -> FiniteMDP:
        luck = self.philox.uniform("american-put/start", 0, 1, 1, torch.float64)[:, 0, 0]
        self.start_prices = LEAST_START + (MOST_START - LEAST_START) * luck
        return put_model(self.start_prices, self.steps)

    def _targets(self) -> dict[str, FiniteMDP]:
        return {f"{i / 40:g}": put_model(self.start_prices, self.steps, i / 40) for i in range(6, 35)}

    def _model_facts(self) -> dict[str, Any]:
        prices = put_prices(self.start_prices, self.steps)
        shape = *prices.shape[:-1], self.states, 2, self.dimension
        features = prices.new_zeros(shape)
        width = ANCHOR_RANGE / self.dimension
        features[..., :-1, HOLD, :] = put_features(prices, self.dimension, FIRST_ANCHOR, width)
        found = {**super()._model_facts(), "features": features, "value_cap": self._caps()}
        if self.told is not None:
            found["uncertainty"] = {
                "divergence": self.told.divergence, "form": self.told.form,
                "level": self.told.levels(self.steps, self.dimension).to(self.device),
            }  # fmt: skip
        return found

    def _caps(self) -> Tensor:
        """(H, S, A) caps on Q that hold for each start price (if `cap` is "payoff")."""
        caps = torch.full((self.steps, self.states, 2), torch.inf, dtype=torch.float64, device=self.device)
        left = torch.arange(self.steps, 0, -1, dtype=torch.float64, device=self.device)  # H - h
        if self.cap == "steps":
            caps[:, :, HOLD] = left.unsqueeze(1)
            return caps
        lowest = put_prices(torch.tensor(LEAST_START, dtype=torch.float64, device=self.device), self.steps)
        most = (STRIKE - lowest * FALL ** (left - 1).unsqueeze(1)).clamp_min(0.0)  # after falls alone
        most[-1] = 0.0
        caps[:, :-1, HOLD], caps[:, -1, HOLD] = most, 0.0
        return caps


def single(**arguments: Any) -> SingleMDP:
    """One run of the option, step by step, as a gymnasium environment."""
    return SingleMDP(AmericanPut, **arguments)

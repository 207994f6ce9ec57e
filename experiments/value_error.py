"""How far an agent's values are from what its policy earns: specified in stac.md, section 6, here for every agent.

The error of a step is the predicted value minus the discounted return from there on. A time limit cuts an episode
that would have gone on, so the return goes on with the value of the last observation and the policy's action in it;
after a terminal nothing comes, so nothing is added (the authors of STAC add a value there too). A soft agent's value
and return hold its entropy bonuses, those of the actions that were played, as it was trained; a hard agent has none.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from experiments.acting import Player

__all__ = ["Step", "discounted_errors", "value_error"]

BLOCK = 4096  # rows that are valued at a time


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an evaluation episode; `bonus` is the entropy bonus of its action, 0 of a hard agent's."""

    obs: np.ndarray
    action: np.ndarray
    reward: float
    terminated: bool
    bonus: float = 0.0


def discounted_errors(
    values: np.ndarray, rewards: np.ndarray, bonuses: np.ndarray, discount: float, terminated: bool, last_value: float
) -> np.ndarray:
    """(T,) value minus discounted return, of an episode of T steps.

    Args:
        values: (T,) predicted at each step, the step's own bonus not in it.
        rewards, bonuses: (T,).
        terminated: whether the environment itself ended it.
        last_value: the value after the last step, bonus and all, taken only where it did not.
    """
    following = 0.0 if terminated else last_value
    returns = np.empty(len(rewards))
    for step in range(len(rewards) - 1, -1, -1):
        following = rewards[step] + bonuses[step] + discount * following
        returns[step] = following
    return np.asarray(values + bonuses - returns)


def value_error(agent: Any, episodes: list[list[Step]], last_obs: np.ndarray) -> np.ndarray:
    """(runs,) mean over each run's episodes of their mean error; NaN for a run without episodes.

    Args:
        agent: has runs, `value`, `act` and a configuration with a discount; `entropy_bonus` where it is soft.
        episodes: runs x n of them, run by run; an empty one was not played.
        last_obs: (runs * n, obs_dim), the observation after each one's last step.
    """
    runs = agent.runs
    each = len(episodes) // runs
    last_obs = np.asarray(last_obs, np.float32).reshape(runs, each, -1)
    # Nobody plays this action: its number is that of a step after all that were played, for samples of its own.
    player, number = Player(agent), max(map(len, episodes))
    last_action = player.act(last_obs, number).reshape(runs, each, -1)
    last_bonus = player.bonus(last_obs, number)
    rows = max(sum(map(len, episodes[run * each : (run + 1) * each])) for run in range(runs))
    obs = np.zeros((runs, rows + each, last_obs.shape[-1]), np.float32)
    action = np.zeros((runs, rows + each, last_action.shape[-1]), np.float32)
    obs[:, rows:], action[:, rows:] = last_obs, last_action
    for run in range(runs):
        steps = [step for episode in episodes[run * each : (run + 1) * each] for step in episode]
        for row, step in enumerate(steps):
            obs[run, row], action[run, row] = step.obs, step.action
    parts = [_valued(agent, obs[:, at : at + BLOCK], action[:, at : at + BLOCK]) for at in range(0, rows + each, BLOCK)]
    values = np.concatenate(parts, axis=1)
    result = np.full(runs, np.nan)
    for run in range(runs):
        row, means = 0, []
        for place, episode in enumerate(episodes[run * each : (run + 1) * each]):
            if not episode:
                continue
            rewards, bonuses = (np.array([getattr(step, of) for step in episode]) for of in ("reward", "bonus"))
            own, row = slice(row, row + len(episode)), row + len(episode)
            last = float(values[run, rows + place] + last_bonus[run, place])
            errors = discounted_errors(
                values[run, own], rewards, bonuses, agent.config.discount, episode[-1].terminated, last
            )
            means.append(errors.mean())
        if means:
            result[run] = np.mean(means)
    return result


def _valued(agent: Any, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Values (runs, n)."""
    import torch

    values = agent.value(torch.from_numpy(obs), torch.from_numpy(action))
    return np.asarray(values.detach().cpu().double().numpy())

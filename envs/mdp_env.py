"""Episodic worlds step by step: a vector environment of tensors, and one run of it as an ordinary environment.

Both play the dynamics and the rewards of an `EpisodicWorld`, for agents that choose an action in each state instead of
giving a policy beforehand.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from envs.episodic_world import EpisodicWorld
from envs.regret_world import Tape
from orbs import reject

__all__ = ["MDPVector", "SingleMDP"]

EPISODES = 2**31  # more than anybody plays


class MDPVector(VectorEnv[Tensor, Tensor, Tensor]):
    """The runs of a world, in lockstep: observations (R, 2) int64, step and state; actions (R,) int64; rewards (R,).

    All runs terminate together after the last step of the episode; nothing resets by itself. Each `reset` begins the
    next episode, `reset(seed=s)` the first one of that seed; the numbers are those of the world's episodes. Where the
    world's rewards change from episode to episode, they begin again after its horizon.

    Args:
        world: whose model, runs, seed and device are played; it is left alone.

    Raises:
        ValueError: an action of another shape or type, or, on a CPU, one that is none; a step after the last.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 (gymnasium's own form)

    def __init__(self, world: EpisodicWorld) -> None:
        self.world, self.num_envs, self.device = world.twin(), world.num_envs, world.device
        self.single_observation_space = spaces.MultiDiscrete([world.steps + 1, world.states])
        self.single_action_space = spaces.Discrete(world.actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._wanted = (self.num_envs,)
        self._begin()

    def _begin(self) -> None:
        self.tape = Tape(self.world._draw, (2 * self.world.steps + 1) * self.num_envs, EPISODES)
        self.episode, self.at = -1, self.world.steps
        self.state = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)

    def _seen(self) -> Tensor:
        return torch.stack((torch.full_like(self.state, self.at), self.state), dim=1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        if seed is not None:
            self.world.reset(seed=seed)
            self._begin()
        self.episode, self.at = self.episode + 1, 0
        self._row = self.tape.round(self.episode)
        self._luck = self._row[0].unbind(1)
        self.state = self.world.first_state(self._luck[0])
        return self._seen(), {}

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        if self.at >= self.world.steps:
            reject("step", f"at most {self.world.steps} in an episode", "one more, or one before reset", "reset")
        chosen = torch.as_tensor(action, device=self.device)
        if chosen.shape != self._wanted or chosen.is_floating_point():
            given = f"{chosen.dtype} of shape {tuple(chosen.shape)}"
            reject("action", f"integers of shape {self._wanted}", given, "give the number of an action a run")
        outside = (chosen < 0) | (chosen >= self.world.actions)
        if self.device.type == "cpu" and bool(outside.any()):
            given = f"{int(chosen[outside][0])}"
            reject("action", f"0 to {self.world.actions - 1}", given, "give the number of an action")
        chosen = chosen.long().clamp(0, self.world.actions - 1)
        mean = self.world.paid(self.world.rewards_of(self.episode), self.at, self.state, chosen)
        reward = self.world.received(mean.unsqueeze(1), self._row, self.at)[:, 0]
        self.state = self.world.next_state(self.at, self.state, chosen, self._luck[2 + 2 * self.at])
        self.at += 1
        ended = torch.full(self._wanted, self.at == self.world.steps, device=self.device)
        return self._seen(), reward, ended, torch.zeros_like(ended), {}


class SingleMDP(gym.Env[np.ndarray, Any]):
    """One run of an episodic world as an ordinary environment: (step, state) is seen, an action's number taken.

    A reset without a seed begins the next episode; the first one plays a seed that the environment's generator draws.

    Args:
        world: the world's class.
        run: the run's id.
        arguments: the world's own, but for runs and device.
    """

    def __init__(self, world: type[EpisodicWorld], run: int = 0, **arguments: Any) -> None:
        self.vector = MDPVector(world(runs=[run], **arguments))
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**32))
        self._seeded = True
        observation, _ = self.vector.reset(seed=seed)
        return observation[0].numpy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        given = np.asarray(action)
        if given.shape != () or given.dtype.kind not in "iu":
            most = self.vector.world.actions - 1
            reject("action", f"the number of an action, 0 to {most}", repr(action), "give one of the action space")
        observation, reward, ended, _, _ = self.vector.step(torch.as_tensor(given).reshape(1))
        return observation[0].numpy(), float(reward[0]), bool(ended[0]), False, {}

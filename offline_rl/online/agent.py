"""The thin base of the agents that interact: exploring, remembering, updates from their own replay.

An agent adds its networks (`_build`), its noise (`_noise_shapes`), one update (`_step`) and how it acts (`_chosen`,
`_explored`); `offline_rl.base` says what it has besides. Inside an agent actions lie in [-1, 1]; the environment's
units are met at the boundary alone. Observations are used as they come, without a normaliser.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from offline_rl.base import Learner
from offline_rl.boundary import check_count
from offline_rl.critics.beer import representation_rank
from offline_rl.critics.interface import Batch, Critic, Evaluation
from offline_rl.online.config import OnlineConfig
from offline_rl.online.replay import Replay, distinct_rows, few, first_distinct, words_wanted
from offline_rl.online.spaces import box_of
from offline_rl.recording import Recordings
from orbs import reject, save_tensors

__all__ = ["INTERACTION_BLOCK", "OnlineAgent"]

# Random numbers are drawn for this many updates and interactions at a time, in blocks aligned to their numbers, so
# that they are the same wherever an agent is stopped. Results do not depend on it.
UPDATE_BLOCK, INTERACTION_BLOCK = 32, 256
DRAWS = 1 << 20
# Ranks grow with the number of rows: always this many, by which every feature can show.
MEASURED_ROWS = 2048


class OnlineAgent(Learner):
    """`runs` independent agents, each in an environment of its own, with its own replay.

    The loop of one environment step, which the caller plays:

        action = agent.explore(obs)
        (step the environments)
        agent.observe(obs, action, reward, next_obs, terminal)
        if agent.due:
            agent.update(agent.due)

    See `Learner` for the arguments. Everything random is a function of (seed, run, purpose, number of the interaction
    or update): a resumed agent goes on as if it had never stopped.

    Attributes:
        interactions: environment steps observed so far, per run.
        replay: what was observed; `replay.size` transitions per run.
    """

    config_class: ClassVar[type[OnlineConfig]]
    interactions: int
    replay: Replay
    critic: Critic
    distinct = False  # whether a batch holds no transition twice

    @classmethod
    def for_env(cls, env: Any, **arguments: Any) -> Self:
        """An agent shaped for the (single) spaces of a gymnasium Env or VectorEnv.

        Raises:
            ValueError: an action space other than a bounded box, or observations other than one vector.
        """
        return cls(*box_of(env, cls.name), **arguments)

    def _build(self) -> None:
        width = 2 * self.obs_dim + self.action_dim + 2
        self.interactions = 0
        self.replay = Replay(self.runs, self.config.capacity, width, self.dtype, self.device)
        self._low, self._high, self._centre, self._scale = (
            bound.cpu().numpy() for bound in (self.action_low, self.action_high, self.action_centre, self.action_scale)
        )
        self._deterministic, self._draw = True, 0
        self._update_block = self._random_block = self._noise_block = -1
        self._words: tuple[Tensor, ...] = ()
        self._update_noise: dict[str, tuple[Tensor, ...]] = {}
        self._inputs: tuple[Tensor, dict[str, Tensor], Tensor] | None = None
        self._random_actions = np.empty(0)
        self._noise: tuple[Tensor, ...] = ()

    # Interacting.

    @torch.no_grad()
    def explore(self, obs: Any) -> np.ndarray:
        """The action of interaction number `interactions + 1`, (R, action_dim), in the environment's units.

        Random for the first `random_steps`, then the policy's with its noise. Asked twice, it answers the same.

        Args:
            obs: (R, obs_dim), each run its own.

        Raises:
            ValueError: another shape.
        """
        x = self._checked("explore.obs", obs, (self.runs, self.obs_dim))
        block, place = divmod(self.interactions, INTERACTION_BLOCK)
        first = block * INTERACTION_BLOCK + 1
        if self.interactions < self.config.random_steps:
            if block != self._random_block:
                actions = self._random(first, INTERACTION_BLOCK).cpu().numpy()
                self._random_actions, self._random_block = self._to_box(actions).swapaxes(0, 1), block
            return np.array(self._random_actions[place])
        if block != self._noise_block:
            noise = self.philox.normal("exploration", first, INTERACTION_BLOCK, self.action_dim, self.dtype)
            self._noise, self._noise_block = noise.transpose(0, 1).unsqueeze(2).contiguous().unbind(0), block
        rows = torch.from_numpy(x).to(self.device).unsqueeze(1)
        return self._to_box(self._explored(rows, self._noise[place]).squeeze(1).cpu().numpy())

    def observe(self, obs: Any, action: Any, reward: Any, next_obs: Any, terminal: Any) -> None:
        """Remember one transition a run.

        Args:
            obs, next_obs: (R, obs_dim); next_obs is the true successor, the last observation where an episode ends.
            action: (R, action_dim), as it was played, in the environment's units.
            reward: (R,).
            terminal: (R,), 1 where the environment's own end was reached, else 0: it alone stops bootstrapping, a
                time limit does not.

        Raises:
            ValueError: another shape, a NaN or inf, an action outside the box, a terminal that is no flag.
        """
        runs, d, a = self.runs, self.obs_dim, self.obs_dim + self.action_dim
        row = np.empty((runs, 2 * d + self.action_dim + 2), self._low.dtype)
        row[:, :d] = self._checked("observe.obs", obs, (runs, d))
        played = self._checked("observe.action", action, (runs, self.action_dim))
        scaled = row[:, d:a]
        scaled[:] = (played - self._centre) / self._scale
        row[:, a] = self._checked("observe.reward", reward, (runs,))
        row[:, a + 1] = self._checked("observe.terminal", terminal, (runs,))
        row[:, a + 2 :] = self._checked("observe.next_obs", next_obs, (runs, d))
        flag = row[:, a + 1]
        # A NaN or inf anywhere makes the sum of squares one; so may a square beyond the largest number.
        if not np.isfinite(np.vdot(row, row)) or np.abs(scaled).max() > 1.0 + 1e-4 or (flag * (1.0 - flag)).any():
            self._refuse(row, played)
        np.maximum(scaled, -1.0, out=scaled)
        np.minimum(scaled, 1.0, out=scaled)
        self.replay.add(row)
        self.interactions += 1

    @property
    def ready(self) -> bool:
        """Whether updates may begin: the random steps are over and the replay holds a batch."""
        return bool(self.interactions >= self.config.random_steps and self.replay.size >= self.config.batch_size)

    @property
    def due(self) -> int:
        """Updates due after the latest `observe`: `updates_per_step` for each step since the last block of them.

        0 before the agent is `ready` and between two blocks, `update_every` steps apart. A function of how many
        interactions there were: it stays the same until the next.
        """
        every = self.config.update_every
        if not self.ready or self.interactions % every:
            return 0
        return int(every * self.config.updates_per_step)

    # Learning.

    def update(self, n: int = 1) -> None:
        """`n` updates of every run, each from a batch of its own replay.

        Raises:
            ValueError: n below 1, or the agent is not `ready`.
        """
        check_count("update.n", n)
        if not self.ready:
            config = self.config
            expected = f"{config.random_steps} random steps and {config.batch_size} transitions"
            given = f"{self.interactions} and {self.replay.size}"
            reject(f"{self.name}.update", expected, given, "observe more, or ask `ready` first")
        for _ in range(n):
            words, noise = self._draws()
            size = self.replay.size
            if self._recordings is None or (self.distinct and few(size, self.config.batch_size)):
                self._update_once(words, noise, size)
            else:
                self._update_replayed(self._recordings, words, noise, size)

    def _update_once(self, words: Tensor, noise: dict[str, Tensor], size: int | Tensor) -> None:
        """Update number `steps` + 1, from the first `size` rows of the replay."""
        self.steps += 1
        if not self.distinct:
            index = (words * size) >> 32
        elif isinstance(size, int):
            index = distinct_rows(self.philox, words, self.steps, size, self.config.batch_size)
        else:
            index = first_distinct(words, size, self.config.batch_size)
        self._step(self._batch(index), noise)

    def _update_replayed(self, kept: Recordings, words: Tensor, noise: dict[str, Tensor], size: int) -> None:
        """The same by a recording, which reads words, noise and size from memory of its own."""
        if self._inputs is None or self._inputs[0].shape != words.shape:
            self.record_with(kept.recorder)  # the recordings read the inputs of before
            fresh = {name: torch.empty_like(value) for name, value in noise.items()}
            self._inputs = torch.empty_like(words), fresh, torch.zeros((), dtype=torch.int64, device=self.device)
        mine, fresh, rows = self._inputs
        mine.copy_(words)
        for name, value in noise.items():
            fresh[name].copy_(value)
        rows.fill_(size)
        phase = self.steps % getattr(self.config, "policy_period", 1)
        self._replayed((phase, self.config), 1, lambda: self._update_once(mine, fresh, rows))

    def _draws(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Words (R, K) for the batch and the noise, each (R, ...), of update number `steps` + 1."""
        block, place = divmod(self.steps, UPDATE_BLOCK)
        if block != self._update_block:
            first = block * UPDATE_BLOCK + 1
            count = words_wanted(self.config.batch_size, self.distinct)
            words = self.philox.words("batch", first, UPDATE_BLOCK, count)
            self._words = words.transpose(0, 1).contiguous().unbind(0)
            for name, shape in self._noise_shapes().items():
                flat = self.philox.normal(name, first, UPDATE_BLOCK, int(np.prod(shape)), self.dtype)
                noise = flat.view(self.runs, UPDATE_BLOCK, *shape).transpose(0, 1).contiguous()
                self._update_noise[name] = noise.unbind(0)
            self._update_block = block
        return self._words[place], {name: noise[place] for name, noise in self._update_noise.items()}

    def _batch(self, index: Tensor) -> Batch:
        rows = self.replay.take(index)
        d, a = self.obs_dim, self.obs_dim + self.action_dim
        return Batch(rows[..., :d], rows[..., d:a], rows[..., a], rows[..., a + 2 :], rows[..., a + 1], index)

    # Acting and judging.

    def act(self, obs: Any, deterministic: bool = True, draw: int = 0) -> Any:
        """As `Learner.act`; `deterministic=False` samples, where the policy is a distribution.

        The sample is a function of (seed, run, interactions, draw): whoever wants fresh noise at each step of an
        episode gives the number of the step as `draw`, 0 .. 2^20 - 1.
        """
        self._choose(deterministic, draw)
        return super().act(obs)

    def _policy(self, obs: Tensor) -> Tensor:
        return self.action_centre + self.action_scale * self._chosen(obs)[0]

    @torch.no_grad()
    def value(self, obs: Any, action: Any) -> Tensor:
        """(R, n): the critic's prediction, the mean over its members, no pessimism and no entropy in it.

        Args:
            obs: (R, n, obs_dim), raw.
            action: (R, n, action_dim), in the environment's units.

        Raises:
            ValueError: another shape, another n of actions than of observations.
        """
        x, a = self._rows("value.obs", obs, self.obs_dim), self._rows("value.action", action, self.action_dim)
        if x.shape[1] != a.shape[1]:
            expected, given = f"{x.shape[1]} actions a run, as many as observations", a.shape[1]
            reject(f"{self.name}.value.action", expected, given, "give one action an observation")
        return self._judged(x, (a - self.action_centre) / self.action_scale).mean.mean(1)

    @torch.no_grad()
    def measures(self) -> dict[str, np.ndarray]:
        """What is too slow to be measured in updates, {name: (runs,)}; nothing while the replay is empty.

        representation_rank: how many singular values of X / sqrt(n) are above 0.01, X the critic's features (n, N) at
        n = 2048 rows of the run's replay, drawn with replacement; the mean over the critic's members, NaN for a run
        with features that are not finite, absent for a critic without features. A function of (seed, run, number of
        interactions) beside the state.
        """
        size = self.replay.size
        if not size:
            return {}
        words = self.philox.words("measures", self.interactions, 1, MEASURED_ROWS)[:, 0]
        batch = self._batch((words * size) >> 32)
        features = self._judged(batch.obs, batch.action, features=True).features
        if features is None:
            return {}
        return {"representation_rank": representation_rank(features).eps.mean(1).cpu().numpy()}

    def _judged(self, obs: Tensor, action: Tensor, features: bool = False) -> Evaluation:
        """The critic's evaluation without dropout: obs (R, n, obs_dim), action (R, n, action_dim) in [-1, 1]."""
        self.critic.eval()
        try:
            return self.critic.evaluate(obs, action, features)
        finally:
            self.critic.train()

    @torch.no_grad()
    def entropy_bonus(self, obs: Any, deterministic: bool = True, draw: int = 0) -> Tensor:
        """(R, n): -alpha log pi(a | s) at the actions that `act` gives for the same arguments; 0 for hard agents.

        The log-density is that of the action scaled to [-1, 1], as in the loss. A soft agent's return is that of
        rewards plus this bonus, its value `value` plus the bonus at that state. Where the action is an average of
        samples, which has no density of its own, the samples' bonuses are averaged.

        Args:
            obs: (R, n, obs_dim), raw.
            deterministic, draw: as of `act`.
        """
        self._choose(deterministic, draw)
        return self._chosen(self._rows("entropy_bonus.obs", obs, self.obs_dim))[1]

    def _choose(self, deterministic: bool, draw: int) -> None:
        if not 0 <= draw < DRAWS:
            reject("act.draw", f"0 .. {DRAWS - 1}", draw, "give the number of the step within the episode")
        self._deterministic, self._draw = deterministic, draw

    def _acting_noise(self, purpose: str, rows: int, samples: int = 1) -> Tensor:
        """(samples, R, rows, action_dim) standard normal numbers for `act`."""
        shape = (self.runs, samples, rows, self.action_dim)
        count = samples * rows * self.action_dim
        flat = self.philox.normal(purpose, self.interactions * DRAWS + self._draw, 1, count, self.dtype)
        return flat.view(shape).transpose(0, 1)

    # Files.

    def meta(self) -> dict[str, Any]:
        """As `Learner.meta`, and how many interactions."""
        return {**super().meta(), "interactions": self.interactions}

    def state_dict(self) -> dict[str, Tensor]:
        """As `Learner.state_dict`, with the counters and "replay", (R, size, width): its filled rows."""
        counters = {"interactions": torch.tensor(self.interactions), "replay_rows": torch.tensor(self.replay.added)}
        return {**super().state_dict(), **counters, "replay": self.replay.filled()}

    def load_state_dict(self, state: dict[str, Tensor], steps: int) -> None:
        """Copy a saved state in; all or nothing. Without "replay" the replay is empty afterwards.

        Raises:
            ValueError: a missing, unknown or differently shaped tensor.
        """
        rows = state.get("replay")
        if rows is not None and "replay_rows" in state:
            self.replay.check(rows, int(state["replay_rows"]))
        # The replay is as long as it happens to be, and a small file has none: it goes in by itself.
        super().load_state_dict({**state, "replay": self.replay.filled()}, steps)
        self.interactions = int(state["interactions"])
        self.replay.restore(rows, int(state["replay_rows"]))

    def save(self, path: str | Path, replay: bool = True, **extra: Any) -> None:
        """As `Learner.save`; `replay=False` leaves the replay out: a small file, enough to act."""
        state = self.state_dict()
        if not replay:
            del state["replay"]
        save_tensors(path, state, {**self.meta(), **extra})

    # What an agent fills in.

    @abstractmethod
    def _explored(self, obs: Tensor, noise: Tensor) -> Tensor:
        """The policy's action with its noise: obs (R, 1, obs_dim), noise and result (R, 1, action_dim)."""

    @abstractmethod
    def _chosen(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Action (R, n, action_dim) and entropy bonus (R, n) as `_deterministic` and `_draw` say: obs (R, n, .)."""

    def _random(self, first: int, count: int) -> Tensor:
        """(R, count, action_dim) actions of the random steps first .. first + count - 1."""
        return 2.0 * self.philox.uniform("random_action", first, count, self.action_dim, self.dtype) - 1.0

    # The boundary.

    def _to_box(self, action: np.ndarray) -> np.ndarray:
        """[-1, 1] -> the environment's units; centre + scale * action can round to just outside the box."""
        stretched: np.ndarray = np.maximum(np.minimum(self._centre + self._scale * action, self._high), self._low)
        return stretched

    def _checked(self, field: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        array = np.asarray(value, self._low.dtype)
        if array.shape != shape:
            reject(f"{self.name}.{field}", f"shape {shape}, one row a run", f"shape {array.shape}", "one row a run")
        return array

    def _rows(self, field: str, value: Any, width: int) -> Tensor:
        """(R, n, width) on the device."""
        x = torch.as_tensor(value).to(self.device, self.dtype)
        if x.ndim != 3 or x.shape[0] != self.runs or x.shape[2] != width:
            given = f"shape {tuple(x.shape)}"
            reject(f"{self.name}.{field}", f"shape ({self.runs}, n, {width})", given, "give each run its own rows")
        return x

    def _refuse(self, row: np.ndarray, played: np.ndarray) -> None:
        """ValueError that names what is wrong with a transition, whose run, and when, if anything is."""
        d, a = self.obs_dim, self.obs_dim + self.action_dim
        finite = ~np.isfinite(row)
        flag = row[:, [a + 1]]
        box = f"actions in {self._low} to {self._high}"
        faults = {
            "obs": (finite[:, :d], "finite numbers", "a NaN or inf"),
            "action": (~np.isfinite(played), "finite numbers", "a NaN or inf"),
            "reward": (finite[:, [a]], "finite numbers", "a NaN or inf"),
            "next_obs": (finite[:, a + 2 :], "finite numbers", "a NaN or inf"),
            "terminal": ((flag != 0) & (flag != 1), "0 or 1", "another value"),
            "action ": (np.abs(row[:, d:a]) > 1.0 + 1e-4, box, "one outside"),
        }
        for field, (wrong, expected, given) in faults.items():
            if wrong.any():
                ids = [self.run_ids[i] for i in np.flatnonzero(wrong.any(1))]
                where = f"{given} in run(s) {ids} at interaction {self.interactions + 1}"
                reject(f"{self.name}.observe.{field.strip()}", expected, where, "mend the environment or its wrapper")

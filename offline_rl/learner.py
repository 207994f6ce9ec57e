"""The thin base of the offline learners: data on the device, draws in blocks, updates.

A learner adds its networks (`_build`), its noise (`_noise_shapes`) and one update (`_step`); `offline_rl.base` says
what it has besides.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Hashable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from offline_rl.base import Learner
from offline_rl.boundary import check_count, column_statistics, rows_of
from offline_rl.config import Config
from offline_rl.critics.interface import Batch
from orbs import ROW_BLOCK, Rows, reject

__all__ = ["OfflineLearner"]

# Random numbers are drawn for this many updates at a time: enough to hide the draw's own overhead, small enough
# for the cache. Results do not depend on it.
BLOCK = 128
RECORDED = 64  # updates of a recorded block, but for whole periods of the actor's
STD_EPS = 1e-3


class OfflineLearner(Learner):
    """A learner on one dataset. See `Learner` for the arguments."""

    config_class: ClassVar[type[Config]]
    data_name: str = ""
    data_checksum: str = ""
    _data: Tensor | None = None

    @classmethod
    def for_dataset(cls, dataset: Any, **arguments: Any) -> Self:
        """A learner shaped for a dataset (`Transitions`, or anything whose `transitions()` gives them)."""
        data = rows_of(dataset)
        learner = cls(data.obs_dim, data.action_dim, data.action_low, data.action_high, **arguments)
        learner.attach(data)
        return learner

    def attach(self, dataset: Any) -> None:
        """Put the data on the device, normalised.

        A learner that has been trained keeps its observation normaliser, which is part of its policy; other data than
        it was trained on are taken with a warning, and all else that is made from data is made from them.

        Raises:
            ValueError: shapes or an action box that do not fit the learner.
        """
        data = rows_of(dataset)
        if (data.obs_dim, data.action_dim) != (self.obs_dim, self.action_dim):
            reject(
                f"{self.name}.attach",
                f"obs_dim {self.obs_dim} and action_dim {self.action_dim}",
                f"{data.obs_dim} and {data.action_dim}",
                "build the learner with for_dataset",
            )
        box = (self.action_low.cpu().numpy(), self.action_high.cpu().numpy())
        if not (np.allclose(data.action_low, box[0]) and np.allclose(data.action_high, box[1])):
            given = f"{data.action_low} to {data.action_high}"
            reject(f"{self.name}.attach", f"actions in {box[0]} to {box[1]}", given, "use for_dataset")
        checksum = data.checksum()
        if self.steps and self.data_checksum not in ("", checksum):
            message = f"{self.name} goes on on other data ({data.name}) than before ({self.data_name})"
            kept = "its observation normaliser stays that of the old data"
            made = "which rows it learns from and how their rewards are scaled follow from the new data"
            warnings.warn(f"{message}; {kept}, {made}", stacklevel=2)
        data = self._select(data)
        self._surveyed(data)
        config = self.config
        if config.normalise_obs and not self.steps:
            kind = np.dtype(config.stats_dtype)
            mean, std = column_statistics(data, "obs", kind)
            self.obs_mean.copy_(torch.as_tensor(mean))
            self.obs_std.copy_(torch.as_tensor(std + kind.type(STD_EPS)))
        self._data = self._packed(data)
        self.data_name, self.data_checksum = data.name, checksum
        self._attached(self._data[:, : self.obs_dim], self._data[:, self.obs_dim : self.obs_dim + self.action_dim])
        if self._recordings is not None:  # they read the data of before
            self.record_with(self._recordings.recorder)

    def update(self, n: int) -> None:
        """`n` updates of every run; update(a) then update(b) equals update(a + b) bit for bit.

        On a GPU give it many at a time: what is less than a recorded block of 64 is done one by one.

        Raises:
            ValueError: n below 1, or no data attached.
        """
        check_count("update.n", n)
        if self._data is None:
            reject(f"{self.name}.update", "attached data", "none", "call attach(dataset) or use for_dataset")
        done = 0
        while done < n:
            done += self._advance(n - done)

    def _advance(self, most: int) -> int:
        """Make some of the next `most` updates; how many they were."""
        if self._recordings is None:
            return self._block(min(BLOCK, most))
        period, length = self._recorded_length()
        lead = -self.steps % period
        if lead or most < length:  # a recorded block begins with a period
            return self._block(min(lead or most, most, BLOCK))
        self._replayed((length, *self._recorded_for()), length, lambda: self._block(length))
        return length

    def _block(self, count: int) -> int:
        """`count` updates, their random numbers drawn at once."""
        rows, noise = self._draw(count)
        for step in range(count):
            self.steps += 1
            batch = self._batch(rows[:, step])
            self._step(batch, {key: value[:, step] for key, value in noise.items()})
        return count

    def _recorded_length(self) -> tuple[int, int]:
        """The actor's period, and how many updates a recorded block has: whole periods."""
        period = getattr(self.config, "policy_period", 1)
        return period, max(RECORDED // period, 1) * period

    def _recorded_for(self) -> tuple[Hashable, ...]:
        """Whatever a recorded block depends on beside the data attached last and the contents of tensors."""
        return (self.config,)

    def fit(self, dataset: Any, steps: int, progress: bool | None = None) -> Self:
        """Attach and update `steps` times with a progress bar (None: only where stderr is a terminal)."""
        check_count("fit.steps", steps)
        self.attach(dataset)
        from tqdm import tqdm  # here, because whoever calls update() needs no progress bar

        hide = not sys.stderr.isatty() if progress is None else not progress
        with tqdm(total=steps, desc=self.name, unit="update", disable=hide) as bar:
            size = max(BLOCK, self._recorded_length()[1])
            for start in range(0, steps, size):
                block = min(size, steps - start)
                self.update(block)
                bar.update(block)
        return self

    def meta(self) -> dict[str, Any]:
        """As `Learner.meta`, and which data."""
        return {**super().meta(), "data": self.data_name, "data_checksum": self.data_checksum}

    def _restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        super()._restore(tensors, meta)
        self.data_name, self.data_checksum = meta["data"], meta["data_checksum"]

    # What a learner may fill in besides.

    def _select(self, data: Rows) -> Rows:
        """The rows to learn from."""
        return data

    def _surveyed(self, data: Rows) -> None:
        """Whatever is measured on the raw selected rows, before they are packed (e.g. the range of returns)."""

    def _shape_action(self, action: Tensor) -> Tensor:
        """The data's actions as the learner takes them: (N, action_dim) -> (N, action_dim)."""
        return action

    def _attached(self, obs: Tensor, action: Tensor) -> None:
        """Whatever is made once from the data: obs (N, obs_dim) normalised, action (N, action_dim)."""

    def _shape_reward(self, reward: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.config.reward_scale * reward + self.config.reward_shift, next_obs

    def _packed(self, data: Rows) -> Tensor:
        """(N, 2 obs_dim + action_dim + 2): one row holds all that an update needs: one gather, a few cache lines.

        Filled block by block: whole-array temporaries would double the memory that a large dataset takes.
        """
        width = 2 * self.obs_dim + self.action_dim + 2
        packed = torch.empty((len(data), width), dtype=self.dtype, device=self.device)
        for start in range(0, len(data), ROW_BLOCK):
            stop = min(start + ROW_BLOCK, len(data))
            obs, action, reward, next_obs, terminal = (
                torch.as_tensor(data.part(field, start, stop)).to(self.device, self.dtype)
                for field in ("obs", "action", "reward", "next_obs", "terminal")
            )
            obs, next_obs = self._normalise(obs), self._normalise(next_obs)
            reward, next_obs = self._shape_reward(reward, next_obs)
            action = self._shape_action(action)
            torch.cat((obs, action, reward[:, None], terminal[:, None], next_obs), dim=1, out=packed[start:stop])
        return packed

    def _draw(self, steps: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert self._data is not None
        rows = self.philox.integers("batch", len(self._data), self.steps + 1, steps, self.config.batch_size)
        noise = {}
        for name, shape in self._noise_shapes().items():
            count = int(np.prod(shape))
            flat = self.philox.normal(name, self.steps + 1, steps, count, self.dtype)
            noise[name] = flat.view(self.runs, steps, *shape)
        return rows, noise

    def _batch(self, index: Tensor) -> Batch:
        assert self._data is not None
        rows = self._data.index_select(0, index.reshape(-1)).view(*index.shape, -1)
        a = self.obs_dim + self.action_dim
        return Batch(
            obs=rows[..., : self.obs_dim],
            action=rows[..., self.obs_dim : a],
            reward=rows[..., a],
            next_obs=rows[..., a + 2 :],
            terminal=rows[..., a + 1],
            row=index,
        )

"""The one thin base of the offline learners: data on the device, draws in blocks, acting, saving.

A learner adds its networks (`_build`), its noise (`_noise_shapes`) and one update (`_step`). Everything with a
leading axis R is one entry per run; run i draws the same numbers whichever runs ride along.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from offline_rl.boundary import check_count, column_statistics, device_of, rows_of, run_ids_of
from offline_rl.config import Config
from offline_rl.critics.interface import Batch
from orbs import ROW_BLOCK, Philox, Rows, checked_fields, load_tensors, reject, save_tensors

__all__ = ["OfflineLearner"]

# Random numbers are drawn for this many updates at a time: enough to hide the draw's own overhead, small enough
# for the cache. Results do not depend on it.
BLOCK = 128
STD_EPS = 1e-3


class OfflineLearner(ABC):
    """Trains `runs` independent copies of one algorithm at once on one dataset.

    Args:
        obs_dim, action_dim: sizes of one observation and action.
        action_low, action_high: the action box, scalars or (action_dim,).
        runs: how many runs, or the ids of the runs (an id is a random stream: run 3 of runs=5 equals runs=[3]).
        seed: 0 .. 2^32 - 1, shared by all runs.
        device: "cpu", "cuda", "cuda:1", ...
        dtype: torch.float32, or torch.float64 for proofs.
        hyperparameters: fields of the algorithm's configuration.

    Raises:
        ValueError: an unknown hyperparameter (the nearest name is suggested) or one out of range.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[Config]]

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        action_low: float | Sequence[float] | np.ndarray = -1.0,
        action_high: float | Sequence[float] | np.ndarray = 1.0,
        *,
        runs: int | Sequence[int] = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        **hyperparameters: Any,
    ) -> None:
        self.run_ids = run_ids_of(runs)
        if obs_dim < 1 or action_dim < 1:
            reject("obs_dim, action_dim", "positive sizes", (obs_dim, action_dim), "give the shapes of the data")
        if dtype not in (torch.float32, torch.float64):
            reject("dtype", "torch.float32 or torch.float64", dtype, "choose one of these")
        self.config: Any = self.config_class(**checked_fields(self.config_class, hyperparameters, self.name))
        self.obs_dim, self.action_dim, self.dtype = int(obs_dim), int(action_dim), dtype
        self.device = device_of(device)
        for field, bound in (("action_low", action_low), ("action_high", action_high)):
            if np.shape(bound) not in ((), (1,), (action_dim,)):
                fix = "give one bound, or one an action coordinate"
                reject(field, f"a number or shape ({action_dim},)", f"shape {np.shape(bound)}", fix)
        low, high = (
            torch.as_tensor(np.broadcast_to(np.asarray(bound, np.float32), (action_dim,)).copy())
            for bound in (action_low, action_high)
        )
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all() & (low < high).all()):
            reject("action_low, action_high", "finite bounds, low below high", (action_low, action_high), "mend them")
        self.action_low, self.action_high = (bound.to(self.device, dtype) for bound in (low, high))
        # The actor's tanh is stretched over the box: centre + scale * tanh; noise is in units of `scale`.
        self.action_centre = (self.action_high + self.action_low) / 2
        self.action_scale = (self.action_high - self.action_low) / 2
        self.obs_mean = torch.zeros(self.obs_dim, dtype=dtype, device=self.device)
        self.obs_std = torch.ones(self.obs_dim, dtype=dtype, device=self.device)
        self.philox = Philox(seed, self.run_ids, self.device)
        self.seed = self.philox.seed
        self.steps = 0
        self.data_name = self.data_checksum = ""
        self._data: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._build()

    @classmethod
    def for_dataset(cls, dataset: Any, **arguments: Any) -> Self:
        """A learner shaped for a dataset (`Transitions`, or anything whose `transitions()` gives them)."""
        data = rows_of(dataset)
        learner = cls(data.obs_dim, data.action_dim, data.action_low, data.action_high, **arguments)
        learner.attach(data)
        return learner

    @property
    def runs(self) -> int:
        return len(self.run_ids)

    def attach(self, dataset: Any) -> None:
        """Put the data on the device, normalised.

        A learner that has been trained keeps its normaliser, which is part of its policy; other data than it was
        trained on are taken with a warning.

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
            warnings.warn(f"{message}; its normaliser stays that of the old data", stacklevel=2)
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

    def update(self, n: int) -> None:
        """`n` updates of every run; update(a) then update(b) equals update(a + b) bit for bit.

        Raises:
            ValueError: n below 1, or no data attached.
        """
        check_count("update.n", n)
        if self._data is None:
            reject(f"{self.name}.update", "attached data", "none", "call attach(dataset) or use for_dataset")
        done = 0
        while done < n:
            block = min(BLOCK, n - done)
            rows, noise = self._draw(block)
            for step in range(block):
                self.steps += 1
                batch = self._batch(rows[:, step])
                self._step(batch, {key: value[:, step] for key, value in noise.items()})
            done += block

    def fit(self, dataset: Any, steps: int, progress: bool | None = None) -> Self:
        """Attach and update `steps` times with a progress bar (None: only where stderr is a terminal)."""
        check_count("fit.steps", steps)
        self.attach(dataset)
        from tqdm import tqdm  # here, because whoever calls update() needs no progress bar

        hide = not sys.stderr.isatty() if progress is None else not progress
        with tqdm(total=steps, desc=self.name, unit="update", disable=hide) as bar:
            for start in range(0, steps, BLOCK):
                block = min(BLOCK, steps - start)
                self.update(block)
                bar.update(block)
        return self

    @torch.no_grad()
    def act(self, obs: Any, deterministic: bool = True) -> Any:
        """Actions in the environment's units for raw observations.

        Args:
            obs: (obs_dim,) or (n, obs_dim), seen by every run, or (runs, n, obs_dim), each run its own; array or
                tensor.
            deterministic: these learners' policies are deterministic, so False changes nothing.

        Returns:
            (action_dim,), (n, action_dim) or (runs, n, action_dim): in kind, with a leading runs axis wherever
            there is more than one run. Array for array, tensor for tensor.

        Raises:
            ValueError: another shape.
        """
        x = obs if isinstance(obs, Tensor) else torch.tensor(np.asarray(obs, order="C"))
        rank = x.ndim
        if rank not in (1, 2, 3) or x.shape[-1] != self.obs_dim or (rank == 3 and x.shape[0] != self.runs):
            expected = f"({self.obs_dim},), (n, {self.obs_dim}) or ({self.runs}, n, {self.obs_dim})"
            reject("act.obs", f"shape {expected}", f"shape {tuple(x.shape)}", "give raw observations of this task")
        x = x.to(self.device, self.dtype)
        x = x if rank == 3 else x.reshape(1, -1, self.obs_dim).expand(self.runs, -1, -1)
        # centre + scale * tanh can round to just outside the box.
        action = torch.clamp(self._policy(self._normalise(x)), self.action_low, self.action_high)
        if rank == 1:
            action = action[:, 0]
        if rank < 3 and self.runs == 1:
            action = action[0]
        if isinstance(obs, Tensor):
            return action.to(obs.device)
        return action.cpu().numpy()

    def metrics(self) -> dict[str, np.ndarray]:
        """Means since the last call, {name: (runs,)}. The one place where the host waits for the device."""
        values = {name: (total / self._counts[name]).cpu().double().numpy() for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return values

    def finite(self) -> np.ndarray:
        """(runs,) bool: whether every parameter of the run is a finite number."""
        fine = torch.ones(self.runs, dtype=torch.bool, device=self.device)
        for tensor in self._tensors().values():
            if tensor.ndim and tensor.shape[0] % self.runs == 0 and tensor.shape != self.obs_mean.shape:
                fine &= torch.isfinite(tensor.reshape(self.runs, -1)).all(1)
        return fine.cpu().numpy()

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that training goes on from, by name (views, not copies)."""
        return {"obs_mean": self.obs_mean, "obs_std": self.obs_std, **self._tensors()}

    def meta(self) -> dict[str, Any]:
        """What is needed to build the learner again, as plain JSON values."""
        return {
            "algorithm": self.name,
            "obs_dim": self.obs_dim,
            "action_dim": self.action_dim,
            "action_low": self.action_low.tolist(),
            "action_high": self.action_high.tolist(),
            "runs": self.run_ids,
            "seed": self.seed,
            "dtype": str(self.dtype).removeprefix("torch."),
            "steps": self.steps,
            "data": self.data_name,
            "data_checksum": self.data_checksum,
            "config": dataclasses.asdict(self.config),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor], steps: int) -> None:
        """Copy a saved state in; all or nothing.

        Raises:
            ValueError: a missing, unknown or differently shaped tensor.
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            reject("state_dict", "the same names", sorted(own.keys() ^ state.keys())[:5], "load into the same learner")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape or tensor.dtype != state[name].dtype:
                given = f"{tuple(state[name].shape)} {state[name].dtype}"
                reject(f"state_dict.{name}", f"{tuple(tensor.shape)} {tensor.dtype}", given, "load the same algorithm")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.steps = int(steps)

    def save(self, path: str | Path, **extra: Any) -> None:
        """Write one safetensors file, atomically. `extra` joins the JSON in its header."""
        save_tensors(path, self.state_dict(), {**self.meta(), **extra})

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """A learner as it was saved; attach the data again to go on training.

        Raises:
            ValueError: a damaged file, or one of another algorithm.
        """
        tensors, meta = load_tensors(path)
        if meta.get("algorithm") != cls.name:
            reject("load", f"a checkpoint of {cls.name}", meta.get("algorithm"), "use offline_rl.load")
        try:
            learner = cls(
                meta["obs_dim"],
                meta["action_dim"],
                meta["action_low"],
                meta["action_high"],
                runs=meta["runs"],
                seed=meta["seed"],
                device=device,
                dtype=getattr(torch, meta["dtype"]),
                **{key: tuple(value) if isinstance(value, list) else value for key, value in meta["config"].items()},
            )
            learner.load_state_dict(tensors, meta["steps"])
            learner.data_name, learner.data_checksum = meta["data"], meta["data_checksum"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"load: expected a learner's checkpoint, got {path} with a header that lacks or garbles {error}. Fix: "
                "use an earlier copy or train again."
            ) from error
        return learner

    # What a learner fills in.

    @abstractmethod
    def _build(self) -> None:
        """Make the networks and optimisers."""

    @abstractmethod
    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        """One update of all runs; `self.steps` is its number, from 1."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """Everything to save but the normaliser."""

    @abstractmethod
    def _policy(self, obs: Tensor) -> Tensor:
        """(R, B, obs_dim) normalised -> (R, B, action_dim) in the environment's units."""

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Standard normal numbers wanted per update and run: {name: shape}."""
        return {}

    def _select(self, data: Rows) -> Rows:
        """The rows to learn from."""
        return data

    def _surveyed(self, data: Rows) -> None:  # noqa: B027 (most learners measure nothing)
        """Whatever is measured on the raw selected rows, before they are packed (e.g. the range of returns)."""

    def _shape_action(self, action: Tensor) -> Tensor:
        """The data's actions as the learner takes them: (N, action_dim) -> (N, action_dim)."""
        return action

    def _attached(self, obs: Tensor, action: Tensor) -> None:  # noqa: B027 (most learners make nothing)
        """Whatever is made once from the data: obs (N, obs_dim) normalised, action (N, action_dim)."""

    def _shape_reward(self, reward: Tensor, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.config.reward_scale * reward + self.config.reward_shift, next_obs

    # What they share.

    def _record(self, **values: Tensor) -> None:
        """Add (runs,) values to the running means, on the device."""
        for name, value in values.items():
            total = self._sums.get(name)
            self._sums[name] = value.detach().clone() if total is None else total.add_(value.detach())
            self._counts[name] = self._counts.get(name, 0) + 1

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

    def _normalise(self, obs: Tensor) -> Tensor:
        return (obs - self.obs_mean) / self.obs_std

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
